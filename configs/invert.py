"""Finds the latents from which a generator draws given images, so that they can be edited and stylised.

    python main.py --config=configs/invert.py                                  # six portraits that ship
    python main.py --config=configs/invert.py --config.images=my_photos/ --config.invert.method=encoder --workdir=runs/mine
    python main.py --config=configs/invert.py:ffhq --config.images=photo.jpg --config.invert.method=pti

Expected: strips/NAME.png, each image beside its reconstruction, and latents/NAME.npz, which other tasks read. Which
method: docs/inversion.md.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "ffhq")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" has the official numbers for photographs of faces at 1024 pixels."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: ffhq")
    config = ConfigDict()
    config.task = "invert"  # the module of nada_jax.tasks that runs this config
    config.images = "avatars"  # a file or a folder; or "avatars", six portraits that ship
    config.overwrite = False  # delete an earlier run in the workdir and start anew
    config.seed = 0  # of noise; each image draws by the seed and its name
    config.precision = "float32"  # the generator computes in float32 or bfloat16
    config.batch_size = 6  # images at once; 1 for 1024 pixels

    config.generator = ConfigDict()
    config.generator.weights = "avatar64"  # a name ("preset:sketch", "run:sketch"), or a file
    config.encoder = ConfigDict()
    config.encoder.weights = "encoder-avatar64"  # for method and start "encoder": a name or a file
    config.encoder.steps = 5  # of encoders that refine their answer (ReStyle)
    config.lpips = ConfigDict()
    config.lpips.weights = "lpips"  # perceptual distance: a name or a file; "": pixels alone, by l2
    config.identity = ConfigDict()
    config.identity.weights = ""  # face identity network (irse50), for a figure; "" leaves it out
    config.judge = "avatar-p8"  # CLIP, for the figure of likeness `clip`; "" leaves it out

    config.align = ConfigDict()  # of faces, as those that the generator draws; see configs/align.py
    config.align.mode = "none"  # the middle of the image; "face" finds faces, "crop" takes a box
    config.align.faces = "largest"  # face: of several; or "all", or a number, 1 for the largest
    config.align.crop = ()  # crop: left, top, right and bottom in pixels
    config.align.landmarks = ""  # face: a file of them, in place of the detector

    config.invert = ConfigDict()
    config.invert.method = "w+"  # or "w", "style", "encoder", "pti"
    config.invert.start = "mean"  # of an optimisation; or "encoder"
    config.invert.steps = 300  # of the optimisation of latents; officially 1,000
    config.invert.lr = 0.1  # of its Adam, at the peak
    config.invert.w_noise = 0.05  # on latents in the first step, as a share of their spread
    config.invert.noise = False  # True optimises noise buffers as well, in place of the generator's
    config.invert.l2 = 0.0  # factor of the squared difference of pixels, beside LPIPS
    config.invert.pivot_steps = 450  # pti: steps of method "w", before the weights are tuned
    config.invert.tuning_steps = 350  # pti: steps of the weights, at most
    config.invert.tuning_lr = 3e-4  # pti: of their Adam, constant
    config.invert.enough = 0.06  # pti: LPIPS at which tuning ends; 0: never
    config.invert.locality = 0.0  # pti: factor of changes around the pivot; officially 0 or 0.1
    config.invert.radius = 30.0  # pti: distance from the pivot at which these are looked at

    if variant == "ffhq":
        config.batch_size = 1
        config.generator.weights = "ffhq1024"
        config.encoder.weights = ""
        config.judge = "openai/clip-vit-base-patch32"
        config.align.mode = "face"
        config.invert.steps = 1000
        config.invert.noise = True
    return config
