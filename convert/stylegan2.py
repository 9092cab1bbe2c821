"""StyleGAN2 in the rosinality layout (also what StyleGAN-NADA trains), both ways."""

import os
from pathlib import Path

import jax
import numpy as np

from convert import reader, rules
from convert.rules import SAME, Match, Rule, Transform, chain, reshape, transpose
from nada_jax import files, weights
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture, mean_latent
from nada_jax.ops import FIR

DROP_FIRST = Transform("drop axis 0", lambda x: x[0], lambda x: x[None])
CONV = chain(DROP_FIRST, transpose(2, 3, 1, 0))  # [1, o, i, k, k] -> [k, k, i, o]
DENSE = transpose(1, 0)  # [o, i] -> [i, o]
CONSTANT = chain(DROP_FIRST, transpose(1, 2, 0))  # [1, c, 4, 4] -> [4, 4, c]
NOISE = Transform("drop axes 0, 1", lambda x: x[0, 0], lambda x: x[None, None])
STRENGTH = reshape((), (1,))
RGB_BIAS = reshape((3,), (1, 3, 1, 1))


def _styled_conv(official: str, native: str) -> list[Rule]:
    return [
        Rule(f"{official}.conv.weight", f"{native}.weight", CONV),
        Rule(f"{official}.conv.modulation.weight", f"{native}.modulation.weight", DENSE),
        Rule(f"{official}.conv.modulation.bias", f"{native}.modulation.bias"),
        Rule(f"{official}.noise.weight", f"{native}.noise_strength", STRENGTH),
        Rule(f"{official}.activate.bias", f"{native}.bias"),
    ]


def _to_rgb(official: str, native: str) -> list[Rule]:
    return [
        Rule(f"{official}.conv.weight", f"{native}.weight", CONV),
        Rule(f"{official}.conv.modulation.weight", f"{native}.modulation.weight", DENSE),
        Rule(f"{official}.conv.modulation.bias", f"{native}.modulation.bias"),
        Rule(f"{official}.bias", f"{native}.bias", RGB_BIAS),
    ]


RULES = [
    Rule("style.{n}.weight", "mapping.dense_{n-1}.weight", DENSE),
    Rule("style.{n}.bias", "mapping.dense_{n-1}.bias"),
    Rule("input.input", "synthesis.constant", CONSTANT),
    *_styled_conv("conv1", "synthesis.conv_0"),
    *_styled_conv("convs.{j}", "synthesis.conv_{j+1}"),
    *_to_rgb("to_rgb1", "synthesis.to_rgb_0"),
    *_to_rgb("to_rgbs.{i}", "synthesis.to_rgb_{i+1}"),
    Rule("noises.noise_{l}", "noise.conv_{l}", NOISE),
    Rule("latent_avg", "latent_avg", SAME),
    Rule("convs.{j}.conv.blur.kernel", None),
    Rule("to_rgbs.{i}.upsample.kernel", None),
]
KERNEL = np.outer(FIR, FIR).astype(np.float32)


def to_native(official: rules.Arrays, what: str) -> tuple[dict[str, np.ndarray], list[Match]]:
    """Converts a flat rosinality state dict (with or without "latent_avg" beside it).

    Args:
      official: key -> array in PyTorch layout.
      what: how messages call it.

    Returns:
      Native arrays by flat path, and each key's way. A missing `latent_avg` is computed from 4,096
      samples of the mapping network, as the official code does.

    Raises:
      UserError: what does not fit, all in one message.
    """
    for key, array in official.items():
        if key.endswith(".kernel") and not (
            array.shape == KERNEL.shape and np.allclose(array, KERNEL, atol=1e-6)
        ):
            raise UserError(f"{what}: {key} is not the filter [1, 3, 3, 1]; only that is supported")
    native, matches = rules.apply(RULES, official, what=what, expected=_shapes)
    native = {path: np.asarray(array, np.float32) for path, array in native.items()}
    if "latent_avg" not in native:
        native["latent_avg"] = np.zeros(native["mapping.dense_0.bias"].shape, np.float32)
        generator = weights.generator_from_arrays(native)
        native["latent_avg"] = np.asarray(mean_latent(generator, jax.random.key(0)))
    return native, matches


def _shapes(native: rules.Arrays) -> dict[str, tuple[int, ...]]:
    """What a generator as wide and deep as this one consists of; `latent_avg` may be absent."""
    shapes = Architecture.from_shapes({path: x.shape for path, x in native.items()}).shapes()
    return {path: x for path, x in shapes.items() if path != "latent_avg" or path in native}


def to_official(native: rules.Arrays, what: str) -> tuple[dict[str, np.ndarray], list[Match]]:
    """The inverse of `to_native`: keys, shapes and buffers that the original class loads strictly."""
    official, matches = rules.apply(RULES, native, backward=True, what=what)
    layers = Architecture.from_shapes({k: v.shape for k, v in native.items()}).num_layers
    for j in range(0, layers - 2, 2):
        official[f"convs.{j}.conv.blur.kernel"] = KERNEL
        official[f"to_rgbs.{j // 2}.upsample.kernel"] = KERNEL
    return official, matches


def read(source: Path) -> tuple[dict[str, np.ndarray], list[Match]]:
    """Reads an official `.pt` file into native arrays; see `to_native`.

    The generator is looked for as `g_ema` (rosinality, StyleGAN-NADA) and as the plain state dict.
    """
    content = reader.read(source)
    official = content.get("g_ema", content)
    if not isinstance(official, dict) or not all(
        isinstance(key, str) and hasattr(array, "shape") for key, array in official.items()
    ):
        held = ", ".join(str(key) for key in list(content)[:8])
        raise UserError(
            f"{source} holds no generator: expected g_ema or a state dict, it has {held}"
        )
    if "latent_avg" in content:
        official = official | {"latent_avg": content["latent_avg"]}
    return to_native(official, what=str(source))


def convert(source: Path, destination: Path) -> list[Match]:
    """Converts a file; the endings say in which direction.

    Raises:
      UserError: the endings name no direction, the source does not fit, or the destination cannot be
        written.
    """
    ends = (source.suffix, destination.suffix)
    if ends[0] in weights.OFFICIAL and ends[1] == ".safetensors":
        native, matches = read(source)
        generator = weights.generator_from_arrays(native)
        weights.save_generator(generator, destination, source=source.name)
    elif ends[0] == ".safetensors" and ends[1] in weights.OFFICIAL:
        native = weights.read_generator(weights.find_generator(os.fspath(source)))
        official, matches = to_official(native, what=str(source))
        _write_official(official, destination)
    else:
        raise UserError(
            f"cannot convert {source} to {destination}: expected .pt to .safetensors, or back"
        )
    return matches


def _write_official(official: dict[str, np.ndarray], destination: Path) -> None:
    torch = reader.import_torch()
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in official.items()}
    latent_avg = tensors.pop("latent_avg")
    with files.atomic(destination) as temporary:
        torch.save({"g_ema": tensors, "latent_avg": latent_avg}, temporary)
