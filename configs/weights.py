"""Lists the weights that are known by name: what they are, which are on this machine, sizes and licences.

    python main.py --config=configs/weights.py
    python main.py --config=configs/weights.py --config.fetch=ffhq1024,openai/clip-vit-base-patch32

Expected: a table for each kind, and weights.json. The second line fetches before it lists, for a machine that will have no
network later on.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; there are no variants."""
    if variant:
        raise ValueError(f"config variant is {variant!r}; configs/weights.py has none")
    config = ConfigDict()
    config.task = "weights"  # the module of nada_jax.tasks that runs this config
    config.fetch = ""  # names to fetch first, with commas between them
    return config
