"""What a run is at work on, as a file by which it continues after a signal or a crash."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.runs.per_image import ImageRun
from nada_jax.runs.signals import EXIT, Signals

SNAPSHOT = "unfinished.safetensors"  # in the workdir
SECONDS = 30  # between snapshots: writing one takes about a second for an image of 1024 pixels


class _Interrupted(Exception):
    """A signal ended the block after a snapshot."""


class Snapshots:
    """Keeps the unfinished work of a run, and ends its block after a signal.

    Within the block, `keep` is called after every few steps. Where a signal has come, it writes a snapshot and leaves the
    block, whose end swallows what it was left by: `code` tells the task.

    Args:
      run: has the snapshot in its workdir.
    """

    def __init__(self, run: ImageRun):
        self.code = 0  # the exit code where a signal ended the block
        self._run, self._signals = run, Signals()
        self._saved = 0.0  # when, by time.monotonic

    def __enter__(self) -> "Snapshots":
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._signals.__exit__(kind, error, trace)
        if not isinstance(error, _Interrupted):
            return False
        print("stopped; the same command continues there", flush=True)
        return True

    def read(self, work: str) -> dict[str, np.ndarray]:
        """The arrays of the snapshot of this work; {} where there is none, or it is damaged. It may hold anything."""
        self._saved = time.monotonic()
        path = self._run.path(SNAPSHOT)
        if self._run.config.overwrite or not path.is_file():
            return {}
        try:
            arrays, metadata = files.read_safetensors(path)
        except UserError:
            return {}
        return arrays if metadata.get("work") == work else {}

    def keep(self, work: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Writes a snapshot if one is due.

        Args:
          work: what it belongs to, which `read` has to be given.
          make: gives its arrays.
        """
        ended = self._signals.agreed(True)
        if ended or time.monotonic() - self._saved > SECONDS:
            arrays = make()
            self._run.write(
                SNAPSHOT, lambda path: files.write_safetensors(path, arrays, {"work": work})
            )
            self._saved = time.monotonic()
        if ended:
            self.code = EXIT + ended
            raise _Interrupted

    def delete(self) -> None:
        """Deletes the snapshot: its work is done."""
        self._run.delete([self._run.path(SNAPSHOT)])
