"""Person -> zombie.

    python main.py --config=configs/nada_zombie.py           # embedded models, under a minute on a laptop
    python main.py --config=configs/nada_zombie.py:ffhq      # FFHQ 1024, one GPU or TPU

Expected: green skin by step 100, with the same hair, clothes and white background to the end.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for FFHQ 1024 and OpenAI's CLIPs."""
    config = default.get_config(variant)
    # From "person" only the flesh turns; from "cartoon portrait" clothes and outlines rot as well.
    config.text.source, config.text.target = "person", "zombie"
    config.steps = 200
    config.optimizer.lr = 0.002 * 0.8
    if variant == "ffhq":  # a change of identity: few steps
        config.text.source = "human"
    else:
        config.loss.angle, config.loss.global_ = 1.0, 0.3
    return config
