"""Cartoon portrait -> pencil sketch.

    python main.py --config=configs/nada_sketch.py           # embedded models, about a minute on a laptop
    python main.py --config=configs/nada_sketch.py:ffhq      # the paper's run, one GPU or TPU

Expected: outlines by step 100; at the end dark outlines on light paper, with less colour; bright hair stays tinted.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for FFHQ 1024 and OpenAI's CLIPs."""
    config = default.get_config(variant)
    config.text.source, config.text.target = "cartoon portrait", "pencil sketch"
    if variant == "ffhq":  # the command of the official README
        config.text.source, config.text.target = "photo", "sketch"
        config.steps = 301
        config.freeze.strategy, config.freeze.k = "adaptive", 18
        config.freeze.parity = "official"
    else:
        config.steps = 300
        config.clip.zoom = 1.35
        config.loss.angle = 0.75
    return config
