"""Makes a portrait smile.

    python main.py --config=configs/edit_smile.py                          # six portraits that ship
    python main.py --config=configs/edit_smile.py --config.seeds="(1,2,3)"
    python main.py --config=configs/edit_smile.py:ffhq --config.images=photo.jpg

Expected: mouths become smiles, which are a few pixels wide here; some skin and hair turns lighter.
"""

from ml_collections import ConfigDict

from configs import edit


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for photographs of faces."""
    config = edit.get_config(variant)
    config.edit.text, config.edit.label = "a smiling person", "smile"
    return config
