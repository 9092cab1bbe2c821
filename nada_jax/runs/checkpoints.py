"""Checkpoints of the whole state, by orbax: each is written under a temporary name and renamed.

Several processes write one checkpoint together, into a directory that all of them see. It may be read by another
number of devices and processes.
"""

import functools
import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nada_jax.devices import processes
from nada_jax.errors import UserError

# Orbax reports every save in several lines, and what its threads raise, which it raises here, too, in hundreds.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: made where it is missing.
      keep: how many of the newest stay.
    """

    def __init__(self, directory: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        try:
            processes.alone(functools.partial(directory.mkdir, parents=True, exist_ok=True))
            self._manager = ocp.CheckpointManager(directory.resolve(), options=options)
        except OSError as error:
            raise UserError(f"cannot write {directory}: {error.strerror}") from error
        self.directory = directory
        self._failing: int | None = None  # the step whose checkpoint could not be written

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step stands."""
        return self.directory / str(step)

    def save(self, step: int, tree: Any) -> None:
        """Writes a checkpoint and returns when it is whole on disk.

        Raises:
          UserError: it cannot be written; nothing is left of it.
        """
        if step == self.latest():  # orbax refuses to write a step twice
            return
        hook = sys.unraisablehook
        sys.unraisablehook = functools.partial(_pass_over_late_writes, hook)
        try:
            self._manager.save(step, args=ocp.args.StandardSave(_named(tree)))
            # Orbax writes in the background; the step that follows donates the memory of this state.
            self._manager.wait_until_finished()
            sys.unraisablehook = hook  # after a failure the reports go on for a while
        except jax.errors.JaxRuntimeError:  # of the device, which the state is read from
            raise
        except Exception as error:  # of orbax and of what it builds on; they have no common class
            self._failing = step
            self._clean()
            # What was being written in the background fails for a while, and is reported line by line.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise UserError(
                f"cannot write checkpoint {self.path(step)}: {_reason(error)}"
            ) from error

    def restore(self, step: int, like: Any) -> Any:
        """Reads a checkpoint.

        Args:
          step: which one.
          like: a tree of arrays with the structure, shapes and dtypes that are expected.

        Returns:
          A tree like `like`, whose arrays lie on the devices as those of `like` do.

        Raises:
          UserError: it was written by another recipe, or is damaged.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _named(like))
        try:
            named = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # of orbax and of what it builds on; they have no common class
            raise UserError(
                f"checkpoint {self.path(step)} does not fit this run or is damaged "
                f"({type(error).__name__}); delete it, or use another --workdir"
            ) from error
        leaves = [named[name] for name in _named(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        """Ends orbax's background threads."""
        try:
            self._manager.close()
        except Exception:
            if self._failing is None:  # or it is the failure that was told already
                raise
        self._clean()

    def _clean(self) -> None:
        """Removes what is left of a checkpoint that could not be written."""
        if self._failing is not None and jax.process_index() == 0:
            for temporary in self.directory.glob(f"{self._failing}.*"):
                shutil.rmtree(temporary, ignore_errors=True)


def _pass_over_late_writes(hook: Any, unraisable: Any) -> None:
    """Where one array cannot be written, tensorstore reports all others to a loop that orbax has closed by then."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


def _reason(error: Exception) -> str:
    """Why something could not be written: the words of the system, where it is behind it."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):  # as tensorstore reports it
        return os.strerror(int(code[1]))
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their path: what is on disk does not depend on the classes that hold them."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        if isinstance(leaf, jax.Array)
        else np.asarray(leaf)
        for path, leaf in paths
    }
