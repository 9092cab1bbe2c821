"""StyleGAN2: the rosinality layout (which StyleGAN-NADA has too) both ways, NVIDIA's pickles one way."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convert import nvidia, rules
from convert.nvidia import CONSTANT, DROP_FIRST, KERNEL, NOISE
from convert.rules import DENSE, Match, Rule, chain, reshape
from convert.unpickle import reader, releases
from nada_jax import files
from nada_jax.models.stylegan2 import Architecture, Generator, mean_latent
from nada_jax.weights import native

MODEL = Generator
CONV = chain(DROP_FIRST, rules.CONV)  # [1, o, i, k, k] -> [k, k, i, o]
STRENGTH = reshape((), (1,))
RGB_BIAS = reshape((3,), (1, 3, 1, 1))


def _modulated(official: str, destination: str) -> list[Rule]:
    return [
        Rule(f"{official}.conv.weight", f"{destination}.weight", CONV),
        *rules.layer(f"{official}.conv.modulation", f"{destination}.modulation", DENSE, "weight"),
    ]


def _styled_conv(official: str, destination: str) -> list[Rule]:
    return [
        *_modulated(official, destination),
        Rule(f"{official}.noise.weight", f"{destination}.noise_strength", STRENGTH),
        Rule(f"{official}.activate.bias", f"{destination}.bias"),
    ]


def _to_rgb(official: str, destination: str) -> list[Rule]:
    return [
        *_modulated(official, destination),
        Rule(f"{official}.bias", f"{destination}.bias", RGB_BIAS),
    ]


RULES = [
    # Layer 0 of the official mapping network is the normalisation, which has no weights.
    *rules.layer("style.{n}", "mapping.dense_{n-1}", DENSE, "weight"),
    Rule("input.input", "synthesis.constant", CONSTANT),
    *_styled_conv("conv1", "synthesis.conv_0"),
    *_styled_conv("convs.{j}", "synthesis.conv_{j+1}"),
    *_to_rgb("to_rgb1", "synthesis.to_rgb_0"),
    *_to_rgb("to_rgbs.{i}", "synthesis.to_rgb_{i+1}"),
    Rule("noises.noise_{l}", "noise.conv_{l}", NOISE),
    Rule("latent_avg", "latent_avg"),
    Rule("convs.{j}.conv.blur.kernel", None),  # `nvidia.check_filters` compares them
    Rule("to_rgbs.{i}.upsample.kernel", None),
]
DECODER = "decoder."  # the generator's prefix in the file of an encoder


def to_native(official: rules.Arrays, what: str) -> tuple[Generator, list[Match]]:
    """Converts a flat rosinality state dict (with or without "latent_avg" beside it).

    Args:
      official: key -> array in PyTorch layout.
      what: how messages call it.

    Returns:
      The generator, and each key's way. A missing `latent_avg` is computed from 4,096 samples of the
      mapping network, as the official code does.

    Raises:
      UserError: what does not fit, all in one message.
    """
    nvidia.check_filters(official, ".kernel", KERNEL, what)
    return _build(RULES, official, what)


def _build(
    table: list[Rule], official: rules.Arrays, what: str, conv_clamp: float | None = None
) -> tuple[Generator, list[Match]]:
    arrays, matches = rules.apply(table, official, what=what, expected=_shapes)
    averaged = "latent_avg" in arrays
    if not averaged:
        # A place for the average until there is a mapping network to compute it with.
        arrays["latent_avg"] = np.zeros(arrays["mapping.dense_0.bias"].shape, np.float32)
    generator = native.model_from_arrays(Generator, arrays, conv_clamp=conv_clamp)
    if not averaged:
        generator = generator.replace(latent_avg=mean_latent(generator, jax.random.key(0)))
    return generator, matches


def _shapes(shapes: rules.Shapes) -> rules.Shapes:
    """Shapes of all arrays of a generator as wide and deep as this one; `latent_avg` may be absent."""
    needed = Architecture.from_shapes(shapes).shapes()
    return {path: x for path, x in needed.items() if path != "latent_avg" or path in shapes}


def to_official(generator: Generator, what: str) -> tuple[dict[str, np.ndarray], list[Match]]:
    """The inverse of `to_native`: keys, shapes and buffers that the original class loads strictly.

    Warns where the generator clamps its layers, which the original class does not.
    """
    if generator.architecture.conv_clamp is not None:
        warnings.warn(
            f"{what} clamps every layer at {generator.architecture.conv_clamp:g}, which a .pt file in "
            "the rosinality layout cannot say: images may differ in rare pixels",
            stacklevel=2,
        )
    arrays = native.model_to_arrays(generator)
    official, matches = rules.apply(RULES, arrays, backward=True, what=what)
    for j in range(0, generator.num_layers - 2, 2):
        official[f"convs.{j}.conv.blur.kernel"] = KERNEL
        official[f"to_rgbs.{j // 2}.upsample.kernel"] = KERNEL
    return official, matches


def read(source: Path) -> tuple[Generator, list[Match]]:
    """Reads an official file: NVIDIA's `.pkl`, or a `.pt` in the rosinality layout.

    In a `.pt` the generator is looked for as `g_ema` (rosinality, StyleGAN-NADA), as the decoder of an
    encoder's file (pSp, e4e, ReStyle, StyleCLIP's mappers), and as the plain state dict.

    Args:
      source: the file.

    Returns:
      The generator, and each key's way.

    Raises:
      UserError: the file is damaged, holds no generator, or one that does not fit.
    """
    if source.suffix == ".pkl":
        release = releases.read(source)
        # NVIDIA stores filters without the gain 4 of upsampling, which it applies later.
        nvidia.check_filters(release.arrays, "resample_filter", KERNEL / 4, str(source))
        table = nvidia.TABLES[release.library]
        return _build(table, release.arrays, str(source), release.conv_clamp)
    content = reader.read(source)
    if decoder := _decoder(content):
        return to_native(decoder, what=str(source))
    official = content.get("g_ema", content.get("state_dict", content))
    official = reader.state_dict(official, source, "generator", "g_ema or a state dict")
    if isinstance(content.get("latent_avg"), np.ndarray):
        official["latent_avg"] = content["latent_avg"]
    return to_native(official, what=str(source))


def read_companion(source: Path) -> tuple[Generator, list[Match]] | None:
    """Reads the generator in the file of an encoder or a mapper.

    Args:
      source: the file.

    Returns:
      The generator, and each key's way; None where there is none.

    Raises:
      UserError: it does not fit.
    """
    decoder = _decoder(reader.read(source))
    return to_native(decoder, what=str(source)) if decoder else None


def _decoder(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays under "decoder." of a state dict, and the average latent that is stored beside it."""
    official = content.get("state_dict")
    if not isinstance(official, dict):
        return {}
    decoder = {
        key.removeprefix(DECODER): array
        for key, array in official.items()
        if str(key).startswith(DECODER) and hasattr(array, "shape")
    }
    average = content.get("latent_avg")
    if decoder and isinstance(average, np.ndarray) and average.ndim in (1, 2) and average.size:
        layers = np.atleast_2d(average)  # [w] for all layers, or [l, w], mostly equal rows
        # The mean of equal rows would differ from them by rounding.
        decoder["latent_avg"] = layers[0] if (layers == layers[0]).all() else layers.mean(axis=0)
    return decoder


def write(generator: Generator, destination: Path) -> list[Match]:
    """Writes a `.pt` file that the original class reads; see `to_official`.

    Args:
      generator: what to write.
      destination: the file.

    Returns:
      Each array's way.

    Raises:
      UserError: PyTorch is missing, or the file cannot be written.
    """
    torch = reader.import_torch()
    official, matches = to_official(generator, what=str(destination))
    # Copies, because arrays that JAX gives out are read-only, which PyTorch does not support.
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in official.items()}
    latent_avg = tensors.pop("latent_avg")
    with files.atomic(destination) as temporary:
        torch.save({"g_ema": tensors, "latent_avg": latent_avg}, temporary)
    return matches
