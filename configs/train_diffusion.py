"""A latent diffusion model for your images with captions: first the VAE, then the UNet; the text encoder is a CLIP's.

    python main.py --config=configs/train_diffusion.py --config.data=FOLDER
    python main.py --config=configs/train_diffusion.py:long --config.data=FOLDER   # a day on a GPU: larger and better

FOLDER has images, and either metadata.jsonl (lines with file_name and text) or a .txt of captions beside each image. It
needs `pip install -r requirements-diffusion.txt`.

Expected: model/, a directory in diffusers' layout, for `diffusion.weights`, and samples/step_*.png, in which portraits
follow their prompts ever better. The embedded avatar-diffusion was trained so, on 8,000 portraits, within an hour on two
cores.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "long")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "long" has a larger model and ten times the steps."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: long")
    config = ConfigDict()
    config.task = "train_diffusion"  # the module of nada_jax.tasks that runs this config
    config.seed = 0  # of every random number of the run
    config.data = ""  # a folder of images with captions, or a .npz with a .json beside it
    config.size = 64  # side in pixels that images are brought to
    config.mirror = True  # also show every image mirrored; not where captions say left and right
    config.precision = "float32"  # UNet and text encoder compute in float32 or bfloat16
    config.steps = 5500  # optimiser steps of the whole run, with those of the VAE and resumed ones
    config.batch_size = 32  # images per step of the UNet
    config.ema = 100.0  # half-life in steps of an average of the weights, the result; 0: none

    config.checkpoint_every = 500  # steps between checkpoints; one is always written at the end
    config.sample_every = 500  # steps between sample grids
    config.log_every = 20  # steps between progress lines, and between checks of the loss
    config.resume = True  # continue from the workdir's last checkpoint
    config.overwrite = False  # delete an earlier run in the workdir and start anew

    config.clip = "avatar-p16"  # whose text tower is the text encoder
    config.vae = ConfigDict()
    config.vae.widths = (16, 32, 64)  # channels of its blocks; each one more halves the latents
    config.vae.layers = 1  # residual blocks of each
    config.vae.channels = 4  # of latents
    config.vae.steps = 1800  # first steps of the run
    config.vae.batch_size = 16  # images per step
    config.vae.lr = 0.002  # of Adam, down to 0 as a cosine
    config.vae.kl = (
        1e-4  # factor of the distance of latents from normal ones, beside the mean error of pixels
    )
    config.unet = ConfigDict()
    config.unet.widths = (64, 64, 96)  # channels of its blocks
    config.unet.layers = 1  # residual blocks of each
    config.unet.heads = 4  # of attention
    config.unet.attention = (0, 1, 1)  # blocks that attend to the text, by 1
    config.unet.prediction = "v_prediction"  # or epsilon, as Stable Diffusion 1
    config.unet.dropped = 0.1  # share of captions that are left out, for classifier-free guidance
    config.unet.min_snr = (
        5.0  # bound of the signal-to-noise ratio in the weight of a time; 0: all alike
    )

    config.optimizer = ConfigDict()  # Adam, of the UNet; betas, warmup and clip of the VAE, too
    config.optimizer.lr = 0.001
    config.optimizer.betas = (0.9, 0.99)
    config.optimizer.warmup = 100  # steps over which updates grow to full length
    config.optimizer.decay = (
        4100  # steps after these over which they would shrink to 0, as a cosine
    )
    config.optimizer.clip = 1.0  # largest norm of the gradient

    config.samples = ConfigDict()  # of the grids
    config.samples.prompts = (
        "a person with red hair and glasses", "a man with a beard", "a woman with long blond hair", "a sad person",
        "a zombie", "a person with a hat and sunglasses", "a clown", "a happy person with dark skin",
    )  # fmt: skip
    config.samples.steps = 25  # of DDIM
    config.samples.scale = 4.0  # of classifier-free guidance
    config.samples.seed = 1  # of the noise that they begin as
    if variant == "long":
        config.steps, config.vae.steps, config.optimizer.decay = 120_000, 20_000, 99_900
        config.batch_size = config.vae.batch_size = 128
        config.precision = "bfloat16"
        config.vae.widths, config.vae.layers = (64, 128, 256), 2
        config.unet.widths, config.unet.layers = (128, 256, 256), 2
        config.unet.attention = (1, 1, 1)
        config.ema = 2000.0
        config.checkpoint_every = config.sample_every = 5000
        config.log_every = 100
    return config
