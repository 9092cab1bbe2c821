"""A run over images of the user, each with results of its own: one that is bad does not end the others."""

import functools
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.runs import metrics
from nada_jax.runs.items import Item
from nada_jax.runs.workdir import Run


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
        held: dict[str, Item] = {}
        for item in items:  # as file systems compare that ignore case
            if (other := held.setdefault(item.name.casefold(), item)) != item:
                raise UserError(
                    f"two results would be called {item.name!r}, of {other.path} and of {item.path}; rename one of them"
                )
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
        return [] if self.config.overwrite else self._listed()

    def _listed(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; UserError where one lists no files, as only a change by hand leaves it."""
        path = self.path("metrics.jsonl")
        rows = metrics.read(path)
        for row in rows:
            for field in ("files", "older"):
                found = row.get(field, [])
                if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
                    raise UserError(
                        f"{path}: {row.get('image')!r} has {field}={found!r}; expected a list of names of files"
                    )
        return rows

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
            if taken := [path for path in item.sources if path.resolve() in results]:
                raise UserError(
                    f"{taken[0]} is among the results of the run in {self.directory}; give another --workdir"
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
            for row in self._listed()
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
