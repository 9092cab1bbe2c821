"""Cartoon portrait -> pencil sketch.

python main.py --config=configs/nada_sketch.py
"""

from configs import default


def get_config(variant=""):
    config = default.get_config(variant)
    config.text.source, config.text.target = "cartoon portrait", "pencil sketch"
    return config
