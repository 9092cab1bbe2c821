"""Paints the content of one image in the style of another, by the features of a VGG.

    python main.py --config=configs/style_transfer.py                                     # a landscape in brush strokes
    python main.py --config=configs/style_transfer.py --config.content=photo.jpg --config.style=painting.jpg
    python main.py --config=configs/style_transfer.py --config.content=my_photos/ --config.style=mosaic,waves
    python main.py --config=configs/style_transfer.py:fine --config.size=1024             # better and slower: for a GPU

Expected: result.png, and strip.png with content, style, the scales from coarse to fine, and the result. With several
contents, styles or weights: results/ and strips/. One page, table and plot of all: style_transfer.html, style_transfer.md and
loss.png. What each setting does: docs/style.md.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "fine")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults, for a few minutes on two CPU cores; variant "fine" takes more steps at more pixels."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or: fine")
    config = ConfigDict()
    config.task = "style_transfer"  # the module of nada_jax.tasks that runs this config
    # Each is an image, a folder, "contents" or "styles" (images that ship) or the name of one of these, such as
    # "landscape" or "mosaic"; several are separated by commas. Every content is drawn in every style.
    config.content = "landscape"
    config.style = "strokes"
    config.overwrite = False  # delete an earlier run in the workdir and start anew
    config.size = 256  # longer side of the results in pixels; the other follows from the content
    config.start = "content"  # or "noise", or an image
    config.seed = 0  # of noise
    config.batch_size = 4  # images at once; 1 for 1024 pixels
    config.tile = 1024  # side in pixels above which an image is looked at in tiles, which bounds the memory; 160 or more
    # All styles in one image, a share for each, such as (0.7, 0.3); (): each style in an image of its own.
    config.blend = ()
    # Where in the content each style belongs: grey images, as many as styles, white is all of it. "": everywhere.
    config.masks = ""
    config.style_scale = (
        1.0  # longer side of the style over that of the result: small strokes below 1, large above
    )
    config.colors = "style"  # or "luminance": the content's colours; "match": the style is recoloured like the content
    config.strength = (
        1.0  # of the result over the content, as one lays one image over another; 0 is the content
    )

    config.vgg = ConfigDict()
    config.vgg.weights = (
        "lpips"  # a VGG-16; or "vgg19" (fetched once), or a file; see docs/weights.md
    )
    config.vgg.pooling = "max"  # or "average", which is smoother
    config.loss = ConfigDict()
    config.loss.kind = "gram"  # or "mean_variance", or "wasserstein": how a style is described
    config.loss.content = 5.0  # weight of the content, as in neural-style
    config.loss.style = (
        100.0,
    )  # weight of the style, as in neural-style; with several, an image for each
    config.loss.total_variation = (
        0.0  # weight of differences of neighbouring pixels: smoother images
    )
    config.loss.content_layers = ("relu4_2",)
    config.loss.style_layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    config.loss.style_layer_weights = ()  # of each style layer; (): 1 each

    config.scales = ConfigDict()  # coarse to fine: each has twice the pixels of the one before
    config.scales.smallest = 128  # longer side of the first in pixels, about
    config.scales.first_steps = 150  # at the first, where the image is found as a whole
    config.scales.steps = 60  # at each further one
    config.optimizer = ConfigDict()
    config.optimizer.method = (
        "adam"  # or "lbfgs": half as many steps, each of which takes two to four times as long
    )
    config.optimizer.lr = 0.04  # of Adam; images span 2
    config.optimizer.averaging = 0.9  # of iterates; 0.99 for hundreds of steps, 0 for none

    if variant == "fine":
        config.size = 512
        config.batch_size = 1
        config.scales.first_steps = 1000
        config.scales.steps = 500
        config.optimizer.averaging = 0.99
    return config
