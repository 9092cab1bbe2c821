"""Converts official PyTorch checkpoints to native weights, and back: `python -m convert --help`.

Import `kinds` to convert files, the module of a kind for its table, and `unpickle.reader` to read files.
"""
