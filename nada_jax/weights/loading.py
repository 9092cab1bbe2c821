"""Find, load and save native weights.

A native model is one `.safetensors` file: arrays by flat path (`synthesis.conv_0.weight`, `noise.conv_0`,
`latent_avg`, ...), with its kind and architecture in the header's metadata.
"""

import dataclasses
import json
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import flax
import jax.numpy as jnp
import numpy as np

from nada_jax import files, trees
from nada_jax.errors import UserError, reading, some
from nada_jax.models.clip import Clip, from_params, read_json
from nada_jax.models.style_delta import StyleDelta, shift
from nada_jax.models.stylegan2 import PRECISIONS, Generator
from nada_jax.models.vgg import Vgg
from nada_jax.weights import registry

ASSETS = Path(__file__).parents[1] / "assets"
FORMAT = "nada_jax "  # and the kind
OFFICIAL = (".pt", ".pth", ".pkl", ".h5")


class NativeModel(Protocol):
    """What a class needs whose models are native files; `models/` holds them.

    Attributes:
      KIND: its name, "generator", "encoder", ...
      ARCHITECTURE: dataclass of plain values, with `shapes()` and `from_shapes(shapes)`.
      architecture: that of a model.
    """

    KIND: ClassVar[str]
    ARCHITECTURE: ClassVar[type]
    architecture: Any

    def tree(self) -> dict[str, Any]:
        """Nested arrays, as in the file."""

    @classmethod
    def from_tree(cls, tree: dict[str, Any], architecture: Any) -> "NativeModel":
        """The inverse of `tree`."""


Model = TypeVar("Model", bound=NativeModel)


def cache() -> Path:
    """The user's directory for downloaded weights: $NADA_JAX_CACHE or ~/.cache/nada_jax."""
    return Path(os.environ.get("NADA_JAX_CACHE", "~/.cache/nada_jax")).expanduser()


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
        converted once, a native `.safetensors` file, or an official `.pt` or `.pkl` file, which is
        converted on the fly.
      deltas: files of style deltas (see `models.style_delta`), which are added to its styles.
      scales: a factor for each of them; by default 1.
      precision: "float32" or "bfloat16".
      field: how messages call `weights`; `deltas` and `scales` stand beside it.

    Returns:
      The generator, parameters in float32.

    Raises:
      UserError: there is no such name or file, it cannot be fetched, or it holds no generator; a delta
        belongs to another one.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    with reading(weights):
        path = find_generator(weights, field)
    generator = load_model(Generator, path, field=field).replace(precision=precision)
    beside = field.removesuffix("weights")
    scales = tuple(scales) or (1.0,) * len(deltas)
    if len(scales) != len(deltas) or not all(isinstance(s, int | float) for s in scales):
        raise UserError(
            f"{beside}scales is {scales!r}; expected a number for each of the {len(deltas)} {beside}deltas"
        )
    for delta, scale in zip(deltas, scales, strict=True):
        loaded = load_model(StyleDelta, delta, field=f"{beside}deltas")
        with reading(delta):
            generator = shift(generator, scale * loaded)
    return generator


def save_generator(generator: Generator, path: str | os.PathLike, **facts: str) -> None:
    """Writes a native generator file, atomically; see `save_model`."""
    save_model(generator, path, **facts)


def load_lpips(weights: str | os.PathLike, *, field: str) -> Vgg:
    """Loads a VGG-16 with the linear layers of LPIPS; see `load_model`. UserError where it has none."""
    vgg = load_model(Vgg, weights, field=field)
    if not vgg.architecture.linear:
        raise UserError(
            f"{field}={os.fspath(weights)!r} has no linear layers of LPIPS; convert it with "
            "`python -m convert vgg SOURCE DESTINATION --lpips vgg.pth`"
        )
    return vgg


def load_clip(
    model: str | os.PathLike, *, precision: str = "float32", field: str = "clip.models"
) -> Clip:
    """Loads a CLIP.

    Args:
      model: an embedded name ("avatar-p8"), a Hugging Face directory with Flax or PyTorch weights, the
        name of one on the Hugging Face hub ("openai/clip-vit-base-patch32"), fetched once, or a file by
        OpenAI or open_clip, converted on the fly.
      precision: "float32" or "bfloat16".
      field: how messages call `model`.

    Returns:
      The clip, parameters in float32.

    Raises:
      UserError: there is no such name or directory, or it holds no CLIP.
    """
    with reading(model):
        if Path(model).expanduser().is_file():
            from convert import clip  # only where there is something to convert

            params, config, _ = clip.load_file(Path(model).expanduser())
            return from_params(params, config, name=os.fspath(model), precision=precision)
        directory = find_clip(model, field)
        config = read_json(directory / "config.json")
        whole, packed = directory / "model.safetensors", directory / "flax_model.msgpack"
        params, metadata = files.read_safetensors(whole) if whole.is_file() else ({}, {})
        if metadata.get("format") != "flax" and packed.is_file():
            with reading(packed):
                params = trees.flatten(flax.serialization.msgpack_restore(packed.read_bytes()))
        elif metadata.get("format") != "flax":
            from convert import clip

            params = clip.load_torch_directory(directory)[0]
        return from_params(params, config, directory, name=os.fspath(model), precision=precision)


def find_clip(model: str | os.PathLike, field: str = "clip.models") -> Path:
    """The directory behind a name or path; UserError where there is none."""
    name = os.fspath(model)
    for directory in (ASSETS / f"clip-{name}", Path(name).expanduser()):
        if name and (directory / "config.json").is_file():
            return directory
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        known = ", ".join(sorted(p.name.removeprefix("clip-") for p in ASSETS.glob("clip-*")))
        raise UserError(
            f"{field}={name!r} is neither an embedded name ({known}), nor a directory with "
            "config.json, nor a file, nor a hub name such as openai/clip-vit-base-patch32"
        )
    return _from_hub(name, field)


def _from_hub(name: str, field: str) -> Path:
    import huggingface_hub  # a second that embedded models do not need

    tokenizer = ["*.json", "merges.txt"]
    for weights in ("flax_model.msgpack", "model.safetensors", "pytorch_model.bin"):
        try:
            directory = Path(
                huggingface_hub.snapshot_download(name, allow_patterns=[*tokenizer, weights])
            )
        except Exception as error:  # offline, unknown name, no permission, no space
            raise UserError(
                f"{field}={name!r} is not on this machine and could not be fetched from the "
                f"Hugging Face hub ({type(error).__name__}); fetch it where there is a network with "
                f"`huggingface-cli download {name}`, and give the directory as {field}"
            ) from error
        if (directory / weights).is_file():
            return directory
    raise UserError(f"{field}={name!r}: the hub holds no Flax or PyTorch weights of that name")


def find_generator(weights: str | os.PathLike, field: str = "generator.weights") -> Path:
    """The file behind a name or path, fetched if need be; UserError where there is none."""
    name = os.fspath(weights)
    if not name:
        raise UserError(f"{field} is empty; give a name such as avatar64, or a file")
    embedded = ASSETS / f"{name}.safetensors"
    if os.sep not in name and embedded.is_file():
        return embedded
    if name in registry.GENERATORS:
        return _published(registry.GENERATORS[name], field)
    path = Path(name).expanduser()
    if path.is_dir():
        raise UserError(f"{field}={name!r} is a directory; expected a file")
    if not path.exists():
        names = [*sorted(p.stem for p in ASSETS.glob("*.safetensors")), *registry.GENERATORS]
        raise UserError(f"{field}={name!r} is neither a file nor a known name ({', '.join(names)})")
    return path


def _published(entry: registry.Entry, field: str) -> Path:
    """The native file of a published generator, made at its first use.

    It is made from the official file that the user has put into the cache, which stays, or else from
    the publisher's, which goes.
    """
    directory = cache()
    native = registry.native_file(entry, directory)
    if native.is_file():
        return native
    official = registry.official_file(entry, directory)
    if official and not os.access(directory, os.W_OK):
        return official
    with registry.lock(entry, directory, field):
        if native.is_file():  # another process was faster
            return native
        if official:
            source, digest = official.name, registry.sha256(official)
        else:
            source = entry.url
            fetched, digest = registry.fetch(entry, directory, field)
        try:
            generator = load_model(Generator, official or fetched, field=field)
        except UserError as error:
            if official:
                raise
            registry.discard(entry, directory)
            raise UserError(
                f"{field}={entry.name!r}: what {entry.url} sent is of no use ({error}); "
                + registry.remedy(entry, directory, field)
            ) from error
        facts = {"license": registry.LICENSES[entry.license], "sha256": digest}
        try:
            save_generator(generator, native, source=source, **facts)
        except UserError as error:
            raise registry.unwritable(entry, directory, field, error) from error
        registry.discard(entry, directory)
    return native


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
    with reading(weights):
        path = Path(weights).expanduser()
        if not path.is_file():
            why = "is a directory" if path.is_dir() else "does not exist"
            raise UserError(f"{field}={os.fspath(weights)!r} {why}; expected a file")
        if path.suffix in OFFICIAL:
            from convert import kinds  # the converter only where there is something to convert

            return kinds.read(kind.KIND, path)[0]
        if path.suffix != ".safetensors":
            raise UserError(
                f"{path} does not end in .safetensors, {', '.join(OFFICIAL[:-1])} or {OFFICIAL[-1]}; "
                f"expected a native or an official {kind.KIND}"
            )
        arrays, metadata = files.read_safetensors(path)
        if metadata.get("format") != FORMAT + kind.KIND:
            raise UserError(
                f"{path} is a safetensors file, but not one of the kind {kind.KIND} by nada_jax"
            )
        return model_from_arrays(kind, arrays, _architecture(kind, metadata, path))


def save_model(model: Model, path: str | os.PathLike, **facts: str) -> None:
    """Writes a native file, atomically.

    Args:
      model: what to write.
      path: ends in `.safetensors`.
      **facts: strings kept in the header beside the architecture (the texts of an adaptation, ...).

    Raises:
      UserError: another ending, or a directory that cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise UserError(f"{path} does not end in .safetensors, the native format")
    described = json.dumps(dataclasses.asdict(model.architecture))
    metadata = {"format": FORMAT + model.KIND, "architecture": described} | facts
    files.write_safetensors(Path(path), model_to_arrays(model), metadata)


def model_to_arrays(model: Model) -> dict[str, np.ndarray]:
    """Flat native arrays of a model."""
    return {path: np.asarray(leaf) for path, leaf in trees.flatten(model.tree()).items()}


def model_from_arrays(
    kind: type[Model], arrays: Mapping[str, np.ndarray], architecture: Any = None, **untold: Any
) -> Model:
    """Builds a model from flat native arrays.

    Args:
      kind: the class of the model.
      arrays: by flat path, of any type.
      architecture: by default what their shapes say, and
      **untold: fields of it that shapes cannot tell.

    Returns:
      The model, arrays in float32.

    Raises:
      UserError: arrays are missing, unknown or misshapen.
    """
    if architecture is None:
        shapes = {path: tuple(array.shape) for path, array in arrays.items()}
        architecture = kind.ARCHITECTURE.from_shapes(shapes, **untold)
    if wrong := trees.misfits(arrays, architecture.shapes()):
        raise UserError(f"the arrays are not those of the kind {kind.KIND}: {some(wrong)}")
    flat = {path: jnp.asarray(array, jnp.float32) for path, array in arrays.items()}
    return kind.from_tree(trees.unflatten(flat), architecture)


def _architecture(kind: type[Model], metadata: Mapping[str, str], path: Path) -> Any:
    """The architecture in the header of a native file, which a stranger may have written."""
    hints = typing.get_type_hints(kind.ARCHITECTURE)
    try:
        described = json.loads(metadata["architecture"])
        values = {name: _tuples(described[name]) for name in hints if name in described}
        if wrong := [name for name, value in values.items() if not _fits(value, hints[name])]:
            raise ValueError(f"{wrong[0]} is {values[wrong[0]]!r:.40}")
        return kind.ARCHITECTURE(**values)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: its header describes no {kind.KIND} ({error})") from error


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value out of JSON has the type of a field: a plain one, tuple[plain, ...] or plain | None."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return (
            type(value) is tuple and len(value) <= 64 and all(type(x) is options[0] for x in value)
        )
    return type(value) in (options or (hint,))
