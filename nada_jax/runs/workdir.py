"""The directory of a run: who may write there, and every file that is written, by process 0 alone."""

import functools
import json
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Self

import jax
import numpy as np
from ml_collections import ConfigDict

from nada_jax import files, images, trees
from nada_jax.devices import processes
from nada_jax.errors import UserError, some
from nada_jax.runs import metrics
from nada_jax.runs.lock import Lock


class Run:
    """Owns a workdir within a `with` block: until its end, no other run can write there.

    Making it does nothing. The block begins with the lock and, under it, a look at what stands in the workdir; `begin`
    is the first to write. A workdir that was made for the block and is empty in the end is removed.

    Args:
      config: the whole config, which is written to config.json and held against that of an earlier run.
      workdir: where the results go, on a file system that all processes share.
      results: patterns of the files and folders that the run writes, beside config.json.
      free: top-level fields that may differ from those of an earlier run; by default all but `task`.
      remedy: ends the message about another run.

    Raises:
      UserError: at the start of the block: another run is at work in the workdir, or stands there, and the message
        names every field that differs; or files like `results` stand there that are of no run.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        *,
        results: Collection[str] = (),
        free: Collection[str] | None = None,
        remedy: str = "give another --workdir",
    ):
        self.config, self.directory, self.results = config, files.expand(workdir), results
        self.free = set(config) - {"task"} if free is None else set(free)
        self.remedy = remedy
        self._lock = Lock(self.directory)

    def __enter__(self) -> Self:
        try:
            processes.alone(self._lock.take)
            # Each process looks for itself, and all refuse if one does: their file systems may differ.
            processes.together(self.refuse_other)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._lock.release()

    @property
    def earlier(self) -> dict[str, Any] | None:
        """The config of the run that stands in the workdir, by flat field; None where there is none.

        Raises:
          UserError: config.json is damaged, or not that of a run.
        """
        file = self.path("config.json")
        if not os.path.lexists(file):
            return None
        if not file.is_file():  # a directory, which nothing may delete
            raise UserError(f"{file} is not a file; give another --workdir")
        try:
            found = trees.flatten(files.read_json(file))
        except UserError as error:
            raise UserError(f"{error}; give another --workdir") from error
        if "task" not in found:  # that of a model from elsewhere, for example
            raise UserError(f"{file} is not the config of a run; give another --workdir")
        return found

    def refuse_other(self) -> None:
        """Makes sure that the run in the workdir, if any, is the one that is configured, and that this can write."""
        self._refuse_kinds()
        if (theirs := self.earlier) is None:
            if strangers := [str(path.relative_to(self.directory)) for path in self.written()]:
                raise UserError(
                    f"{self.directory} has files that the run would replace ({some(strangers, 3)}), and no config.json "
                    "of a run that wrote them; give another --workdir"
                )
            return
        if theirs["task"] != self.config.task:
            raise UserError(
                f"{self.directory} holds a run with other settings (task was {theirs['task']!r} and is "
                f"{self.config.task!r}); give another --workdir"
            )
        # Through JSON, which turns tuples into lists, as the file has them.
        ours = trees.flatten(json.loads(files.to_json(self.config.to_dict())))
        # `overwrite` deletes on the word of this file, and `task` alone may stand in that of another program. More than
        # half of the fields, rather than all: another version may have had a few more or less.
        top = {field.split(".")[0] for field in ours}
        if 2 * len(top & {field.split(".")[0] for field in theirs}) <= len(top):
            raise UserError(
                f"{self.path('config.json')} is not the config of a run: it lacks most fields of the task "
                f"{self.config.task!r}; give another --workdir"
            )
        differ = [
            f"{field} was {theirs.get(field)!r} and is {ours.get(field)!r}"
            for field in sorted(ours.keys() | theirs.keys())
            if field.split(".")[0] not in self.free and ours.get(field) != theirs.get(field)
        ]
        if differ:
            raise UserError(
                f"{self.directory} holds a run with other settings ({'; '.join(differ)}); {self.remedy}"
            )

    def _refuse_kinds(self) -> None:
        """Refuses a file where the run needs a directory, and a directory where it writes a file."""
        for parent in {parent for name in self.results for parent in PurePath(name).parents}:
            if os.path.lexists(path := self.path(parent)) and not path.is_dir():
                raise UserError(f"{path} is a file; expected a directory, or another --workdir")
        # A name without suffix is a directory, as of a checkpoint.
        singles = (
            x for name in self.results if PurePath(name).suffix for x in self.directory.glob(name)
        )
        for path in singles:
            if path.is_dir():
                raise UserError(f"{path} is a directory; expected a file, or another --workdir")

    def written(self) -> list[Path]:
        """What stands in the workdir of all that the run writes, but for config.json."""
        return [path for name in self.results for path in sorted(self.directory.glob(name))]

    def delete(self, paths: Iterable[Path]) -> None:
        """Deletes files and folders of an earlier run, on process 0 alone."""
        processes.alone(self._guarded, _delete, paths)

    def delete_earlier(self) -> None:
        """Deletes all that an earlier run has written, and says so."""
        # In this order: on other processes, the file may be gone by now.
        if jax.process_index() == 0 and self.earlier is not None:
            print(f"overwrite: the earlier run in {self.directory} is deleted", flush=True)
        # config.json goes last: without it, what is left by a run killed here would be of no run.
        self.delete([*self.earlier_results(), self.path("config.json")])

    def earlier_results(self) -> list[Path]:
        """What an earlier run has written, but for config.json."""
        return self.written()

    def begin(self) -> None:
        """Writes config.json: from now on the workdir is this run's."""
        self.write_json("config.json", self.config.to_dict())

    def path(self, name: str) -> Path:
        """Where a file of the run stands."""
        return self.directory / name

    def write(self, name: str, write: Callable[[Path], None]) -> Path:
        """Calls write(path) on process 0; where it fails, it fails on all. Returns the path.

        Raises:
          UserError: the workdir was deleted, or is that of another run by now.
        """
        path = self.path(name)
        processes.alone(self._guarded, write, path)
        return path

    def check(self) -> None:
        """Makes sure that the workdir is still that of the run, before something is written other than by `write`."""
        processes.alone(self._lock.check)

    def _guarded(self, function: Callable[..., None], *args: Any) -> None:
        self._lock.check()
        function(*args)

    def draw(self, name: str, draw: Callable[[Path], None]) -> Path | None:
        """As `write`, for an image beside the results: one that fails costs a warning, not the run; None then."""
        drawn = []

        def attempt(path: Path) -> None:
            try:
                draw(path)
                drawn.append(path)
            except Exception as error:  # whatever a library of plots meets in the texts of users
                warnings.warn(f"{name} is not drawn: {error}", stacklevel=2)

        path = self.write(name, attempt)
        return path if drawn else None

    def write_text(self, name: str, text: str) -> Path:
        """Writes text."""
        return self.write(name, functools.partial(files.write_text, text=text))

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a value as indented JSON."""
        return self.write_text(name, files.to_json(value, indent=2) + "\n")

    def write_images(self, name: str, batch: np.ndarray, columns: int) -> Path:
        """Writes images [n, h, w, 3] in [-1, 1] as one grid."""
        return self.write(name, functools.partial(images.save_grid, batch, columns))

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes metrics.jsonl anew."""
        self.write("metrics.jsonl", lambda path: metrics.write(path, rows))

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines to metrics.jsonl."""
        self.write("metrics.jsonl", lambda path: metrics.append(path, rows))


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        with files.writing(path):
            # A link goes, and not what it leads to.
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
