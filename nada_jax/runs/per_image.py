"""A run over images of the user, each with results of its own: one that is bad does not end the others."""

import dataclasses
import hashlib
import json
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

EXAMPLES = {name: ASSETS / name for name in ("avatars", "faces")}  # folders that ship, by name
# What Pillow cannot read but people have: to pass these over would look as if they were done.
UNREADABLE = (".heic", ".heif", ".raw", ".dng", ".cr2", ".nef", ".arw", ".jxl")


@dataclasses.dataclass(frozen=True)
class Item:
    """One of the things that a run works through.

    Attributes:
      name: of its results.
      path: its file; None for what is drawn from a seed.
    """

    name: str
    path: Path | None = None

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
      UserError: there is no such file or folder, or nothing in it.
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
        raise UserError(f"{said} is a folder without files of such a kind; {expected}")
    stems = [x.stem.casefold() for x in found]  # as file systems compare that ignore case
    names = [
        x.stem if stems.count(x.stem.casefold()) == 1 else f"{x.stem}_{x.suffix[1:]}" for x in found
    ]
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

    @property
    def earlier_rows(self) -> list[dict[str, Any]]:
        """Metrics of items that are finished, of earlier runs and of this one."""
        if self.config.overwrite and not self._begun:
            return []
        return metrics.read(self.path("metrics.jsonl"))

    def todo(self, facts: Mapping[str, Any] | None = None) -> list[Item]:
        """The items whose results do not stand in the workdir; says how many do.

        Args:
          facts: of metrics.jsonl, which the line of an item has to have for it to be done: settings among `free`.
        """
        # Through JSON, which turns tuples into lists, as the file has them.
        wanted = json.loads(files.to_json(dict(facts or {})))
        done = {
            (row.get("image"), row.get("sha256"))
            for row in self.earlier_rows
            if all(self.path(name).is_file() for name in row.get("files", []))
            and wanted.items() <= row.items()
        }
        rest = [x for x in self.items if not self._is_done(x, done)]
        if len(rest) < len(self.items):
            print(
                f"{len(self.items) - len(rest)} of {len(self.items)} are done already", flush=True
            )
        return rest

    def _is_done(self, item: Item, done: set[tuple[Any, Any]]) -> bool:
        if item.name not in {name for name, _ in done}:
            return False
        try:
            return (item.name, item.digest) in done
        except UserError:  # it is tried, and skipped with a sentence
            return False

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
        names = [str(path.relative_to(self.directory)) for path in written]
        row |= {"sha256": item.digest} | dict(figures) | {"files": names}
        kept = [x for x in self.earlier_rows if x.get("image") != item.name]
        self.write_metrics([*kept, row])
        self.finished.append(item.name)

    def skip(self, item: Item, error: UserError) -> None:
        """Names an item that cannot be done; raises the error where it is the only one."""
        if len(self.items) == 1:
            raise error
        self.skipped.append(item.name)
        print(f"skipped {item.name}: {error}", file=sys.stderr, flush=True)

    def read_all(
        self, items: Sequence[Item], read: Callable[[Item], Any]
    ) -> Iterator[tuple[Item, Any]]:
        """Reads items one by one, and skips those that are bad."""
        for item in items:
            try:
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
