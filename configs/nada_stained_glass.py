"""Cartoon portrait -> stained glass, by the text and by the style of an image.

    python main.py --config=configs/nada_stained_glass.py           # embedded models, about two minutes on a laptop
    python main.py --config=configs/nada_stained_glass.py:ffhq      # FFHQ 1024, one GPU or TPU; not tried yet
    python main.py --config=configs/nada_stained_glass.py --config.style.images=my_windows

Expected: dark lines by step 100; blue and green panes behind faces that are outlined in lead, with eyes and hair of
their own, by step 200.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for FFHQ 1024 and OpenAI's CLIPs."""
    config = default.get_config(variant)
    config.text.source, config.text.target = "cartoon portrait", "stained glass"
    config.loss.style = 1.5
    config.style.images = "glass"  # an image that ships; or a file, or a folder
    config.style.layers = ("relu1_1", "relu2_1", "relu3_1")  # deeper ones take more time
    config.style.scale = 3.0  # or panes and the lead between them are a few pixels of 64
    if variant == "ffhq":
        config.text.source = "photo"
        config.style.size = 256
        config.style.scale = 2.0
    else:
        config.steps = 200
        config.loss.angle = 0.75  # without a zoom of the CLIPs, with which faces lose their eyes
    return config
