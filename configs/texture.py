"""Draws textures from noise by the style of an image alone: by each layer of a VGG, and by more and more of them.

    python main.py --config=configs/texture.py                                          # brush strokes, nine textures
    python main.py --config=configs/texture.py --config.style=bark.jpg --config.sets=all # one texture, by all layers
    python main.py --config=configs/texture.py --config.style=styles --config.sets=all --config.tileable=True
    python main.py --config=configs/texture.py:fine --config.sets=all                   # larger and slower: for a GPU

Expected: results/STYLE_LAYERS.png, or result.png where it is one; strip.png and texture.html, which show them beside the style;
texture.md, how far each is from the style in every layer; and where textures are tileable 2 x 2 of each in tiled/ (tiled.png).
"""

from ml_collections import ConfigDict

VARIANTS = ("", "fine")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults, for a few minutes on two CPU cores; variant "fine" takes more steps at more pixels."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or: fine")
    config = ConfigDict()
    config.task = "texture"  # the module of nada_jax.tasks that runs this config
    # An image, a folder, "styles" (images that ship) or the name of one of these; several are separated by commas.
    config.style = "strokes"
    config.overwrite = False  # delete an earlier run in the workdir and start anew
    # Layers of a texture: "all" of style_layers; "each" in one of its own; "cumulative", the first, the first two and so on;
    # or "both" of these.
    config.sets = "both"
    config.size = 128  # height in pixels
    config.width = 0  # in pixels; 0: as the height
    config.tileable = (
        False  # copies beside each other have no seams; sides are multiples of 16 then
    )
    config.style_scale = 1.0  # longer side of the style over that of the texture
    config.seed = 0  # of the noise, which all textures start from
    config.batch_size = 4  # textures at once
    config.tile = (
        1024  # side in pixels above which an image is looked at in tiles, which bounds the memory
    )

    config.vgg = ConfigDict()
    config.vgg.weights = (
        "lpips"  # a VGG-16; or "vgg19" (fetched once), or a file; see docs/weights.md
    )
    config.vgg.pooling = "max"  # or "average", which is smoother
    config.loss = ConfigDict()
    config.loss.kind = "gram"  # or "mean_variance", or "wasserstein": how a style is described
    config.loss.style = 100.0  # weight of the style, which matters beside total_variation alone
    config.loss.total_variation = (
        0.0  # weight of differences of neighbouring pixels: smoother images
    )
    config.loss.style_layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    config.loss.style_layer_weights = ()  # of each style layer; (): 1 each

    config.scales = ConfigDict()  # coarse to fine: each has twice the pixels of the one before
    config.scales.smallest = 64  # longer side of the first in pixels, about
    config.scales.first_steps = 100
    config.scales.steps = 80  # at each further one
    config.optimizer = ConfigDict()
    config.optimizer.method = "adam"  # or "lbfgs": fewer and longer steps
    config.optimizer.lr = 0.05  # of Adam; images span 2
    config.optimizer.averaging = 0.9  # of iterates; 0.99 for hundreds of steps, 0 for none

    if variant == "fine":
        config.size = 512
        config.batch_size = 1
        config.scales.smallest = 128
        config.scales.first_steps = 1000
        config.scales.steps = 500
        config.optimizer.averaging = 0.99
    return config
