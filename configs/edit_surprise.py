"""Surprises a portrait.

    python main.py --config=configs/edit_surprise.py                          # six portraits that ship
    python main.py --config=configs/edit_surprise.py --config.seeds="(1,2,3)"
    python main.py --config=configs/edit_surprise.py:ffhq --config.images=photo.jpg

Expected: wide open eyes and mouths.
"""

from ml_collections import ConfigDict

from configs import edit


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for photographs of faces."""
    config = edit.get_config(variant)
    config.edit.text, config.edit.label = "a surprised person", "surprise"
    return config
