"""A run: what stands in its workdir, whether another may write there, and how it is asked to end."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from nada_jax import files, trees
from nada_jax.devices import sharding
from nada_jax.errors import UserError


def read_config(workdir: Path) -> dict[str, Any] | None:
    """The config of the run in a workdir by flat field, or None where there is no run.

    Raises:
      UserError: config.json is damaged.
    """
    file = workdir / "config.json"
    if not file.is_file():
        return None
    try:
        return trees.flatten(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a config ({error}); give another --workdir") from error


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Writes config.json."""
    files.write_text(workdir / "config.json", config.to_json(indent=2) + "\n")


def refuse_other(config: ConfigDict, workdir: Path, free: set[str], remedy: str) -> None:
    """Makes sure that the run in the workdir, if any, is the one that is configured.

    Args:
      free: top-level fields that may differ.
      remedy: ends the message.

    Raises:
      UserError: names every field that differs.
    """
    theirs = read_config(workdir)
    if theirs is None:
        return
    ours = trees.flatten(json.loads(config.to_json()))
    differ = [
        f"{field} was {theirs.get(field)!r} and is {ours.get(field)!r}"
        for field in sorted(ours.keys() | theirs.keys())
        if field.split(".")[0] not in free and ours.get(field) != theirs.get(field)
    ]
    if differ:
        raise UserError(
            f"{workdir} holds a run with other settings ({'; '.join(differ)}); {remedy}"
        )


class Stop:
    """Within the block, the first Ctrl-C or SIGTERM only asks the loop to end; a second one ends it."""

    def __init__(self):
        self.signal = 0
        self._former = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def agreed(self, look: bool) -> int:
        """The signal, or 0.

        Args:
          look: this step ends with a look at the results. Several processes ask each other only then, so
            that they stop at the same step.
        """
        if jax.process_count() == 1:
            return self.signal
        return sharding.largest(self.signal) if look else 0

    def _ask(self, number, _):
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
