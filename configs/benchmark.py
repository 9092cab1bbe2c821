"""Measures the training step, on random weights of the true shapes: time, memory, share of the roofline.

    python main.py --config=configs/benchmark.py          # a quick look, a few minutes on two cores
    python main.py --config=configs/benchmark.py:full     # the whole grid, 144 cells; for an accelerator
    python main.py --config=configs/benchmark.py:h200     # beside the official code's times on an H200
    python main.py --config=configs/benchmark.py --config.sizes=256 --config.clips=b32 --config.minutes=10
    python main.py --config=configs/benchmark.py --config.precisions="('float32', 'bfloat16')"
    python main.py --config=configs/benchmark.py --config.adapt.loss.patch=1.0     # the same with another loss

Expected: a line a cell, then two tables: what a step costs, and which of its parts cost it. Both stand in
benchmark.md, all figures in benchmark.json.
"""

from ml_collections import ConfigDict

from configs import default

VARIANTS = ("", "full", "h200")

# Milliseconds of a training step of the official PyTorch code on one NVIDIA H200, both published ViT-Bs but in
# the last row: measured elsewhere (PyTorch 2.11, its CUDA extensions, float32 generator, float16 CLIP;
# adaptive: 18 layers of 18, 1 iteration, 8 latents). Median of 12.
OFFICIAL = {
    "1024/2/adaptive/b32+b16": 299.0,
    "1024/4/adaptive/b32+b16": 307.0,
    "1024/2/none/b32+b16": 103.0,
    "1024/16/none/b32+b16": 316.0,
    "256/16/none/b32+b16": 146.0,
    "256/4/none/b32": 66.0,
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the quick look; variant "full" is a large grid, "h200" the rows of `OFFICIAL`."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: full, h200")
    config = ConfigDict()
    config.task = "benchmark"  # the module of nada_jax.tasks that runs this config
    # The step that is measured: all fields of configs/default.py, as in the paper's run. The fields below take the
    # place of its own; weights and texts are not read.
    config.adapt = default.get_config("ffhq")

    # A cell is one of all combinations of these.
    config.sizes = (64,)  # sides of the images: 64, 256, 512 or 1024
    config.clips = ("avatar-p8+avatar-p16",)  # sets of CLIPs: avatar-p8, avatar-p16, b32, b16, l14
    config.batch_sizes = (4,)  # images per step
    config.precisions = ("float32",)  # what the networks compute in: float32, bfloat16
    config.strategies = ("none", "adaptive")  # of freezing: none, late, adaptive, ...
    config.low_memory = (False,)  # False, True or both
    config.cells = ()  # more cells, as SIZE/BATCH/STRATEGY/CLIPS; in each precision and low_memory
    config.k = 6  # latents of the strategies late and adaptive; 0 is all

    config.steps = 12  # timed steps of a cell
    config.warmup = 2  # steps before them
    config.minutes = 4.0  # no cell starts after that, and the one that runs then is cut short
    config.breakdown = True  # time the parts of the step, too

    config.official = ConfigDict()  # milliseconds of other code, by cell, to stand beside
    config.official_device = ""  # the device kind that they were measured on

    if variant:
        config.precisions = ("bfloat16", "float32")
    if variant == "full":
        config.sizes = (64, 256, 512, 1024)
        config.clips = ("b32", "b32+b16")
        config.batch_sizes = (2, 4, 16)
        config.strategies = ("none", "adaptive", "late")
        config.minutes = 480.0
    elif variant == "h200":
        config.sizes = ()  # no other cells
        config.cells = tuple(OFFICIAL)
        config.k = 0
        config.minutes = 30.0
        config.official = ConfigDict(OFFICIAL)
        config.official_device = "NVIDIA H200"
    return config
