"""Files that are whole or not there; texts and JSON; safetensors files."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from nada_jax.errors import UserError
from nada_jax.settings import need


def spelled(name: str | os.PathLike, field: str) -> str:
    """A name or path as text.

    Args:
      name: what the user gave.
      field: how the message calls it.

    Raises:
      UserError: it is neither a text nor a path; bytes are neither, as their encoding is unknown.
    """
    need(isinstance(name, str | os.PathLike), field, name, "a text or a path")
    return os.fspath(name)


def check_local(name: str | os.PathLike, what: str, instead: str = "") -> None:
    """Refuses an address where a file or directory of this machine is expected.

    Args:
      name: what the user gave.
      what: how the message calls it.
      instead: what to do, where it is known; by default, to download the file.

    Raises:
      UserError: it is an address.
    """
    name = os.fspath(name)
    # One slash is enough: a path that was made of an address has lost the other.
    if re.match(r"[a-z][a-z0-9+.-]+:/", name, re.IGNORECASE):
        advice = instead or f"download it, for example with `curl -LO {name}`, and give its path"
        raise UserError(f"{what} is an address, from which nothing is fetched; {advice}")


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside `path` and renames it to `path` when the block succeeds.

    Args:
      path: where the file shall stand. Its directory is made.

    Yields:
      The temporary path, with the same suffix, to be written by the block.

    Raises:
      UserError: the directory cannot be made or written.
    """
    path = expand(path)
    with writing(path):
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # The temporary file is private; what is finished gets the permissions of any new file.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns what the system refuses while a file is written into a UserError that names the file."""
    try:
        yield
    # No room, no permission, a damaged disk.
    except (OSError, safetensors.SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {os.fspath(path)}: {why}") from error


def expand(path: str | os.PathLike) -> Path:
    """A path as the user means it: shells leave the ~ of `--workdir=~/runs` as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # "~user" of an unknown user
        raise UserError(f"{os.fspath(path)!r} cannot be found: {error}") from error


def to_json(value: Any, **options: Any) -> str:
    """JSON of a value, in which the numbers of numpy are numbers.

    Args:
      value: of dictionaries, tuples, lists, texts and numbers.
      options: of `json.dumps`.

    Raises:
      UserError: it holds something else that JSON does not know.
    """

    def plain(x: Any) -> Any:
        if isinstance(x, np.generic):
            return x.item()
        raise UserError(
            f"{x!r} is a {type(x).__name__}; expected a number, a text, or a tuple of them"
        )

    return json.dumps(value, default=plain, **options)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes text atomically, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: str | os.PathLike) -> str:
    """Reads a text file of the user: UTF-8, with or without the byte order mark of some editors.

    Raises:
      UserError: it cannot be read, or is not UTF-8; the message names the line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8: line {line} has the byte 0x{content[error.start]:02x}; save it as UTF-8"
        ) from error


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UserError: the file is missing, or holds something else.
    """
    try:
        content = json.loads(read_text(path))
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name, and the header's metadata; UserError where the file is not a whole one."""
    with _opened(path) as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return arrays, file.metadata() or {}


def read_metadata(path: Path) -> dict[str, str]:
    """The header's metadata alone; UserError where the file is not a whole one."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safetensors.safe_open]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from error
    except AttributeError as error:  # of float8, which numpy lacks
        raise UserError(
            f"{path} has arrays of a type that is not read ({error}); expected floats of 16 to 64 bits"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and metadata atomically; UserError where there is no room or no permission.

    Equal content gives equal bytes.
    """
    with atomic(path) as temporary:
        # In C's order: the library writes the memory of an array as it lies, whatever its strides say.
        plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        safetensors.numpy.save_file(plain, temporary, dict(metadata))
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Sorts the metadata of a header by name, which the library writes in an order drawn by chance."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header |= {"__metadata__": dict(sorted(header.get("__metadata__", {}).items()))}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        # The same entries take the same room; spaces fill it, as the library does.
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))
