"""Weights: from a name to a file to a model.

`loading` finds and loads models by name or file, `native` is the file format, `registry` lists the
published weights and where their files stand, `fetching` downloads them, `lineage` reads and writes
what the file of an adapted generator says about its origin, and `domains` loads what was adapted from one source.
"""
