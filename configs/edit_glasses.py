"""Gives a portrait glasses.

    python main.py --config=configs/edit_glasses.py                          # six portraits that ship
    python main.py --config=configs/edit_glasses.py --config.seeds="(1,2,3)"
    python main.py --config=configs/edit_glasses.py:ffhq --config.images=photo.jpg

Expected: glasses or sunglasses with most; as only some of the training portraits wear them, the face changes most of all recipes.
"""

from ml_collections import ConfigDict

from configs import edit


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for photographs of faces."""
    config = edit.get_config(variant)
    config.edit.text, config.edit.label = "a person with glasses", "glasses"
    return config
