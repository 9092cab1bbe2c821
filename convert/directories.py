"""Directories as destinations: whole or not there."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nada_jax import files
from nada_jax.errors import UserError


def check_new(destination: Path) -> None:
    """Raises UserError where something stands at a destination already, other than an empty directory."""
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise UserError(f"{destination} exists already; give a new or an empty directory")


@contextlib.contextmanager
def staged(destination: Path) -> Iterator[Path]:
    """Gives an empty directory beside the destination, which becomes it when the block succeeds.

    Args:
      destination: see `check_new`. Its parents are made.

    Yields:
      The directory to be filled by the block.

    Raises:
      UserError: it cannot be written.
    """
    with files.writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".convert-", dir=destination.parent) as temporary:
            # One deeper, since the temporary directory is private, and has to be there to be deleted.
            directory = Path(temporary) / destination.name
            directory.mkdir()
            yield directory
            directory.replace(destination)
