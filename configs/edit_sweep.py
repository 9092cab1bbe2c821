"""A grid over the settings of StyleCLIP's latent optimisation, as one batched program and one page.

    python main.py --config=configs/edit_sweep.py                                     # a few minutes on two CPU cores
    python main.py --config=configs/edit_sweep.py --config.images=photo.jpg
    python main.py --config=configs/edit_sweep.py:report                              # 2,016 cells: hours, or a GPU
    python main.py --config=configs/edit_sweep.py:ffhq --config.identity.weights=irse50.safetensors

Expected: edit_sweep.html, one file with an image row and figures for each cell, and edit_sweep.png, how far images moved
against what they gained. The same command again does the cells that are missing; further values may be added.
"""

from ml_collections import ConfigDict

from configs import edit

VARIANTS = ("", "report", "ffhq")


def get_config(variant: str = "") -> ConfigDict:
    """Returns a small grid; "report" is the whole grid of the first report, "ffhq" the same for photographs."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: report, ffhq")
    shared = edit.get_config("ffhq" if variant == "ffhq" else "")
    config = ConfigDict(
        {k: x for k, x in shared.items() if k not in ("edit", "generators", "statistics")}
    )
    config.task = "edit_sweep"  # the module of nada_jax.tasks that runs this config
    config.seeds = (0, 1, 3, 4)  # of the subjects, where neither images nor latents are given
    config.batch_size = 56  # rows at once: a row is one subject in one cell

    config.sweep = ConfigDict()  # every combination is a cell
    config.sweep.texts = ("a person with red hair", "a smiling person")
    config.sweep.l2 = (0.0, 0.005, 0.008, 0.01, 0.015, 0.02, 1.0)
    config.sweep.identity = (0.0,)  # above 0 by identity.weights
    config.sweep.lr = (0.03, 0.1)
    config.sweep.steps = (100,)
    config.sweep.space = "w+"  # as edit.space
    config.sweep.view = "proper"  # as edit.view
    if variant:
        config.seeds = (0,)
        config.sweep.texts = (
            "A red hair", "Smile", "Sad", "Very sad man", "Nice woman", "Young boy with red hair",
        )  # fmt: skip
        config.sweep.identity = (0.0, 0.005, 0.5, 1.0)
        config.sweep.lr = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
        config.sweep.steps = (100, 300)
        config.identity.weights = "avatar-p8"  # a stand-in: no face network knows cartoons
    if variant == "ffhq":
        config.batch_size = 4
        config.identity.weights = "irse50.safetensors"  # converted; see docs/weights.md
    return config
