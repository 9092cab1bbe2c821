"""Draws a grid and single images from any generator, beside its source where that is given.

    python main.py --config=configs/sample.py
    python main.py --config=configs/sample.py --config.generator.weights=runs/nada_sketch/generator.safetensors \
        --config.source.weights=avatar64 --config.rows=4 --config.truncation=0.5

Expected: samples/grid.png, and one file for each of its images.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; there are no variants."""
    if variant:
        raise ValueError(f"config variant is {variant!r}; configs/sample.py has none")
    config = ConfigDict()
    config.task = "sample"  # the module of nada_jax.tasks that runs this config
    config.precision = "float32"  # networks compute in float32 or bfloat16
    config.generator = ConfigDict()
    config.generator.weights = "avatar64"  # a name ("preset:sketch", "run:sketch"), or a file
    config.generator.deltas = ()  # files of the strategy style_space, added to its styles
    config.generator.scales = ()  # a factor for each of them: 0.5 goes half the way; by default 1
    config.source = ConfigDict()
    config.source.weights = ""  # a second generator, drawn from the same latents above the first
    config.seed = 0  # of the first image; the next ones count up, to 2^32 - 1 at most
    config.rows = 3  # of the grid; rows * columns up to 65,536
    config.columns = 8  # of the grid
    config.truncation = 0.7  # 1 draws as trained; less is more typical; 0 is the mean image
    config.noise = "const"  # the generator's own buffers, or "none", or "random" by seed
    config.singles = True  # also write each image of the grid as a file of its own
    return config
