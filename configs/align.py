"""Faces of photographs, cut out and turned as those of FFHQ, which face generators and encoders expect.

    python main.py --config=configs/align.py --config.images=photo.jpg
    python main.py --config=configs/align.py --config.images=my_photos/ --config.align.faces=all --config.size=256 \\
        --workdir=runs/faces

Expected: aligned/NAME.png for each image (further faces of it as NAME_2.png, ...), and align.html, which shows all of them
beside the photographs with what was found. One to two seconds of one core for an image of 12 megapixels. The
same command again does what is missing.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; there are no variants."""
    if variant:
        raise ValueError(f"config variant is {variant!r}; configs/align.py has none")
    config = ConfigDict()
    config.task = "align"  # the module of nada_jax.tasks that runs this config
    config.images = "faces"  # a file, a folder, or the examples "faces"
    config.overwrite = False  # True deletes an earlier run in the workdir
    config.size = 1024  # side of the results in pixels, as in FFHQ; generators reduce it
    config.align = ConfigDict()
    config.align.mode = "face"  # finds faces; "none" takes the middle, "crop" a part
    config.align.faces = "largest"  # of several; or "all", or a number, 1 for the largest
    config.align.crop = ()  # crop: left, top, right and bottom in pixels; becomes the smallest square around it
    # face: JSON, name of an image -> 5 points [x, y] (left eye, right eye, nose, left and right corner of the mouth), or
    # dlib's 68, in pixels of the upright image; or a list of such, one a face. Faces of other images are found.
    config.align.landmarks = ""
    return config
