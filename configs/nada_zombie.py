"""Cartoon portrait -> zombie.

    python main.py --config=configs/nada_zombie.py           # embedded models, about a minute on a laptop
    python main.py --config=configs/nada_zombie.py:ffhq      # FFHQ 1024, one GPU or TPU

Expected: grey-green faces by step 80, torn and stained clothes by step 160.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for FFHQ 1024 and OpenAI's CLIPs."""
    config = default.get_config(variant)
    config.text.source, config.text.target = "cartoon portrait", "zombie"
    if variant == "ffhq":  # a change of identity: few steps
        config.text.source = "human"
        config.steps = 200
    return config
