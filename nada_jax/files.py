"""Files that are whole or not there; safetensors files."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from nada_jax.errors import UserError


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
    except (
        OSError,
        safetensors.SafetensorError,
    ) as error:  # no room, no permission, a damaged disk
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {os.fspath(path)}: {why}") from error


def expand(path: str | os.PathLike) -> Path:
    """A path as the user means it: shells leave the ~ of `--workdir=~/runs` as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # "~user" of an unknown user
        raise UserError(f"{os.fspath(path)!r} cannot be found: {error}") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes text atomically, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    except (safetensors.SafetensorError, AttributeError) as error:  # of float8, which numpy lacks
        raise UserError(f"{path} is not a whole safetensors file: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and metadata atomically; UserError where there is no room or no permission."""
    with atomic(path) as temporary:
        safetensors.numpy.save_file(dict(arrays), temporary, dict(metadata))
