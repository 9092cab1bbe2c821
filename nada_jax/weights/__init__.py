"""Weights: from a name to a file to a model.

`loading` loads models by name or file, `finding` finds the files behind names, `native` is the file format,
`registry` lists the published weights and where their files stand, `fetching` downloads them, `domains`
loads generators adapted from one source, and `lineage` reads and writes what the file of an adapted
generator says about its origin.
"""
