"""Cartoon portrait -> stained glass: by CLIP's direction, and by the style of an image.

    python main.py --config=configs/nada_stained_glass.py           # embedded models, about three minutes on a laptop
    python main.py --config=configs/nada_stained_glass.py:ffhq      # FFHQ 1024, one GPU or TPU
    python main.py --config=configs/nada_stained_glass.py --config.style.images=my_windows --config.style.scale=2

Expected: ...
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for FFHQ 1024 and OpenAI's CLIPs."""
    config = default.get_config(variant)
    config.text.source, config.text.target = "cartoon portrait", "stained glass"
    config.loss.style = 2.0
    config.style.images = "nada_jax/assets/styles/glass.jpg"
    config.style.scale = 3.0  # of 64 pixels: panes as large as a cheek, and lines that are seen
    if variant == "ffhq":
        config.text.source = "photo"
        config.style.size, config.style.scale = 256, 2.0
    else:
        config.steps = 300
        config.clip.zoom = 1.35
        config.loss.angle = 0.75
    return config
