"""Shows what each layer of a VGG keeps of an image: images found from noise by the features of one layer alone.

    python main.py --config=configs/feature_inversion.py                            # a landscape, 13 convolutions and ReLUs
    python main.py --config=configs/feature_inversion.py --config.content=photo.jpg
    python main.py --config=configs/feature_inversion.py --config.layers="(1, 5, 9, 13)"
    python main.py --config=configs/feature_inversion.py:fine                       # larger and slower: for a GPU

Expected: layers/conv1_1.png, layers/relu1_1.png and so on; strip.png and feature_inversion.html, which show them by depth;
loss.png, how much each image misses of the features and of the pixels; and brightness.png.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "fine")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults, for a few minutes on two CPU cores; variant "fine" takes more steps at more pixels."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or: fine")
    config = ConfigDict()
    config.task = "feature_inversion"  # the module of nada_jax.tasks that runs this config
    config.content = "landscape"  # an image, or the name of one that ships
    config.overwrite = False  # delete an earlier run in the workdir and start anew
    # Numbers of convolutions, each of which stands for its ReLU, too; or names, as ("conv3_1", "relu4_2"); (): the first 13.
    config.layers = ()
    config.size = 96  # longer side of the images in pixels
    config.steps = 200  # with half as many, images of the middle layers stay dark
    # Weight of differences of neighbouring pixels, beside the content loss relative to the features: without it, deep layers
    # give a pattern of fine noise that they do not see. More, as 5e-4, suits deep layers alone: it blurs those of the first ones.
    config.total_variation = 1e-4
    config.seed = 0  # of the noise, which all images start from
    config.batch_size = 8  # images at once

    config.vgg = ConfigDict()
    config.vgg.weights = (
        "lpips"  # a VGG-16; or "vgg19" (fetched once), or a file; see docs/weights.md
    )
    config.vgg.pooling = "max"  # or "average"
    config.optimizer = ConfigDict()
    config.optimizer.method = "adam"  # or "lbfgs": fewer and longer steps
    config.optimizer.lr = 0.1  # of Adam; images span 2
    config.optimizer.averaging = 0.9  # of iterates; 0 for none

    if variant == "fine":
        config.size = 224
        config.steps = 1000
        config.optimizer.lr = 0.05
        config.optimizer.averaging = 0.99
    return config
