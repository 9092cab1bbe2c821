"""A direction that changes one thing in every image, from two texts or two folders of images.

    python main.py --config=configs/find_direction.py
    python main.py --config=configs/find_direction.py --config.text.target="person with glasses" --workdir=runs/glasses
    python main.py --config=configs/find_direction.py --config.find.method=global
    python main.py --config=configs/find_direction.py --config.find.method=images \
        --config.find.source_images=without --config.find.target_images=with

Expected: direction.safetensors, for `edit.directions`, and samples/direction.png, in which hair reddens from left to
right. Under a minute on two CPU cores; the first global direction of a generator takes minutes longer.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "ffhq")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" is for FFHQ 1024 and OpenAI's CLIP."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: ffhq")
    config = ConfigDict()
    config.task = "find_direction"  # the module of nada_jax.tasks that runs this config
    config.seed = 0  # of the latents that are drawn
    config.precision = "float32"  # networks compute in float32 or bfloat16
    config.batch_size = 32  # images at once; 2 to 8 for 1024 pixels

    config.generator = ConfigDict()
    config.generator.weights = "avatar64"  # a name ("preset:sketch", "run:sketch"), or a file
    config.clip = ConfigDict()
    config.clip.model = "avatar-p8"  # by which the direction is found: a name or a directory
    config.judge = "avatar-p16"  # by which it is measured; "": by the same
    config.text = ConfigDict()
    config.text.source = "person"  # what all images show
    config.text.target = "person with red hair"  # what strengths above 0 lead to

    config.find = ConfigDict()
    config.find.method = "texts"  # "texts", "images" (in W or W+) or "global" (StyleSpace)
    config.find.samples = 2000  # texts, images: latents drawn and scored by the CLIP
    config.find.source_images = ""  # images: a folder without what the direction shall change
    config.find.target_images = ""  # images: a folder with it
    config.find.beta = 0.2  # global: least relevance of the channels that move; less moves more
    config.encoder = ConfigDict()
    config.encoder.weights = ""  # images: takes the latents of both folders in place of scores
    config.statistics = ConfigDict()  # global: computed once for a generator and a CLIP
    config.statistics.samples = 16  # images in which each channel is moved; officially 100
    config.statistics.seed = 0  # of their latents

    config.strengths = (-2.0, -1.0, 0.0, 1.0, 2.0)  # columns of the sheet
    config.samples = ConfigDict()
    config.samples.count = 32  # latents on which it is measured; the sheet shows the first ones
    config.samples.seed = 1  # of these latents
    config.samples.truncation = 0.7  # 1 draws as trained; less is more typical

    if variant == "ffhq":
        config.batch_size = 4
        config.generator.weights = "ffhq1024"
        config.clip.model = "openai/clip-vit-base-patch32"
        config.judge = "openai/clip-vit-base-patch16"
        config.statistics.samples = 100
    return config
