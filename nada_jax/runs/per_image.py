"""A run over images of the user, each with results of its own: one that is bad does not end the others."""

import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from PIL import Image

from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.runs import metrics
from nada_jax.runs.workdir import Run
from nada_jax.weights.registry import ASSETS

EXAMPLES = {
    name: ASSETS / name for name in ("avatars", "faces", "contents", "styles")
}  # folders that ship, by name
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
    def digest(self) -> str:
        """Of the file's content, which tells whether an earlier result is that of this image."""
        if self.path is None:
            return ""
        with reading(self.path), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def listing(
    source: str, field: str = "images", endings: Collection[str] | None = None
) -> list[Item]:
    """The files that a field names.

    Args:
      source: a file, a folder, whose own files are taken in the order of their names, or the name of a folder that
        ships (`EXAMPLES`). Hidden files, and files of other endings, are passed over.
      field: how messages call it.
      endings: of the files that are taken out of a folder, such as ".npz"; by default those of images.

    Returns:
      The files, each with a name of its own: its stem, with the ending where two have one stem.

    Raises:
      UserError: there is no such file or folder, or nothing in it; or two files would have one name even so.
    """
    said = f"{field}={files.spelled(source, field)!r}"
    expected = "expected a file or a folder of images" if endings is None else "expected a file"
    if not source:
        raise UserError(f"{field} is empty; {expected}, or one of {', '.join(EXAMPLES)}")
    files.check_local(source, said)
    path = EXAMPLES.get(source) or files.expand(source)
    try:
        if path.is_file():
            return [Item(path.stem, path)]
        if not path.is_dir():
            raise UserError(f"{said} does not exist; {expected}")
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


class ImageRun(Run):
    """Owns the workdir of a run over many items; see `Run`, too.

    The workdir is taken by the first result: a run whose every item is bad leaves nothing behind. The same command
    again does what is missing.

    Args:
      config, workdir, results: see `Run`; `config.overwrite` deletes an earlier run.
      items: what there is to do.
      free: fields that may differ from those of an earlier run, whose results then stand beside the new ones.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        items: Sequence[Item],
        *,
        results: Collection[str],
        free: Collection[str] = ("images", "overwrite"),
    ):
        self.items = items
        self.skipped: list[str] = []
        self.finished: list[str] = []  # in this process
        self._begun = False
        super().__init__(
            config,
            workdir,
            results=("metrics.jsonl", *results),
            free=set(config) - {"task"} if config.overwrite else free,
            remedy="give another --workdir, or --config.overwrite=True to delete that run",
        )

    @functools.cached_property  # every item looks at them, and nobody else may write them now
    def earlier_rows(self) -> list[dict[str, Any]]:
        """Metrics of items that are finished, of earlier runs and of this one."""
        return [] if self.config.overwrite else metrics.read(self.path("metrics.jsonl"))

    def todo(self, facts: Mapping[str, Any] | None = None) -> list[Item]:
        """The items whose results do not stand in the workdir; says how many do.

        Args:
          facts: of metrics.jsonl, which the line of an item has to have for it to be done: settings among `free`.
        """
        # Through JSON, which turns tuples into lists, as the file has them.
        wanted = json.loads(files.to_json(dict(facts or {})))
        # For each item the digests of all its faces; None for one that is not whole, or made otherwise.
        done: dict[str, dict[str, str | None]] = {}
        for row in self.earlier_rows:
            whole = all(self.path(name).is_file() for name in row.get("files", []))
            digest = row.get("sha256") if whole and wanted.items() <= row.items() else None
            done.setdefault(row.get("face_of", row.get("image")), {})[row.get("image")] = digest
        rest = [x for x in self.items if not self._is_done(x, done.get(x.name, {}))]
        if len(rest) < len(self.items):
            print(
                f"{len(self.items) - len(rest)} of {len(self.items)} are done already", flush=True
            )
        return rest

    def _is_done(self, item: Item, digests: Mapping[str, str | None]) -> bool:
        """Whether all faces of an item, itself among them, were made of its content."""
        try:
            return item.name in digests and set(digests.values()) == {item.digest}
        except UserError:  # it is tried, and skipped with a sentence
            return False

    def refuse_other(self) -> None:
        """As `Run`; nor may the run read what it writes, which it would replace or delete."""
        super().refuse_other()
        results = {path.resolve() for path in self.written()}
        for item in self.items:
            if item.path is not None and item.path.resolve() in results:
                raise UserError(
                    f"{item.path} is among the results of the run in {self.directory}; give another --workdir"
                )

    def check_name(self, item: Item) -> None:
        """Makes sure that the results of an item, or of a further face of one, would replace those of no other image.

        Raises:
          UserError: its name is that of another image, of this run or in the workdir; or cannot be written.
        """
        if item.path is None:
            return
        try:
            str(item.path).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"the name of {item.path} is not UTF-8; rename it") from error
        name = item.name.casefold()  # as file systems compare that ignore case
        if item.face_of and name in {x.name.casefold() for x in self.items}:
            raise UserError(
                f"{item.path}: one of its faces would be {item.name}, which is another image; rename one of the two"
            )
        for row in self.earlier_rows:
            if str(row.get("image")).casefold() != name or row.get("file") is None:
                continue
            same = os.path.realpath(row["file"]) == os.path.realpath(item.path)
            if not same and row.get("sha256") != item.digest:
                raise UserError(
                    f"{item.path}: {self.directory} has results called {row['image']} of {row['file']}; give another "
                    "--workdir"
                )

    def earlier_results(self) -> list[Path]:
        """As `Run`, but of files with names of items those alone that metrics.jsonl lists: others are the user's."""
        listed = {
            self.path(name)
            for row in metrics.read(self.path("metrics.jsonl"))
            for name in (*row.get("files", []), *row.get("older", []))
        }
        pages = {self.path(name) for name in self.results}
        found = [path for path in self.written() if path in listed | pages]
        # The list itself goes last, so that a run killed here can be deleted by the next.
        return sorted(found, key=lambda path: path.name == "metrics.jsonl")

    def begin(self) -> None:
        """As `Run`; deletes an earlier run where the config says so."""
        if self.config.overwrite and self.earlier is not None:
            self.delete_earlier()
        self._begun = True
        super().begin()

    def write(self, name: str, write: Callable[[Path], None]) -> Path:
        """As `Run`; the first result begins the run."""
        if not self._begun:
            self.begin()
        return super().write(name, write)

    def finish(self, item: Item, written: Sequence[Path], figures: Mapping[str, Any]) -> None:
        """Counts an item as done, when all its results are written.

        Args:
          item: the item.
          written: its files, in the workdir.
          figures: for its line in metrics.jsonl, beside `image`, `file`, `sha256` and `files`.
        """
        row = {"image": item.name, "file": None if item.path is None else str(item.path)}
        if item.face_of:
            row["face_of"] = item.face_of
        names = [str(path.relative_to(self.directory)) for path in written]
        row |= {"sha256": item.digest} | dict(figures) | {"files": names}
        row = json.loads(json.dumps(row))  # as the file has it
        kept, gone = [], set()
        for x in self.earlier_rows:
            others = {*x.get("files", []), *x.get("older", [])} - set(names)
            ours, same = x.get("image") == item.name, x.get("sha256") == row["sha256"]
            if not ours and (same or x.get("face_of") != item.name):
                kept.append(x)
            elif (
                not same
            ):  # of the image that stood there before; also faces that only that one had
                gone |= others
            elif others:  # of other domains: they stay, and `overwrite` has to know them
                row["older"] = sorted(others)
        rows = [*kept, row]
        self.write_metrics(rows)
        self.earlier_rows = rows
        if gone:
            gone = set(map(self.path, gone))
            self.delete([path for path in self.written() if path in gone])
        self.finished.append(item.name)

    def skip(self, item: Item, error: UserError) -> None:
        """Names an item that cannot be done; raises the error where it is the only one."""
        if len(self.items) == 1:
            raise error
        name = item.name.encode(errors="replace").decode()  # a stream may take UTF-8 alone
        self.skipped.append(name)
        print(f"skipped {name}: {error}", file=sys.stderr, flush=True)

    def read_all(
        self, items: Sequence[Item], read: Callable[[Item], Any]
    ) -> Iterator[tuple[Item, Any]]:
        """Reads items one by one, and skips those that are bad, or whose names are taken."""
        for item in items:
            try:
                self.check_name(item)
                value = read(item)
            except UserError as error:
                self.skip(item, error)
                continue
            yield item, value

    def exit_code(self) -> int:
        """0, or 2 where items were skipped, and says how many."""
        if self.skipped:
            print(
                f"error: {len(self.skipped)} of {len(self.items)} could not be done "
                f"({', '.join(self.skipped[:5])}{', ...' * (len(self.skipped) > 5)}); the others are finished",
                file=sys.stderr,
                flush=True,
            )
        return 2 if self.skipped else 0
