"""Cartoon portrait -> golden statue.

    python main.py --config=configs/nada_golden_statue.py           # embedded models, about a minute
    python main.py --config=configs/nada_golden_statue.py:ffhq      # FFHQ 1024, one GPU or TPU

Expected: golden faces by step 80; gold from hair to clothes, the features still sharp, by step 160.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; variant "ffhq" is the one for FFHQ 1024 and OpenAI's CLIPs."""
    config = default.get_config(variant)
    config.text.source, config.text.target = "cartoon portrait", "golden statue"
    if variant == "ffhq":
        config.text.source = "photo"
    return config
