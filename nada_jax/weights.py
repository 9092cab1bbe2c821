"""Find, load and save native weights.

A native generator is one `.safetensors` file: arrays by flat path (`synthesis.conv_0.weight`, `noise.conv_0`,
`latent_avg`, ...), with the architecture in the header's metadata.
"""

import dataclasses
import json
import os
from pathlib import Path

import flax
import jax.numpy as jnp
import numpy as np

from nada_jax import files, trees
from nada_jax.errors import UserError
from nada_jax.models.clip import Clip, from_params, read_json
from nada_jax.models.stylegan2 import PRECISIONS, Architecture, Generator

ASSETS = Path(__file__).parent / "assets"
FORMAT = "nada_jax generator"
OFFICIAL = (".pt", ".pth")
# Names of published generators, with the file that a user who has it puts into `cache()`.
PUBLISHED = {
    "ffhq1024": "stylegan2-ffhq-config-f.pt (StyleGAN2 FFHQ 1024 in the rosinality layout)",
}


def cache() -> Path:
    """The user's directory for downloaded weights: $NADA_JAX_CACHE or ~/.cache/nada_jax."""
    return Path(os.environ.get("NADA_JAX_CACHE", "~/.cache/nada_jax")).expanduser()


def load_generator(
    weights: str | os.PathLike, *, precision: str = "float32", field: str = "generator.weights"
) -> Generator:
    """Loads a generator.

    Args:
      weights: an embedded name ("avatar64"), a published name ("ffhq1024"), a native `.safetensors`
        file, or an official `.pt` file, which is converted on the fly.
      precision: "float32" or "bfloat16".
      field: how messages call `weights`.

    Returns:
      The generator, parameters in float32.

    Raises:
      UserError: there is no such name or file, or it holds no generator.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    arrays = read_generator(find_generator(weights, field))
    return generator_from_arrays(arrays).replace(precision=precision)


def save_generator(generator: Generator, path: str | os.PathLike, **facts: str) -> None:
    """Writes a native generator file, atomically.

    Args:
      generator: what to write.
      path: ends in `.safetensors`.
      **facts: strings kept in the header beside the architecture (the texts of an adaptation, ...).

    Raises:
      UserError: another ending, or a directory that cannot be written.
    """
    write_arrays(generator_to_arrays(generator), path, generator.architecture, **facts)


def load_clip(model: str | os.PathLike, *, precision: str = "float32") -> Clip:
    """Loads a CLIP.

    Args:
      model: an embedded name ("avatar-p8"), a Hugging Face directory with Flax or PyTorch weights, or
        the name of one on the Hugging Face hub ("openai/clip-vit-base-patch32"), fetched once.
      precision: "float32" or "bfloat16".

    Returns:
      The clip, parameters in float32.

    Raises:
      UserError: there is no such name or directory, or it holds no CLIP.
    """
    directory = find_clip(model)
    config = read_json(directory / "config.json")
    whole, packed = directory / "model.safetensors", directory / "flax_model.msgpack"
    params, metadata = files.read_safetensors(whole) if whole.is_file() else ({}, {})
    if metadata.get("format") != "flax" and packed.is_file():
        try:
            params = trees.flatten(flax.serialization.msgpack_restore(packed.read_bytes()))
        except Exception as error:  # msgpack raises many kinds
            raise UserError(f"{packed} is cut short or holds no Flax weights") from error
    elif metadata.get("format") != "flax":
        from convert import clip  # only where there is something to convert

        params = clip.load_torch_directory(directory)[0]
    return from_params(params, config, directory, name=os.fspath(model), precision=precision)


def find_clip(model: str | os.PathLike) -> Path:
    """The directory behind a name or path; UserError where there is none."""
    name = os.fspath(model)
    for directory in (ASSETS / f"clip-{name}", Path(name).expanduser()):
        if name and (directory / "config.json").is_file():
            return directory
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        known = ", ".join(sorted(p.name.removeprefix("clip-") for p in ASSETS.glob("clip-*")))
        raise UserError(
            f"clip.models={name!r} is neither an embedded name ({known}), nor a directory with "
            "config.json, nor a hub name such as openai/clip-vit-base-patch32"
        )
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    import huggingface_hub  # a second that embedded models do not need

    tokenizer = ["*.json", "merges.txt"]
    for weights in ("flax_model.msgpack", "model.safetensors", "pytorch_model.bin"):
        try:
            directory = Path(
                huggingface_hub.snapshot_download(name, allow_patterns=[*tokenizer, weights])
            )
        except Exception as error:  # offline, unknown name, no permission, no space
            raise UserError(
                f"clip.models={name!r} is not on this machine and could not be fetched from the "
                f"Hugging Face hub ({type(error).__name__}); fetch it where there is a network with "
                f"`huggingface-cli download {name}`, and give the directory as clip.models"
            ) from error
        if (directory / weights).is_file():
            return directory
    raise UserError(f"clip.models={name!r}: the hub holds no Flax or PyTorch weights of that name")


def find_generator(weights: str | os.PathLike, field: str = "generator.weights") -> Path:
    """The file behind a name or path; UserError where there is none."""
    name = os.fspath(weights)
    if not name:
        raise UserError(f"{field} is empty; give a name such as avatar64, or a file")
    embedded = ASSETS / f"{name}.safetensors"
    if os.sep not in name and embedded.is_file():
        return embedded
    if name in PUBLISHED:
        places = [cache() / f"{name}{ending}" for ending in (".safetensors", *OFFICIAL)]
        found = [place for place in places if place.is_file()]
        if not found:
            raise UserError(
                f"{field}={name!r} is not on this machine: download {PUBLISHED[name]} and "
                f"put it at {places[1]}, or give its path as {field}"
            )
        return found[0]
    path = Path(name).expanduser()
    if path.is_dir():
        raise UserError(f"{field}={name!r} is a directory; expected a file")
    if not path.exists():
        names = sorted(p.stem for p in ASSETS.glob("*.safetensors")) + sorted(PUBLISHED)
        raise UserError(f"{field}={name!r} is neither a file nor a known name ({', '.join(names)})")
    return path


def read_generator(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a native or an official generator file, by native path."""
    if path.suffix in OFFICIAL:
        from convert import stylegan2  # the converter, and torch behind it, only where it is needed

        return stylegan2.read(path)[0]
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path} does not end in .safetensors, {' or '.join(OFFICIAL)}; expected a native or an "
            "official generator"
        )
    arrays, metadata = files.read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not a generator written by nada_jax")
    return arrays


def write_arrays(
    arrays: dict[str, np.ndarray], path: str | os.PathLike, architecture: Architecture, **facts: str
) -> None:
    """Writes native arrays with the architecture in the header; see `save_generator`."""
    if Path(path).suffix != ".safetensors":
        raise UserError(f"{path} does not end in .safetensors, the native format")
    described = json.dumps(dataclasses.asdict(architecture) | {"size": architecture.size})
    metadata = {"format": FORMAT, "architecture": described} | facts
    files.write_safetensors(Path(path), arrays, metadata)


def generator_to_arrays(generator: Generator) -> dict[str, np.ndarray]:
    """Flat native arrays of a generator."""
    tree = generator.params | {"noise": generator.noise, "latent_avg": generator.latent_avg}
    return {path: np.asarray(leaf) for path, leaf in trees.flatten(tree).items()}


def generator_from_arrays(arrays: dict[str, np.ndarray]) -> Generator:
    """Builds a generator from flat native arrays; every size is read from their shapes.

    Raises:
      UserError: arrays are missing, unknown or misshapen.
    """
    shapes = {path: tuple(array.shape) for path, array in arrays.items()}
    architecture = Architecture.from_shapes(shapes)
    expected = architecture.shapes()
    wrong = sorted(
        f"{path}: {shapes.get(path, 'missing')}, expected {expected.get(path, 'nothing')}"
        for path in shapes.keys() | expected.keys()
        if shapes.get(path) != expected.get(path)
    )
    if wrong:
        raise UserError("the arrays do not make a generator: " + "; ".join(wrong))
    tree = trees.unflatten(
        {path: jnp.asarray(array, jnp.float32) for path, array in arrays.items()}
    )
    params = {"mapping": tree["mapping"], "synthesis": tree["synthesis"]}
    return Generator(params, tree["noise"], tree["latent_avg"], architecture)
