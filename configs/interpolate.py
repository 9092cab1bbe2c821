"""Moving images: walks between latents, through adapted generators, of one face in many domains, along an edit.

    python main.py --config=configs/interpolate.py --config.seeds="(1,2,3,4)"
    python main.py --config=configs/interpolate.py --config.motion.kind=domains \
        --config.generators="('preset:sketch','preset:zombie')"
    python main.py --config=configs/interpolate.py --config.motion.kind=grid \
        --config.generators="('preset:sketch','preset:zombie')"
    python main.py --config=configs/interpolate.py --config.motion.kind=edit \
        --config.edit.direction=runs/red/direction.safetensors
    python main.py --config=configs/interpolate.py:ffhq --config.latents=runs/invert_ffhq/latents --config.video.format=gif

Expected: video.mp4, and a few of its frames in samples/frames.png. The first takes ten seconds on two CPU cores.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "ffhq")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" is for FFHQ 1024 and OpenAI's CLIP."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: ffhq")
    config = ConfigDict()
    config.task = "interpolate"  # the module of nada_jax.tasks that runs this config
    config.precision = "float32"  # networks compute in float32 or bfloat16
    config.batch_size = 8  # images drawn at once; 1 or 2 for 1024 pixels

    config.generator = ConfigDict()
    config.generator.weights = "avatar64"  # a name ("preset:sketch", "run:sketch"), or a file
    # Adapted from it, as of configs/stylize.py: preset:NAME, run:NAME, recipes that have been run, or files.
    config.generators = ()
    config.seeds = (0, 1, 2, 3)  # who is shown: the images that configs/sample.py draws of them
    config.latents = ""  # in place of seeds: latents, such as runs/invert/latents
    config.truncation = 0.7  # of seeds; 1 draws as trained; less is more typical

    config.motion = ConfigDict()
    # walk: from seed to seed. grid: the same walk by several generators, a tile each. domains: the weights from the
    # source through the generators, a tile for each seed. edit: along a direction, a tile for each seed or generator.
    config.motion.kind = "walk"
    config.motion.space = (
        "w"  # walk, grid: straight in W, or "z": along arcs between normal latents
    )
    config.motion.seconds = 1.5  # from one stop to the next
    config.motion.easing = "smooth"  # rests at every stop; "linear" has one speed
    config.motion.loop = True  # goes back to the first stop, so that the end is the beginning
    config.motion.source = True  # grid: generator.weights has the first tile

    config.edit = ConfigDict()  # of kind "edit": a direction or a text
    config.edit.direction = ""  # a file of configs/find_direction.py
    config.edit.text = ""  # or what images should show: StyleCLIP's global direction
    config.edit.source = "a person"  # what they show now
    config.edit.beta = 0.2  # text: least relevance of the channels that move; less moves more
    config.edit.strengths = (0.0, 4.0)  # the stops; below 0 is the opposite
    config.clip = ConfigDict()
    config.clip.model = "avatar-p16"  # reads the text: a name or a directory
    config.statistics = ConfigDict()  # text: computed once for a generator and a CLIP
    config.statistics.samples = 16  # images in which each channel is moved; officially 100
    config.statistics.seed = 0  # of their latents

    config.video = ConfigDict()
    config.video.format = "mp4"  # or "gif", or "frames", a folder of PNG files
    config.video.fps = 30.0  # frames per second; up to 50 for gif
    config.video.side = 256  # pixels of a tile; 0: as the generator draws it
    config.video.columns = 0  # tiles beside each other; 0: as many as below each other
    config.video.labels = True  # words below tiles, and for each stop of domains and edits

    if variant == "ffhq":
        config.batch_size = 1
        config.generator.weights = "ffhq1024"
        config.clip.model = "openai/clip-vit-base-patch32"
        config.edit.beta = 0.13  # between 0.08 and 0.3 in the paper, by the text
        config.statistics.samples = 100
        config.video.side = 0
    return config
