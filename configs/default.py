"""Every field of an adaptation, with the embedded models; each recipe is this plus a few lines.

    python main.py --config=configs/default.py --config.text.target=zombie

Fields are set on the command line by name: --config.steps=150 --config.loss.l2=0.5
"""

from ml_collections import ConfigDict

VARIANTS = ("", "ffhq")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" is the paper's setting for the 1024-pixel generator."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: ffhq")
    config = ConfigDict()
    config.task = "adapt"  # the module of nada_jax.tasks that runs this config
    config.seed = 0  # of every random number of the run
    config.steps = 160  # optimiser steps of the whole run, resumed parts included
    config.batch_size = 4  # images per step
    config.precision = "float32"  # networks compute in float32 or bfloat16; weights stay float32
    config.ema = 0.0  # half-life in steps of an average of the weights, drawn and saved; 0: none
    config.low_memory = False  # recompute activations in gradients: less memory, slower

    config.checkpoint_every = 100  # steps between checkpoints; one is always written at the end
    config.sample_every = 50  # steps between sample grids; the last step always draws one
    config.log_every = 10  # steps between progress lines, and between checks of the loss
    config.resume = True  # continue from the workdir's last checkpoint
    config.overwrite = False  # delete an earlier run in the workdir and start anew

    config.generator = ConfigDict()
    config.generator.weights = "avatar64"  # a name ("preset:sketch", "run:sketch"), or a file
    config.generator.noise = (
        "independent"  # for each image; or "shared" by both generators, "const", "none"
    )
    config.generator.mixing = 0.0  # share of images that mix the styles of two latents

    config.clip = ConfigDict()
    config.clip.models = ("avatar-p8", "avatar-p16")  # names, directories or hub names
    config.clip.weights = (1.0, 1.0)  # one for each model; the loss is a weighted sum
    config.clip.antialias = False  # smooth when shrinking images; the official code does not
    config.clip.zoom = 1.0  # maximum magnification of random windows: cleaner lines and paper
    config.clip.rotate = 0.0  # maximum rotation in degrees
    config.clip.shift = 0.0  # maximum shift, as a share of the image's side
    config.clip.background = "edge"  # beyond the image: its edge, or "random", a colour per view

    config.text = ConfigDict()
    config.text.source = "cartoon portrait"  # what the generator draws now
    config.text.target = "pencil sketch"  # what it should draw
    config.text.others = ()  # further texts at once, such as ("robot", "glasses")
    config.text.weights = ()  # of each of them, beside 1 for the target; below 0 moves away from it
    config.text.source_images = ""  # a directory of images in place of the source text, or
    config.text.target_images = (
        ""  # of the target text; alone, the source is what the generator draws
    )
    config.text.read_every = 0  # steps between choices of the source text by CLIP; 0: never
    config.text.vocabulary = (
        ""  # file of candidate source texts, one per line; "": the package's own
    )

    config.loss = ConfigDict()  # factor of each term; 0 leaves it out
    config.loss.directional = 1.0  # the change of the image points along the change of the text
    config.loss.global_ = 0.0  # the image is near the target text; alone it collapses
    config.loss.manifold = 0.0  # the image moves as far as the texts are apart
    config.loss.angle = 0.25  # images stay as unlike each other as they were; not in the paper
    config.loss.patch = 0.0  # directional, on crops and texts of parts of a face
    config.loss.l2 = 0.0  # mean squared difference of the two images; keeps them alike
    config.loss.lpips = 0.0  # perceptual distance of the two images
    config.loss.identity = 0.0  # the two faces are those of one person
    config.loss.style = 0.0  # the image has the style of style.images
    config.loss.sds = 0.0  # a diffusion model takes the image for one of the target text

    config.patch = ConfigDict()
    config.patch.fraction = 0.5  # side of a crop as a share of the image's, for loss.patch
    config.lpips = ConfigDict()
    config.lpips.weights = "lpips"  # for loss.lpips: a name, or a VGG-16 with the layers of LPIPS
    config.identity = ConfigDict()
    config.identity.weights = ""  # face identity network (irse50), for loss.identity

    config.style = ConfigDict()  # for loss.style
    config.style.weights = "lpips"  # a name, or a VGG
    config.style.images = (
        ""  # a file, a folder, whose mean style it is, or an image that ships, as "glass"
    )
    config.style.kind = "gram"  # what is compared; or "mean_variance", "wasserstein"
    config.style.layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # alike in weight
    config.style.size = 64  # pixels of a side at which the VGG sees adapted images
    config.style.scale = 1.0  # style images are as many times larger: larger marks

    config.sds = ConfigDict()  # for loss.sds
    config.sds.weights = (
        "avatar-diffusion"  # a name, a directory in diffusers' layout or a hub name
    )
    config.sds.baseline = "source"  # compared with the estimate for the source image; or "noise"
    config.sds.scale = 7.5  # of classifier-free guidance; with "noise" 100 is usual
    config.sds.times = (0.02, 0.98)  # of the noise, as shares of the model's schedule: none to all
    config.sds.weighting = "variance"  # of the times, by that of the noise; or "none"
    config.sds.negative = ""  # text to keep away from; "": the model's own unconditional one

    config.stop = ConfigDict()  # before the last step, by images that no step trains on
    config.stop.every = 0  # steps between measurements; 0: never
    config.stop.clip = ""  # the CLIP that measures; "": the first of clip.models
    config.stop.diversity = 0.0  # end at this share of the source's diversity; 0: never
    config.stop.similarity = 0.0  # end at this mean cosine to the target; 0: never

    config.balancing = ConfigDict()  # of these factors; see nada_jax/adaptation/balancing.py
    config.balancing.mode = (
        "fixed"  # "uncertainty" trains them; "learned" drives them to 0, for comparison
    )
    config.balancing.lr = 0.01  # of the optimiser that trains them, Adam

    config.freeze = ConfigDict()
    config.freeze.strategy = (
        "none"  # phase, late, adaptive, ...: see nada_jax/adaptation/freezing/table.py
    )
    config.freeze.phase = "all"  # phase: texture, shape, shape_expanded, no_fine or all
    config.freeze.k = 6  # adaptive: latents (or tensors) chosen; late: last latents trained
    config.freeze.iterations = 1  # adaptive: steps of the optimisation that ranks them
    config.freeze.batch_size = 8  # adaptive: latents of that optimisation
    config.freeze.every = 1  # adaptive: steps between selections
    config.freeze.measure = "absolute"  # adaptive_parameters: how far; or "relative" to their size
    config.freeze.parity = "corrected"  # latents -> layers as wired; "official" is off by one
    config.freeze.rank = 4  # low_rank: of what is added to each convolution

    config.optimizer = ConfigDict()  # Adam
    config.optimizer.lr = 0.001  # the official 0.002 * 4/5 is faster, and rougher on 64 pixels
    config.optimizer.betas = (0.0, 0.99**0.8)  # the official 0 and 0.99, to the power 4/5
    config.optimizer.warmup = 0  # steps over which updates grow to full length
    config.optimizer.decay = (
        0  # steps after these over which they shrink to 0, as a cosine; 0: never
    )
    config.optimizer.clip = 0.0  # largest norm of the gradient; 0: any

    config.mesh = ConfigDict()  # devices of a run; it may be resumed on others
    config.mesh.data = 0  # devices that share the batch; 0: as many as there are and as divide it
    config.mesh.fsdp = 1  # a second axis, over which large arrays are split as well

    config.distributed = ConfigDict()  # processes (hosts), with one file system for the workdir
    config.distributed.coordinator = ""  # host:port of process 0; "auto" asks Slurm, MPI, ...
    config.distributed.processes = 1  # how many there are
    config.distributed.process = 0  # which one this is

    config.samples = ConfigDict()
    config.samples.count = 8  # columns of the sample grids
    config.samples.seed = 1  # of their latents, fixed over the run
    config.samples.truncation = 0.7  # 1 draws as trained; less is more typical

    if variant == "ffhq":
        config.steps = 300
        config.batch_size = 2
        config.generator.weights = "ffhq1024"
        config.clip.models = ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16")
        config.loss.angle = 0.0
        config.optimizer.lr = 0.002 * 0.8
        config.samples.count = 4
        config.text.source = "photo"
    return config
