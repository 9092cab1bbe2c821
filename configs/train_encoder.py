"""An encoder for a generator: from an image to latents that draw it again, in one pass. It needs no data.

    python main.py --config=configs/train_encoder.py                # avatar64
    python main.py --config=configs/train_encoder.py --config.generator.weights=mine.safetensors

Expected: encoder.safetensors, and samples/ with the generator's images above what is drawn from the latents found in them.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults, by which encoder-avatar64 was trained; there are no variants."""
    if variant:
        raise ValueError(f"config variant is {variant!r}; configs/train_encoder.py has none")
    config = ConfigDict()
    config.task = "train_encoder"  # the module of nada_jax.tasks that runs this config
    config.seed = 0  # of every random number of the run
    config.steps = 3000  # optimiser steps of the whole run, resumed parts included
    config.batch_size = 8  # images per step, drawn anew for each
    config.ema = 50.0  # half-life in steps of an average of the weights, which is saved; 0: none

    config.checkpoint_every = 100  # steps between checkpoints; one is always written at the end
    config.sample_every = 100  # steps between sample grids and measurements on held-out images
    config.log_every = 10  # steps between progress lines, and between checks of the loss
    config.resume = True  # continue from the workdir's last checkpoint
    config.overwrite = False  # delete an earlier run in the workdir and start anew

    config.generator = ConfigDict()
    config.generator.weights = "avatar64"  # a name ("preset:sketch", "run:sketch"), or a file
    config.generator.mixing = 0.5  # share of images that mix the styles of two latents
    config.generator.truncation = (0.5, 1.0)  # each image has one in this range

    config.encoder = ConfigDict()
    config.encoder.stem = 32  # channels before the first block
    # Channels of the blocks; a new number halves the side of the maps.
    config.encoder.widths = (32, 48, 48, 64, 64, 96, 96)
    config.encoder.reduction = 4  # of the channels, in squeeze and excitation
    config.encoder.head_width = 64  # channels of the convolutions of the heads, one head a latent

    config.loss = ConfigDict()  # factor of each term; 0 leaves it out
    config.loss.latent = 0.1  # squared difference of the latents, over their variance
    config.loss.l2 = 1.0  # mean squared difference of the images
    config.loss.lpips = 0.8  # perceptual distance of the images; this and the next as in e4e
    config.loss.delta = 2e-4  # length of the differences between latents; keeps them near W

    config.lpips = ConfigDict()
    config.lpips.weights = "lpips"  # a name, or a VGG-16 with the layers of LPIPS
    config.lpips.share = 0.25  # of a batch: on a CPU it costs more than all else

    config.optimizer = ConfigDict()  # Adam
    config.optimizer.lr = 0.001
    config.optimizer.betas = (0.9, 0.99)
    config.optimizer.warmup = 50  # steps over which updates grow to full length
    config.optimizer.decay = 2950  # steps after these over which they shrink to 0, as a cosine
    config.optimizer.clip = 1.0  # largest norm of the gradient

    config.samples = ConfigDict()
    config.samples.count = 8  # columns of the sample grids
    config.samples.seed = 1  # of held-out latents, on which no step trains
    config.samples.truncation = 0.7  # 1 draws as trained; less is more typical
    config.held_out = 64  # images that are measured, beside the grids
    return config
