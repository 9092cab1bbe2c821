"""From the names that users give to images."""

import dataclasses
import functools
import hashlib
from pathlib import Path

from PIL import Image

from nada_jax import files, images
from nada_jax.errors import UserError
from nada_jax.runs.per_image import EXAMPLES, Item, listing
from nada_jax.style.transfer import SHARPEST

SHIPPED = ("contents", "styles")  # folders whose images have names of their own


@dataclasses.dataclass(frozen=True)
class Mix(Item):
    """A result made of several files; `path` is that of the content, if there is one.

    Attributes:
      parts: the other files.
    """

    parts: tuple[Path, ...] = ()

    @property
    def digest(self) -> str:
        """Of the contents of all files."""
        own = super().digest
        others = [Item(path.stem, path).digest for path in self.parts]
        return hashlib.sha256(" ".join([own, *others]).encode()).hexdigest()[:16]


def find(source: str, field: str) -> list[Item]:
    """The images that a field names.

    Args:
      source: a file, a folder, "contents" or "styles" (folders that ship), or the name of an image in one of these;
        several are separated by commas.
      field: how messages call it.

    Returns:
      The images, each with a name of its own.

    Raises:
      UserError: there is no such image, or two have one name.
    """
    shipped = {path.stem: path for name in SHIPPED for path in sorted(EXAMPLES[name].iterdir())}
    # A file may have commas in its name.
    whole = source in shipped or _exists(source)
    found: list[Item] = []
    for part in [source] if whole else [x.strip() for x in source.split(",")]:
        if part in shipped:
            found.append(Item(part, shipped[part]))
            continue
        files.check_local(part, f"{field}={source!r}")
        try:
            found += listing(part, field)
        except UserError as error:
            if part and not _exists(part):
                raise UserError(
                    f"{field}={source!r}: there is no file, folder or shipped image {part!r}; expected a path, contents, "
                    f"styles, or one of {', '.join(sorted(shipped))}"
                ) from error
            raise
    found = list(dict.fromkeys(found))
    held: dict[str, Item] = {}
    for item in found:
        if (other := held.setdefault(item.name.casefold(), item)) != item:
            raise UserError(
                f"{field}: {other.path} and {item.path} would both be called {item.name!r}; rename one of them"
            )
    return found


def one(source: str, field: str) -> Item:
    """As `find`, where exactly one image is expected."""
    found = find(source, field)
    if len(found) > 1:
        raise UserError(f"{field}={source!r} names {len(found)} images; expected one")
    return found[0]


def _exists(source: str) -> bool:
    """Whether a path is there; one that the system refuses is not, and `listing` says why."""
    try:
        return source in EXAMPLES or files.expand(source).exists()
    except (UserError, OSError):
        return False


@functools.lru_cache(maxsize=64)  # one content or style is part of many results
def read(path: Path, side: int) -> Image.Image:
    """Reads an image for results of `side` pixels; a much larger one is reduced as it is read.

    Raises:
      UserError: see `images.upright`.
    """
    return images.upright(path, (SHARPEST * side) ** 2).image
