"""Gives a portrait a beard.

    python main.py --config=configs/edit_beard.py                          # six portraits that ship
    python main.py --config=configs/edit_beard.py --config.seeds="(1,2,3)"
    python main.py --config=configs/edit_beard.py:ffhq --config.images=photo.jpg

Expected: full beards with some, shadows on the chins of others.
"""

from ml_collections import ConfigDict

from configs import edit


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for photographs of faces."""
    config = edit.get_config(variant)
    config.edit.text, config.edit.label = "a man with a beard", "beard"
    return config
