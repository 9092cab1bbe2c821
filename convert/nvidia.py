"""Tables of NVIDIA's StyleGAN2: PyTorch (ADA and the StyleGAN3 repository) and TensorFlow (StyleGAN2, ADA)."""

import numpy as np

from convert import rules
from convert.rules import CONV, DENSE, Arrays, Rule, Transform, chain, transpose
from nada_jax.errors import UserError
from nada_jax.models.upsampling import FIR

LARGEST = 10  # log2 of the side of the largest published generators
DROP_FIRST = Transform("drop axis 0", lambda x: x[0], lambda x: x[None])
PLAIN_CONSTANT = transpose(1, 2, 0)  # [c, 4, 4] -> [4, 4, c]
CONSTANT = chain(DROP_FIRST, PLAIN_CONSTANT)  # [1, c, 4, 4] -> [4, 4, c]
NOISE = Transform("drop axes 0, 1", lambda x: x[0, 0], lambda x: x[None, None])
# NVIDIA's TensorFlow code flips the kernels of upsampling convolutions before it applies them.
FLIP = Transform("flip axes 0, 1", lambda x: x[::-1, ::-1], lambda x: x[::-1, ::-1])
PLUS_ONE = Transform("+ 1", lambda x: x + 1, lambda x: x - 1)  # TensorFlow keeps styles around 0
# With the gain 4 of upsampling, as rosinality stores it; NVIDIA stores a quarter of it.
KERNEL = np.outer(FIR, FIR).astype(np.float32)


def _layers():
    """(side, name within its block, native name) of every convolution."""
    for n in range(2, LARGEST + 1):
        if n > 2:
            yield 2**n, "conv0", f"conv_{2 * n - 5}"
        yield 2**n, "conv1", f"conv_{2 * n - 4}"


def _torch_rules() -> list[Rule]:
    found = [
        *rules.layer("mapping.fc{i}", "mapping.dense_{i}", DENSE, "weight"),
        Rule("mapping.w_avg", "latent_avg"),
        Rule("synthesis.b4.const", "synthesis.constant", PLAIN_CONSTANT),
        Rule("synthesis.b{r}.resample_filter", None),  # `check_filters` compares them
        Rule("synthesis.b{r}.conv{n}.resample_filter", None),
    ]
    for side, layer, native in _layers():
        official = f"synthesis.b{side}.{layer}"
        found += [
            Rule(f"{official}.noise_strength", f"synthesis.{native}.noise_strength"),
            Rule(f"{official}.noise_const", f"noise.{native}"),
            *_torch_modulated(official, f"synthesis.{native}"),
        ]
    for n in range(2, LARGEST + 1):
        found += _torch_modulated(f"synthesis.b{2**n}.torgb", f"synthesis.to_rgb_{n - 2}")
    return found


def _torch_modulated(official: str, native: str) -> list[Rule]:
    return [
        *rules.layer(official, native, CONV, "weight"),
        *rules.layer(f"{official}.affine", f"{native}.modulation", DENSE, "weight"),
    ]


def _tensorflow_rules() -> list[Rule]:
    found = [
        Rule("mapping/Dense{i}/{part:weight|bias}", "mapping.dense_{i}.{part:weight|bias}"),
        Rule("dlatent_avg", "latent_avg"),
        Rule("synthesis/4x4/Const/const", "synthesis.constant", CONSTANT),
        Rule("synthesis/noise{i}", "noise.conv_{i}", NOISE),
        Rule("lod", None),  # progress of growing, which StyleGAN2 no longer does
        Rule("synthesis/lod", None),
    ]
    for side, layer, native in _layers():
        # The first block has one convolution, which has no number.
        name = "Conv" if side == 4 else {"conv0": "Conv0_up", "conv1": "Conv1"}[layer]
        official, native = f"synthesis/{side}x{side}/{name}", f"synthesis.{native}"
        found.append(Rule(f"{official}/noise_strength", f"{native}.noise_strength"))
        found += _tensorflow_modulated(official, native, flip=layer == "conv0")
    for n in range(2, LARGEST + 1):
        official = f"synthesis/{2**n}x{2**n}/ToRGB"
        found += _tensorflow_modulated(official, f"synthesis.to_rgb_{n - 2}")
    return found


def _tensorflow_modulated(official: str, native: str, flip: bool = False) -> list[Rule]:
    return [
        Rule(f"{official}/weight", f"{native}.weight", FLIP if flip else rules.SAME),
        Rule(f"{official}/bias", f"{native}.bias"),
        Rule(f"{official}/mod_weight", f"{native}.modulation.weight"),
        Rule(f"{official}/mod_bias", f"{native}.modulation.bias", PLUS_ONE),
    ]


TABLES = {"torch": _torch_rules(), "tensorflow": _tensorflow_rules()}


def check_filters(arrays: Arrays, ending: str, kernel: np.ndarray, what: str) -> None:
    """Raises UserError where a filter, known by the end of its key, is not [1, 3, 3, 1], which is built in."""
    for key, array in arrays.items():
        if key.endswith(ending) and not (
            array.shape == kernel.shape and np.allclose(array, kernel, atol=1e-6)
        ):
            raise UserError(f"{what}: {key} is not the filter [1, 3, 3, 1]; only that is supported")
