"""StyleGAN-NADA itself.

`step` is the training step and `selection` its adaptive choice of layers, both on `state`; `terms`, `balancing` and
`views` make its loss; `prompts`, `steering` and `vocabulary` give directions; `freezing` says what trains. `settings` is
the whole config in sections, `models` loads what it names, `watch` ends a run early, `results` writes its weights and
plots.
"""
