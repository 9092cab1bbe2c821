"""What a run over images of the user works through: files, folders, and images that ship."""

import dataclasses
import hashlib
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.weights.registry import shipped

# What Pillow cannot read but people have: to pass these over would look as if they were done.
UNREADABLE = (".heic", ".heif", ".raw", ".dng", ".cr2", ".nef", ".arw", ".jxl")


@dataclasses.dataclass(frozen=True)
class Item:
    """One of the things that a run works through.

    Attributes:
      name: of its results.
      path: its file; None for what is drawn from a seed.
      face_of: of a further face, the item of the photograph; else empty.
    """

    name: str
    path: Path | None = None
    face_of: str = ""

    @property
    def sources(self) -> tuple[Path, ...]:
        """All files that it is made of."""
        return () if self.path is None else (self.path,)

    @property
    def digest(self) -> str:
        """Of the file's content, which tells whether an earlier result is that of this image."""
        if self.path is None:
            return ""
        with reading(self.path), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Mix(Item):
    """A result made of several files; `path` is that of the content, if there is one.

    Attributes:
      parts: the other files.
    """

    parts: tuple[Path, ...] = ()

    @property
    def sources(self) -> tuple[Path, ...]:
        """The content and the parts."""
        return (*super().sources, *self.parts)

    @property
    def digest(self) -> str:
        """Of the contents of all files."""
        own = super().digest
        others = [Item(path.stem, path).digest for path in self.parts]
        return hashlib.sha256(" ".join([own, *others]).encode()).hexdigest()[:16]


def listing(
    source: str, field: str = "images", endings: Collection[str] | None = None
) -> list[Item]:
    """The files that a field names.

    Args:
      source: a file, a folder, whose own files are taken in the order of their names, or the name of a folder or an
        image that ships (see `shipped`). Hidden files, and files of other endings, are passed over.
      field: how messages call it.
      endings: of the files that are taken out of a folder, such as ".npz"; by default those of images.

    Returns:
      The files, each with a name of its own: its stem, with the ending where two have one stem.

    Raises:
      UserError: there is no such file or folder, or nothing in it; or two files would have one name even so.
    """
    said = f"{field}={files.spelled(source, field)!r}"
    expected = "expected a file or a folder of images" if endings is None else "expected a file"
    names = "" if endings else f", or one of {', '.join(sorted(shipped()))}"
    if not source:
        raise UserError(f"{field} is empty; {expected}{names}")
    files.check_local(source, said)
    path = shipped().get(source) or files.expand(source)
    try:
        if path.is_file():
            return [Item(path.stem, path)]
        if not path.is_dir():
            raise UserError(f"{said} does not exist; {expected}{names}")
        if endings is None:
            endings = {*Image.registered_extensions(), *UNREADABLE}
        found = sorted(
            x
            for x in path.iterdir()
            if x.is_file() and not x.name.startswith(".") and x.suffix.lower() in endings
        )
    except OSError as error:
        raise UserError(f"{said} cannot be read: {error.strerror}") from error
    if not found:
        inner = path / field  # of a run, whose workdir was meant to be enough
        meant = f"; {field}={str(inner)!r} may be meant" if inner.is_dir() else ""
        raise UserError(f"{said} is a folder without files of such a kind; {expected}{meant}")
    stems = [x.stem.casefold() for x in found]  # as file systems compare that ignore case
    names = [
        x.stem if stems.count(x.stem.casefold()) == 1 else f"{x.stem}_{x.suffix[1:]}" for x in found
    ]
    held: dict[str, Path] = {}
    for name, x in zip(names, found, strict=True):
        if (other := held.setdefault(name.casefold(), x)) != x:
            raise UserError(
                f"{said} has {other.name!r} and {x.name!r}, whose results would both be called {name!r}; rename one of "
                "them"
            )
    return [Item(name, x) for name, x in zip(names, found, strict=True)]
