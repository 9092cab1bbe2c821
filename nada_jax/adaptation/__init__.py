"""StyleGAN-NADA itself: `step` (the training step) on `state`, guided by `terms` under `settings`; `prompts`,
`steering` and `vocabulary` give directions, `views` what CLIP sees, `freezing` what trains, `watch` the end."""
