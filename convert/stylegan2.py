"""StyleGAN2: the rosinality layout (which StyleGAN-NADA has too) both ways, NVIDIA's one way."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from convert import nvidia, rules
from convert.nvidia import CONSTANT, DROP_FIRST, KERNEL, NOISE
from convert.rules import DENSE, Match, Rule, chain, reshape
from convert.unpickle import contents, reader, releases
from convert.unpickle.contents import Found
from nada_jax import files
from nada_jax.errors import UserError
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
# Keys that only a generator has: in the rosinality layout, and in NVIDIA's (of a StyleGAN3 too, to name it).
LANDMARKS = r"input\.input|conv1\.conv\.weight|synthesis\.b4\.const|synthesis\.input\.weight"


def to_native(
    official: rules.Arrays, what: str, conv_clamp: float | None = None
) -> tuple[Generator, list[Match]]:
    """Converts a flat rosinality state dict (with or without "latent_avg" beside it).

    Args:
      official: key -> array in PyTorch layout.
      what: how messages call it.
      conv_clamp: see `Architecture`; this layout does not say it.

    Returns:
      The generator, and each key's way. A missing `latent_avg` is computed from 4,096 samples of the
      mapping network, as the official code does, and missing noise buffers are drawn anew, both with a warning.

    Raises:
      UserError: a conditional generator, and what does not fit, all in one message.
    """
    nvidia.check_filters(official, ".kernel", KERNEL, what)
    width, *read = np.shape(official.get("style.1.weight", np.zeros(0)))
    if read and read[0] > width:
        raise UserError(
            f"{what} holds a conditional generator: its first mapping layer, style.1.weight, reads "
            f"{read[0]} numbers for latents of {width}: a z beside an embedded label; expected an "
            "unconditional one"
        )
    return _build(RULES, official, what, conv_clamp)


def _build(
    table: list[Rule], official: rules.Arrays, what: str, conv_clamp: float | None = None
) -> tuple[Generator, list[Match]]:
    arrays, matches = rules.apply(table, official, what=what, expected=_shapes)
    if not any(path.startswith("noise.") for path in arrays):
        warnings.warn(
            f"{what} has no noise buffers; they are drawn from a fixed seed, so that fine detail differs "
            "from images that were drawn elsewhere",
            stacklevel=2,
        )
        architecture = Architecture.from_shapes({path: x.shape for path, x in arrays.items()})
        random = np.random.default_rng(0)
        for name, side in architecture.noise_sizes().items():
            arrays[f"noise.{name}"] = random.standard_normal((side, side), np.float32)
    averaged = "latent_avg" in arrays
    if not averaged:
        warnings.warn(
            f"{what} has no latent_avg; it is computed from 4,096 latents, as the official code does",
            stacklevel=2,
        )
        # A place for the average until there is a mapping network to compute it with.
        arrays["latent_avg"] = np.zeros(arrays["mapping.dense_0.bias"].shape, np.float32)
    generator = native.model_from_arrays(Generator, arrays, conv_clamp=conv_clamp)
    if not averaged:
        generator = generator.replace(latent_avg=mean_latent(generator, jax.random.key(0)))
    return generator, matches


def _shapes(shapes: rules.Shapes) -> rules.Shapes:
    """Shapes of all arrays of a generator as wide and deep as this one.

    `latent_avg` may be absent, and so may the noise buffers, all of them: the first releases of rosinality's
    code stored none.
    """
    needed = Architecture.from_shapes(shapes).shapes()
    noisy = any(path.startswith("noise.") for path in shapes)
    return {
        path: x
        for path, x in needed.items()
        if path in shapes or not (path == "latent_avg" or path.startswith("noise.") and not noisy)
    }


def to_official(generator: Generator, what: str) -> tuple[dict[str, np.ndarray], list[Match]]:
    """The inverse of `to_native`: keys, shapes and buffers that the original class loads strictly.

    Warns where the generator clamps its layers, which the original class does not. UserError where z is wider
    than w: the original class has one size for both, and a file with two counts as conditional.
    """
    z_dim, w_dim = generator.architecture.z_dim, generator.architecture.w_dim
    if z_dim > w_dim:
        raise UserError(
            f"{what} cannot be written: the rosinality layout has one size for z and w, and this generator's "
            f"are {z_dim} and {w_dim}"
        )
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


def read(source: Path, clamp: float | None = None) -> tuple[Generator, list[Match]]:
    """Reads an official file: a pickle by NVIDIA, or a state dict in the rosinality or NVIDIA's layout.

    A state dict is looked for in all tables of the file, such as `g_ema` (rosinality, StyleGAN-NADA), and as
    the decoder in the file of an encoder (pSp, e4e, ReStyle, StyleCLIP's mappers).

    Args:
      source: the file.
      clamp: bound of the output of every layer, `conv_clamp`, which a state dict does not say.

    Returns:
      The generator, and each key's way.

    Raises:
      UserError: the file is damaged, holds no generator, or one that does not fit.
    """
    content = reader.load(source)
    if release := releases.find(content, source):
        if clamp is not None:
            raise UserError(f"--clamp is for state dicts; {source} says by itself what it clamps")
        return _from_nvidia(release, source)
    if found := contents.find(content, LANDMARKS, source, "generator"):
        return _from_state_dict(found, source, clamp)
    # What is there instead; every key that does not fit is named.
    if isinstance(content, Mapping):
        content = content.get("g_ema", content.get("state_dict", content))
    expected = "g_ema or a state dict"
    if source.suffix.lower() == ".pkl":
        expected = "a table with G_ema (PyTorch), three networks (TensorFlow), or a state dict"
    official = reader.state_dict(content, source, "generator", expected)
    return to_native(official, str(source))


def read_companion(source: Path) -> tuple[Generator, list[Match]] | None:
    """Reads the generator in the file of an encoder or a mapper.

    Args:
      source: the file.

    Returns:
      The generator, and each key's way; None where there is none.

    Raises:
      UserError: it does not fit.
    """
    found = contents.find(reader.load(source), LANDMARKS, source, "generator")
    return _from_state_dict(found, source) if found else None


def _from_nvidia(release: releases.Release, source: Path) -> tuple[Generator, list[Match]]:
    # NVIDIA stores filters without the gain 4 of upsampling, which it applies later.
    nvidia.check_filters(release.arrays, "resample_filter", KERNEL / 4, str(source))
    table = nvidia.TABLES[release.library]
    return _build(table, release.arrays, str(source), release.conv_clamp)


def _from_state_dict(
    found: Found, source: Path, clamp: float | None = None
) -> tuple[Generator, list[Match]]:
    if any(key.startswith("synthesis.") for key in found.arrays):
        release = releases.from_state_dict(found.arrays, source)
        if clamp is None:
            warnings.warn(
                f"{source} does not say whether its layers are clamped, as those of networks that were "
                "trained in mixed precision are at 256; they are not: images may differ in rare pixels "
                "(`python -m convert stylegan2` has --clamp for it)",
                stacklevel=2,
            )
        return _from_nvidia(release._replace(conv_clamp=clamp), source)
    official = dict(found.arrays)
    average = found.beside("latent_avg")
    if isinstance(average, list) and all(isinstance(x, float) for x in average):
        average = np.array(average, np.float32)
    if isinstance(average, np.ndarray) and average.size:
        # [w], or [l, w] for l latents, mostly equal, whose mean would differ from them by rounding.
        latents = average.reshape(-1, average.shape[-1] if average.ndim else 1)
        equal = (latents == latents[0]).all()
        official["latent_avg"] = latents[0] if equal else latents.mean(axis=0)
    return to_native(official, str(source), clamp)


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
        try:
            torch.save({"g_ema": tensors, "latent_avg": latent_avg}, temporary)
        except RuntimeError as error:  # PyTorch's words for a full disk are of its own code
            why = str(error).splitlines()[0]
            raise UserError(f"cannot write {destination}: the disk may be full ({why})") from error
    return matches
