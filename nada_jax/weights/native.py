"""The native format: one `.safetensors` file a model.

It holds arrays by flat path (`synthesis.conv_0.weight`, `noise.conv_0`, `latent_avg`, ...); kind and
architecture are in the metadata of its header.
"""

import dataclasses
import hashlib
import json
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import jax.numpy as jnp
import numpy as np

from nada_jax import files, trees
from nada_jax.errors import UserError, reading, some

FORMAT = "nada_jax "  # followed by the kind
SUFFIX = ".safetensors"
MOST = 64  # entries of a tuple in a header; no architecture has more layers


class NativeModel(Protocol):
    """A `flax.struct` dataclass whose objects are stored as native files.

    The branches of its first field are the top of the file; other fields with arrays stand beside
    them under their own names.

    Attributes:
      KIND: name of the kind: "generator", "encoder", ...
      ARCHITECTURE: dataclass of plain values, with `shapes()` and `from_shapes(shapes)`.
      architecture: the architecture of this model.
    """

    KIND: ClassVar[str]
    ARCHITECTURE: ClassVar[type]
    architecture: Any


Model = TypeVar("Model", bound=NativeModel)


def read(kind: type[Model], path: Path) -> Model:
    """Reads a native file.

    Args:
      kind: the class of the model.
      path: the file.

    Returns:
      The model, arrays in float32.

    Raises:
      UserError: the file is damaged, of another kind, its arrays do not fit its architecture, or hold
        what is not finite.
    """
    with reading(path):
        arrays, metadata = files.read_safetensors(path)
        if metadata.get("format") != FORMAT + kind.KIND:
            raise UserError(
                f"{path} is a safetensors file, but not one of the kind {kind.KIND} by nada_jax"
            )
        architecture = _read_architecture(kind, metadata, path)
        _check(kind, arrays, architecture)
    # Outside of the block above: a device that is full is no damage of the file.
    return _build(kind, arrays, architecture)


def save_model(
    model: NativeModel, path: str | os.PathLike, half: bool = False, **facts: str
) -> None:
    """Writes a native file, atomically.

    Args:
      model: what to write.
      path: ends in `.safetensors`.
      half: write float16, in which weights must not exceed 65,504.
      **facts: strings kept in the header beside the architecture (the texts of an adaptation, ...).

    Raises:
      UserError: the path is none, has another ending, or cannot be written.
    """
    if Path(files.spelled(path, "path")).suffix.lower() != SUFFIX:
        raise UserError(f"{path} does not end in {SUFFIX}, the native format")
    described = json.dumps(dataclasses.asdict(model.architecture))
    metadata = {"format": FORMAT + model.KIND, "architecture": described} | facts
    arrays = model_to_arrays(model)
    if half:
        arrays = {name: x.astype(np.float16) for name, x in arrays.items()}
    files.write_safetensors(Path(path), arrays, metadata)


save_generator = save_model  # the name that users of generators import from `nada_jax`


def kind_of(path: Path) -> str:
    """`KIND` of the model in a file; "" where it is no native file. UserError where it is not a whole one."""
    if path.suffix.lower() != SUFFIX:
        return ""
    found = files.read_metadata(path).get("format", "")
    return found.removeprefix(FORMAT) if found.startswith(FORMAT) else ""


def digest(model: NativeModel) -> str:
    """SHA-256 of the arrays of a model, which no header and no order in a file changes; hexadecimal."""
    found = hashlib.sha256()
    for path, array in sorted(model_to_arrays(model).items()):
        found.update(f"{path} {array.shape} {array.dtype};".encode())
        found.update(np.asarray(array, order="C").tobytes())
    return found.hexdigest()


def model_to_arrays(model: NativeModel) -> dict[str, np.ndarray]:
    """Converts a model to flat native arrays, by path."""
    top, *beside = _array_fields(type(model))
    tree = getattr(model, top) | {name: getattr(model, name) for name in beside}
    return {path: np.asarray(leaf) for path, leaf in trees.flatten(tree).items()}


def model_from_arrays(
    kind: type[Model],
    arrays: Mapping[str, np.ndarray],
    architecture: Any = None,
    **settings: Any,
) -> Model:
    """Builds a model from flat native arrays.

    Args:
      kind: the class of the model.
      arrays: by flat path, of any type.
      architecture: by default the one that follows from the shapes.
      **settings: fields of the architecture that do not follow from the shapes.

    Returns:
      The model, arrays in float32.

    Raises:
      UserError: arrays are missing, unknown, misshapen, not finite, or no floats.
    """
    if architecture is None:
        shapes = {path: tuple(array.shape) for path, array in arrays.items()}
        architecture = kind.ARCHITECTURE.from_shapes(shapes, **settings)
    _check(kind, arrays, architecture)
    return _build(kind, arrays, architecture)


def _check(kind: type[NativeModel], arrays: Mapping[str, np.ndarray], architecture: Any) -> None:
    if wrong := trees.misfits(arrays, architecture.shapes()):
        raise UserError(f"the arrays are not those of the kind {kind.KIND}: {some(wrong)}")


def _build(kind: type[Model], arrays: Mapping[str, np.ndarray], architecture: Any) -> Model:
    tree = trees.unflatten({path: jnp.asarray(x, jnp.float32) for path, x in arrays.items()})
    top, *beside = _array_fields(kind)
    fields = {name: tree.pop(name) for name in beside}
    return kind(**{top: tree}, **fields, architecture=architecture)


def _array_fields(kind: type[NativeModel]) -> list[str]:
    """Names of the fields that hold arrays, in their order; flax marks the others as static."""
    return [f.name for f in dataclasses.fields(kind) if f.metadata.get("pytree_node", True)]


def _read_architecture(kind: type[NativeModel], metadata: Mapping[str, str], path: Path) -> Any:
    """Reads the architecture from a header, which a stranger may have written."""
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
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value out of JSON has the type of a field: plain, tuple[plain, ...], plain | None."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        # Exact types: True is an int to isinstance, and a width of True would pass.
        plain = type(value) is tuple and all(type(x) is options[0] for x in value)
        return plain and len(value) <= MOST
    return type(value) in (options or (hint,))
