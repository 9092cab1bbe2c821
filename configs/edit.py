"""Edits portraits by a text: StyleCLIP's latent optimisation.

    python main.py --config=configs/edit.py --config.edit.text="a person with blue hair"      # six portraits that ship
    python main.py --config=configs/edit.py --config.images=photo.jpg --config.edit.text="a smiling person"
    python main.py --config=configs/edit.py --config.seeds="(1,2,3)" --config.edit.text="a person with glasses"
    python main.py --config=configs/edit.py --config.latents=runs/invert/latents --config.generators="('sketch',)"
    python main.py --config=configs/edit.py --config.edit.method=directions --config.edit.strengths="(3,-2)" \
        --config.edit.directions="('runs/red/direction.safetensors','runs/glasses/direction.safetensors')"

Expected: strips/NAME_EDIT.png, before and after; the edited image and its latents as single files.
"""

from ml_collections import ConfigDict

from configs import invert


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" has the official settings for photographs of faces."""
    config = invert.get_config(variant)  # how images become latents, and the networks of figures
    config.task = "edit"  # the module of nada_jax.tasks that runs this config
    config.images = ""  # a file or folder; without any of these three, the portraits that ship
    config.latents = ""  # or a file or folder of latents (.npz), as configs/invert.py writes them
    config.seeds = ()  # or seeds, such as (1, 2, 3)
    config.truncation = 0.7  # of the latents of seeds
    config.generators = ()  # adapted ones, as of configs/stylize.py, that draw the same before and after
    config.invert.method = "encoder"  # instant, and latents that are easy to edit

    config.clip = ConfigDict()  # that reads the text
    config.clip.models = ("avatar-p16",)  # names, directories or hub names
    config.clip.weights = (1.0,)  # one for each model; the loss is a weighted sum

    config.edit = ConfigDict()
    config.edit.method = "optimize"  # how: a row of METHODS in nada_jax/portraits/methods.py
    config.edit.label = ""  # of the edit, in names of files; "": the words of the text
    config.edit.text = "a person with red hair"  # what the image should show
    config.edit.mode = "edit"  # from the image; "free" makes one from the mean, by the text alone
    config.edit.space = "w+"  # or w, style, conv_style: see nada_jax/latents/spaces.py
    config.edit.steps = 100  # officially 300, and 40 in the demonstration
    config.edit.lr = 0.03  # at its peak; officially 0.1, which moves farther for the same gain
    config.edit.l2 = 0.008  # of the distance to the start: the knob that matters
    config.edit.identity = 0.0  # of the change of the face, by identity.weights; officially 0.005
    config.edit.view = "proper"  # how CLIP sees images; "official": not as it was trained
    # global: straight from two texts, by statistics that are computed once for a generator and a CLIP.
    config.edit.source = "a person"  # what the image shows now
    config.edit.alpha = 4.0  # the strength
    config.edit.beta = 0.2  # least relevance of the channels that move; less moves more of them
    config.statistics = ConfigDict()
    config.statistics.samples = 16  # images in which each channel is moved; officially 100
    config.statistics.seed = 0  # of their latents
    # directions: what configs/find_direction.py has found, added together.
    config.edit.directions = ()  # files
    config.edit.strengths = ()  # a number for each of them; by default 1; below 0 goes back
    # mapper: what configs/train_mapper.py has trained, or an official one.
    config.edit.mapper = ""  # a file
    config.edit.mapper_strength = 0.1  # that of its training

    if variant == "ffhq":
        config.invert.method = "w+"  # a converted e4e edits better: encoder.weights, and "encoder"
        config.clip.models = ("openai/clip-vit-base-patch32",)
        config.judge = "openai/clip-vit-base-patch16"
        config.edit.steps = 300
        config.edit.beta = 0.13  # between 0.08 and 0.3 in the paper, by the text
        config.statistics.samples = 100
    return config
