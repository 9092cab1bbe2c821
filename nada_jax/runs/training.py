"""A run of many steps: one owner of metrics, progress, checkpoints, signals and the end."""

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from nada_jax.errors import UserError
from nada_jax.runs import metrics
from nada_jax.runs.checkpoints import Checkpoints
from nada_jax.runs.lock import Lost
from nada_jax.runs.progress import Progress
from nada_jax.runs.signals import EXIT, Signals
from nada_jax.runs.workdir import Run
from nada_jax.settings import Count, Section

# Metrics that have to be finite, and how messages call them.
FINITE = {"loss": "loss", "norm": "norm of the parameters"}


class Schedule(Section):
    """When a run of many steps does what; the fields stand at the top of its config."""

    steps: Count
    log_every: Count
    checkpoint_every: Count
    sample_every: Count
    resume: bool
    overwrite: bool


def every(step: int, n: int) -> bool:
    """Whether something that happens every n steps happens after this one; with n = 0 it never does."""
    return n > 0 and step % n == 0


class TrainingRun(Run):
    """A run of many steps; see `steps` for the loop that it serves, which belongs into the block of `signals`.

    Args:
      config, workdir, free: see `Run`.
      schedule: when what is done.
      results: see `Run`; `overwrite` deletes these and nothing else, where an earlier run has written them.
      intervals: further numbers of steps after which metrics are needed on the host.

    Raises:
      UserError: as `Run`; or the run stands there already and `resume` is False.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        schedule: Schedule,
        *,
        free: Collection[str],
        results: Collection[str],
        intervals: Iterable[int] = (),
    ):
        self.schedule = schedule
        own = schedule.log_every, schedule.checkpoint_every, schedule.sample_every
        self.intervals = (*own, *intervals)
        self.step = 0  # the last one that was begun
        self.first = 1  # the first one of this process, which compiles
        # Metrics of all steps, those of earlier parts included.
        self.rows: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}  # what the rows of all further steps say besides
        self.reason = ""  # why the run ends before its last step
        self.interrupted = 0  # the signal that ended it
        self.signals = Signals()
        self.checkpoints: Checkpoints | None = None
        self.progress: Progress | None = None
        # Steps whose metrics are still on the device: number, metrics, notes.
        self._pending: list[tuple[int, Any, dict[str, Any]]] = []
        self._unwritten: list[dict[str, Any]] = []
        self._clock = 0.0
        remedy = "give another --workdir, or --config.overwrite=True to delete that run"
        if schedule.overwrite:  # any run of the same task may stand there
            free = set(config) - {"task"}
        super().__init__(config, workdir, results=results, free=free, remedy=remedy)

    def refuse_other(self) -> None:
        """As `Run`, and without `resume` or `overwrite` there must be no run."""
        overwrite, resume = self.schedule.overwrite, self.schedule.resume
        if not overwrite and not resume and self.earlier is not None:
            raise UserError(
                f"resume is False, but {self.directory} holds a run already; {self.remedy}"
            )
        super().refuse_other()

    def begin_from(self, tree: Any) -> Any:
        """Begins the run, or continues it from its last checkpoint.

        Args:
          tree: what checkpoints hold, as before the first step; it has an integer `step`.

        Returns:
          The tree, or that of the last checkpoint.

        Raises:
          UserError: the checkpoint does not fit, or is beyond the last step.
        """
        if self.schedule.overwrite:
            self.delete_earlier()
        # After the deletion above: orbax lists the checkpoints when it is made.
        self.checkpoints = Checkpoints(self.path("checkpoints"))
        if (last := self.checkpoints.latest()) is not None:
            tree, self.step = self.checkpoints.restore(last, tree), last
        total = self.schedule.steps
        if self.step > total:
            raise UserError(
                f"steps is {total}, but {self.directory} holds a run of {self.step} steps; give as many or more, or "
                f"{self.remedy.removeprefix('give ')}"
            )
        self.begin()
        # A killed run may have written metrics beyond its last checkpoint; these steps are done again.
        earlier = metrics.read(self.path("metrics.jsonl"), "step", "loss")
        self.rows = [row for row in earlier if row["step"] <= self.step]
        self.write_metrics(self.rows)
        self.first = self.step + 1
        silent = jax.process_index() > 0
        self.progress = Progress(total, self.step, self.schedule.log_every, silent)
        return tree

    def __exit__(self, *error) -> None:
        """Leaves the terminal and the threads of checkpoints as they were, then the workdir."""
        try:
            for part in (self.checkpoints, self.progress):
                if part is not None:
                    part.__exit__(*error)
        finally:
            super().__exit__(*error)

    def say(self, line: str) -> None:
        """Prints a line, on process 0 alone, without breaking the bar."""
        self.progress.say(line)

    @property
    def finished(self) -> bool:
        """Whether the step that runs is the last one by plan, or by `finish`."""
        return self.step >= self.schedule.steps or bool(self.reason)

    def steps(self) -> Iterator[int]:
        """The numbers of the steps to be done, until the run is finished or interrupted.

        The body of the loop calls the step, `record`, and then what is `due`.
        """
        while not (self.finished or self.interrupted):
            # Steps are dispatched without waiting, so that only whole batches of them can be timed.
            if not self._pending:
                self._clock = time.perf_counter()
            self.step += 1
            yield self.step
            self._write_rows()

    def record(self, values: Any) -> None:
        """Takes the metrics of a step: scalars, or bool [n] for a choice out of n.

        They are fetched from the device when something needs them, so that the host does not wait for every step.

        Raises:
          UserError: one of `FINITE` is not finite; the rows of the steps before are written.
        """
        self._pending.append((self.step, values, dict(self.notes)))
        # The first step compiles, which the time of no other one should hold; and a loss may be wrong from the start.
        meeting = self.step == self.first or self.finished
        meeting |= any(every(self.step, n) for n in self.intervals)
        self.interrupted = self.signals.agreed(meeting)
        if meeting or self.interrupted:
            self._fetch()

    def note(self, **values: Any) -> None:
        """Adds to the row of the step whose metrics were fetched last."""
        self.rows[-1] |= values

    def finish(self, reason: str) -> None:
        """Makes this step the last one, for a reason in words; "" is none."""
        self.reason = reason

    def due(self, n: int) -> bool:
        """Whether what is done every n steps, and after the last one, is to be done now."""
        return self.finished or every(self.step, n)

    def save(self, tree: Any) -> None:
        """Writes a checkpoint, and the metrics up to it."""
        # Metrics first: a run that is killed in between then has all rows up to its last checkpoint.
        self._write_rows()
        self.check()
        with self._naming_checkpoint():
            self.checkpoints.save(self.step, tree)

    def write(self, name: str, write: Callable[[Path], None]) -> Path:
        """As `Run`; where it fails, the message names the last good checkpoint."""
        with self._naming_checkpoint():
            return super().write(name, write)

    def exit_code(self) -> int:
        """Says how the loop ended, if not as planned; 0, or that of the signal that interrupted it."""
        if self.interrupted:
            overwriting = self.schedule.overwrite
            # With `overwrite` the same command would delete what it has just saved.
            without = " with --config.overwrite=False" if overwriting else ""
            self.say(
                f"stopped at step {self.step} with a checkpoint; the same command{without} continues there"
            )
            return EXIT + self.interrupted
        if self.reason:
            self.say(f"finished after step {self.step}: {self.reason}")
        return 0

    @contextlib.contextmanager
    def _naming_checkpoint(self) -> Iterator[None]:
        """Where writing fails, the message says where the run can continue."""
        try:
            yield
        except Lost:  # with its checkpoints
            raise
        except (UserError, OSError) as error:
            raise UserError(f"{error}; {self._last_checkpoint()}") from error

    def _last_checkpoint(self) -> str:
        last = None if self.checkpoints is None else self.checkpoints.latest()
        left = "there is none yet" if last is None else str(self.checkpoints.path(last))
        return f"last good checkpoint: {left}"

    def _fetch(self) -> None:
        """Waits for the metrics of the pending steps and makes rows of them."""
        values = jax.device_get([values for _, values, _ in self._pending])
        ms = (time.perf_counter() - self._clock) * 1000 / len(values)
        for (step, _, notes), row in zip(self._pending, values, strict=True):
            numbers = {name: _plain(value) for name, value in row.items()}
            row = {"step": step} | numbers | notes | {"ms": round(ms, 2)}
            # Rows before the wrong one are kept, and it is not written: no later checkpoint holds its step.
            if wrong := [name for name in FINITE if not math.isfinite(row[name])]:
                self._write_rows()
                self._refuse(row, wrong[0])
            self.rows.append(row)
            self._unwritten.append(row)
        self.progress.advance(len(values), row["loss"], row["ms"])
        self._pending = []

    def _refuse(self, row: dict[str, Any], name: str) -> None:
        # With another rate it is another run, which the workdir of this one would refuse.
        raise UserError(
            f"the {FINITE[name]} is {row[name]} at step {row['step']}; {self._last_checkpoint()}; a smaller "
            f"optimizer.lr, or precision=float32, may help, as a run of its own: {self.remedy}"
        )

    def _write_rows(self) -> None:
        if self._unwritten:
            self.append_metrics(self._unwritten)
            self._unwritten = []


def _plain(value: np.ndarray) -> float | list[int]:
    """A scalar as a number, a choice as the indices that it names."""
    return np.flatnonzero(value).tolist() if value.ndim else float(value)
