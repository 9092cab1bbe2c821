"""A mapper of StyleCLIP for one text: a network that edits any latent in one pass.

    python main.py --config=configs/train_mapper.py
    python main.py --config=configs/train_mapper.py --config.text.target="a person with glasses" --workdir=runs/glasses
    python main.py --config=configs/train_mapper.py:ffhq --config.identity.weights=model_ir_se50.pth

Expected: mapper.safetensors, for `edit.mapper`, and samples/step_*.png, in which hair reddens below the source.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "ffhq")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" has the official numbers for FFHQ 1024."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: ffhq")
    config = ConfigDict()
    config.task = "train_mapper"  # the module of nada_jax.tasks that runs this config
    config.seed = 0  # of every random number of the run
    config.steps = 200  # optimiser steps of the whole run, resumed parts included
    config.batch_size = 4  # latents per step
    config.precision = "float32"  # networks compute in float32 or bfloat16; weights stay float32

    config.checkpoint_every = 100  # steps between checkpoints; one is always written at the end
    config.sample_every = 50  # steps between sample grids; the last step always draws one
    config.log_every = 10  # steps between progress lines, and between checks of the loss
    config.resume = True  # continue from the workdir's last checkpoint
    config.overwrite = False  # delete an earlier run in the workdir and start anew

    config.generator = ConfigDict()
    config.generator.weights = "avatar64"  # a name ("preset:sketch", "run:sketch"), or a file
    config.clip = ConfigDict()
    config.clip.models = ("avatar-p8",)  # names, directories or hub names
    config.clip.weights = (1.0,)  # one for each model
    config.judge = "avatar-p16"  # CLIP that measures how far samples are moved; "": the first one
    config.text = ConfigDict()
    config.text.source = "a person"  # for `judged` alone: what images show before the edit
    config.text.target = "a person with red hair"  # what they show after it
    config.identity = ConfigDict()
    config.identity.weights = ""  # face identity network (irse50), for loss.identity

    config.mapper = ConfigDict()
    config.mapper.levels = ("coarse", "medium", "fine")  # latents that it moves: 0-3, 4-7, 8-
    config.mapper.layers = 4  # of each level's network
    config.mapper.truncation = 0.7  # of the latents that it trains on; 1 draws as trained

    config.loss = ConfigDict()  # factor of each term
    config.loss.clip = 1.0  # the image is near the text
    config.loss.l2 = 3.0  # the latent stays near; officially 0.8, which changes clothes too
    config.loss.identity = 0.0  # the two faces are those of one person; officially 0.1

    config.optimizer = ConfigDict()  # Adam; the official code has Ranger
    config.optimizer.lr = 0.5  # weights are stored 100 times as large as they act
    config.optimizer.betas = (0.9, 0.999)
    config.optimizer.warmup = 0  # steps over which updates grow to full length
    config.optimizer.decay = 0  # steps after these over which they shrink to 0; 0: never
    config.optimizer.clip = 0.0  # largest norm of the gradient; 0: any

    config.samples = ConfigDict()
    config.samples.count = 8  # columns of the sample grids
    config.samples.seed = 1  # of their latents, fixed over the run
    config.samples.truncation = 0.7

    if variant == "ffhq":
        config.steps = 50_000
        config.batch_size = 2
        config.checkpoint_every = config.sample_every = 1000
        config.generator.weights = "ffhq1024"
        config.clip.models = ("openai/clip-vit-base-patch32",)
        config.judge = "openai/clip-vit-base-patch16"
        config.mapper.truncation = 1.0
        config.loss.l2 = 0.8
        config.loss.identity = 0.1
        config.samples.count = 4
    return config
