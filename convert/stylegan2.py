"""StyleGAN2: the rosinality layout (also what StyleGAN-NADA trains) both ways, NVIDIA's pickles one way."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convert import nvlabs, reader, rules
from convert.nvlabs import CONSTANT, DROP_FIRST, KERNEL, NOISE, check_filters
from convert.rules import DENSE, SAME, Match, Rule, chain, reshape
from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture, Generator, mean_latent
from nada_jax.weights import loading as weights

CONV = chain(DROP_FIRST, rules.CONV)  # [1, o, i, k, k] -> [k, k, i, o]
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
    check_filters(official, ".kernel", KERNEL, what)
    return _build(RULES, official, what)


def _build(
    table: list[Rule], official: rules.Arrays, what: str, conv_clamp: float | None = None
) -> tuple[Generator, list[Match]]:
    native, matches = rules.apply(table, official, what=what, expected=_shapes)
    averaged = "latent_avg" in native
    if not averaged:
        native["latent_avg"] = np.zeros(native["mapping.dense_0.bias"].shape, np.float32)
    generator = weights.model_from_arrays(Generator, native, conv_clamp=conv_clamp)
    if not averaged:
        generator = generator.replace(latent_avg=mean_latent(generator, jax.random.key(0)))
    return generator, matches


def _shapes(shapes: rules.Shapes) -> rules.Shapes:
    """What a generator as wide and deep as this one consists of; `latent_avg` may be absent."""
    needed = Architecture.from_shapes(shapes).shapes()
    return {path: x for path, x in needed.items() if path != "latent_avg" or path in shapes}


def to_official(generator: Generator, what: str) -> tuple[dict[str, np.ndarray], list[Match]]:
    """The inverse of `to_native`: keys, shapes and buffers that the original class loads strictly.

    Warns where the generator clamps its layers, which the original class does not.
    """
    if generator.architecture.conv_clamp is not None:
        warnings.warn(
            f"{what} clamps every layer at {generator.architecture.conv_clamp:g}, which a .pt file in "
            "the rosinality layout cannot say: pictures may differ in rare pixels",
            stacklevel=2,
        )
    arrays = weights.model_to_arrays(generator)
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
        table, official, conv_clamp = nvlabs.read(source)
        return _build(table, official, str(source), conv_clamp)
    content = reader.read(source)
    if decoder := _decoder(content):
        return to_native(decoder, what=str(source))
    official = content.get("g_ema", content.get("state_dict", content))
    if not isinstance(official, dict) or not all(
        isinstance(key, str) and hasattr(array, "shape") for key, array in official.items()
    ):
        held = ", ".join(str(key) for key in list(content)[:8])
        raise UserError(
            f"{source} holds no generator: expected g_ema or a state dict, it has {held}"
        )
    if isinstance(content.get("latent_avg"), np.ndarray):
        official = official | {"latent_avg": content["latent_avg"]}
    return to_native(official, what=str(source))


def read_decoder(source: Path) -> tuple[Generator, list[Match]] | None:
    """Reads the generator in the file of an encoder or a mapper; None where there is none.

    Raises:
      UserError: it does not fit.
    """
    decoder = _decoder(reader.read(source))
    return to_native(decoder, what=str(source)) if decoder else None


def _decoder(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays under "decoder." of a state dict, and the average latent if there is one for all layers."""
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
        layers = np.atleast_2d(average)  # one for all layers, or mostly the same for each
        decoder["latent_avg"] = layers[0] if (layers == layers[0]).all() else layers.mean(axis=0)
    return decoder


def write_official(generator: Generator, destination: Path) -> list[Match]:
    """Writes a `.pt` file that the original class reads; see `to_official`.

    Raises:
      UserError: PyTorch is missing, or the file cannot be written.
    """
    torch = reader.import_torch()
    official, matches = to_official(generator, what=str(destination))
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in official.items()}
    latent_avg = tensors.pop("latent_avg")
    with files.atomic(destination) as temporary:
        torch.save({"g_ema": tensors, "latent_avg": latent_avg}, temporary)
    return matches
