"""Cartoon portrait -> robot.

    python main.py --config=configs/nada_robot.py           # embedded models, about a minute on a laptop
    python main.py --config=configs/nada_robot.py:ffhq      # FFHQ 1024, one GPU or TPU

Expected: blue-grey skin by step 80, metal from hair to clothes by step 200; the outlines stay human.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for FFHQ 1024 and OpenAI's CLIPs."""
    config = default.get_config(variant)
    config.text.source, config.text.target = "cartoon portrait", "robot"
    config.steps = 200
    if variant == "ffhq":  # a change of shape: mixed latents, two thirds of the 18 layers at a time
        config.text.source = "human"
        config.generator.mixing = 0.9
        config.freeze.strategy, config.freeze.k = "adaptive", 12
        config.freeze.parity = "official"
    else:
        config.clip.zoom = 1.35
        config.loss.angle = 0.5
    return config
