"""Official PyTorch checkpoints -> native weights, and back: `python -m convert --help`."""
