"""Gives a portrait long hair.

    python main.py --config=configs/edit_long_hair.py                          # six portraits that ship
    python main.py --config=configs/edit_long_hair.py --config.seeds="(1,2,3)"
    python main.py --config=configs/edit_long_hair.py:ffhq --config.images=photo.jpg

Expected: hair grows to the shoulders with most of those who have some, and on some bald heads.
"""

from ml_collections import ConfigDict

from configs import edit


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for photographs of faces."""
    config = edit.get_config(variant)
    config.edit.text, config.edit.label = "a woman with long hair", "long_hair"
    return config
