"""The directory of a run: who may write there, and every file that is written, by process 0 alone."""

import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from nada_jax import files, images, trees
from nada_jax.devices import processes
from nada_jax.errors import UserError
from nada_jax.runs import metrics


class Run:
    """Owns a workdir. Making it writes nothing; `begin` is the first to write.

    Args:
      config: the whole config, which is written to config.json and held against that of an earlier run.
      workdir: where the results go, on a file system that all processes share.
      free: top-level fields that may differ from those of an earlier run; by default all but `task`.
      remedy: ends the message about another run.

    Raises:
      UserError: another run stands in the workdir; the message names every field that differs.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        *,
        free: Collection[str] | None = None,
        remedy: str = "give another --workdir",
    ):
        self.config, self.directory = config, Path(workdir)
        self.free = set(config) - {"task"} if free is None else set(free)
        self.remedy = remedy
        # Each process looks for itself, and all refuse if one does: their file systems may differ.
        processes.together(self.refuse_other)

    @property
    def earlier(self) -> dict[str, Any] | None:
        """The config of the run that stands in the workdir, by flat field; None where there is none.

        Raises:
          UserError: config.json is damaged.
        """
        file = self.path("config.json")
        if not file.is_file():
            return None
        try:
            return trees.flatten(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:
            raise UserError(f"{file} is not a config ({error}); give another --workdir") from error

    def refuse_other(self) -> None:
        """Makes sure that the run in the workdir, if any, is the one that is configured."""
        if (theirs := self.earlier) is None:
            return
        # Through JSON, which turns tuples into lists, as the file has them.
        ours = trees.flatten(json.loads(self.config.to_json()))
        differ = [
            f"{field} was {theirs.get(field)!r} and is {ours.get(field)!r}"
            for field in sorted(ours.keys() | theirs.keys())
            if field.split(".")[0] not in self.free and ours.get(field) != theirs.get(field)
        ]
        if differ:
            raise UserError(
                f"{self.directory} holds a run with other settings ({'; '.join(differ)}); {self.remedy}"
            )

    def begin(self) -> None:
        """Writes config.json: from now on the workdir is this run's."""
        self.write_text("config.json", self.config.to_json(indent=2) + "\n")

    def path(self, name: str) -> Path:
        """Where a file of the run stands."""
        return self.directory / name

    def write(self, name: str, write: Callable[[Path], None]) -> Path:
        """Calls write(path) on process 0; where it fails, it fails on all. Returns the path."""
        path = self.path(name)
        processes.alone(write, path)
        return path

    def write_text(self, name: str, text: str) -> Path:
        """Writes text."""
        return self.write(name, functools.partial(files.write_text, text=text))

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a value as indented JSON."""
        return self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_images(self, name: str, batch: np.ndarray, columns: int) -> Path:
        """Writes images [n, h, w, 3] in [-1, 1] as one grid, large enough to be looked at."""
        sheet, enlarge = images.grid(batch, columns), images.enlargement(batch.shape[1])
        return self.write(name, lambda path: images.save(sheet, path, enlarge))

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes metrics.jsonl anew."""
        self.write("metrics.jsonl", lambda path: metrics.write(path, rows))

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines to metrics.jsonl."""
        self.write("metrics.jsonl", lambda path: metrics.append(path, rows))
