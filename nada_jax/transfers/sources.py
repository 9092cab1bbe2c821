"""From the names that users give to images."""

import functools
from pathlib import Path

from PIL import Image

from nada_jax import files, images
from nada_jax.errors import UserError, reading
from nada_jax.runs.items import Item, listing
from nada_jax.style.transfer import SHARPEST


def find(source: str, field: str) -> list[Item]:
    """The different images that a field names.

    Args:
      source: see `listing`; several are separated by commas.
      field: how messages call it.

    Returns:
      The images, each with a name of its own.

    Raises:
      UserError: there is no such image, or two have one name.
    """
    found = list(dict.fromkeys(in_order(source, field)))
    held: dict[str, Item] = {}
    for item in found:
        if (other := held.setdefault(item.name.casefold(), item)) != item:
            raise UserError(
                f"{field}: {other.path} and {item.path} would both be called {item.name!r}; rename one of them"
            )
    return found


def in_order(source: str, field: str) -> list[Item]:
    """As `find`, with images that are named twice."""
    # A file may have commas in its name.
    parts = [source] if _exists(source) else [x.strip() for x in source.split(",")]
    return [item for part in parts for item in listing(part, field)]


def one(source: str, field: str) -> Item:
    """As `find`, where exactly one image is expected."""
    found = find(source, field)
    if len(found) > 1:
        raise UserError(f"{field}={source!r} names {len(found)} images; expected one")
    return found[0]


def _exists(source: str) -> bool:
    """Whether a path is there; one that the system refuses is not, and `listing` says why."""
    try:
        return files.expand(source).exists()
    except (UserError, OSError):
        return False


def read(path: Path, side: int) -> Image.Image:
    """Reads an image for results of `side` pixels; a much larger one is reduced as it is read.

    Raises:
      UserError: see `images.upright`.
    """
    with reading(path):
        changed = path.stat().st_mtime_ns
    return _read(path, side, changed)


@functools.lru_cache(maxsize=64)  # one content or style is part of many results
def _read(path: Path, side: int, changed: int) -> Image.Image:
    return images.upright(path, (SHARPEST * side) ** 2).image
