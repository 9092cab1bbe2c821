"""Gives a portrait red hair.

    python main.py --config=configs/edit_red_hair.py                          # six portraits that ship
    python main.py --config=configs/edit_red_hair.py --config.seeds="(1,2,3)"
    python main.py --config=configs/edit_red_hair.py:ffhq --config.images=photo.jpg

Expected: hair turns red with most, and some bald heads grow a red tuft; shirts may turn red, too.
"""

from ml_collections import ConfigDict

from configs import edit


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for photographs of faces."""
    config = edit.get_config(variant)
    config.edit.text, config.edit.label = "a person with red hair", "red_hair"
    return config
