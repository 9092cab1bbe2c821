"""Photo -> joker.

    python main.py --config=configs/nada_joker.py           # embedded models, about a minute on a laptop
    python main.py --config=configs/nada_joker.py:ffhq      # FFHQ 1024, one GPU or TPU

Expected: a dark grin by step 80; green hair, white face, red grin and purple clothes by step 160.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for FFHQ 1024 and OpenAI's CLIPs."""
    config = default.get_config(variant)
    # To these CLIPs a joker differs from a photo by clothes and hair too, from a portrait by the face.
    config.text.source, config.text.target = "photo", "joker"
    config.freeze.strategy, config.freeze.phase = "phase", "all"
    if variant == "ffhq":  # ViT-B/32 alone; longer runs give everybody the same face
        config.freeze.strategy = "none"
        config.clip.models, config.clip.weights = ("openai/clip-vit-base-patch32",), (1.0,)
        config.steps = 150
    return config
