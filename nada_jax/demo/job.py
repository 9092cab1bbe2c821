"""One piece of work of a visitor of the page."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


class Cancelled(Exception):
    """A job is to end: its visitor, its time or the end of the server asks for it."""


class Job:
    """One piece of work of one visitor. Its function gets it, reports by it, and puts its files into `directory`.

    Attributes:
      id: random, unique.
      visitor: whose it is.
      tab: of the page.
      lane: "train", "draw" or "work".
      title: what it is, for people.
      state: "waiting", "running", "done", "failed" or "cancelled".
      fraction: done, 0..1.
      note: what it does now, for people.
      error: what the visitor is told where it failed.
      result: what the function returned.
      partial: what it published last, while it runs.
      directory: results/VISITOR/ID; made before the function is called.
      version: grows with each change that can be seen, so that followers need to compare nothing else.
      seconds: that it has run, until now or until its end.
    """

    def __init__(
        self, visitor: str, tab: str, lane: str, title: str, directory: Path, limit: float
    ):
        self.id = directory.name
        self.visitor, self.tab, self.lane, self.title = visitor, tab, lane, title
        self.directory = directory
        self.state, self.fraction, self.note, self.error = WAITING, 0.0, "", ""
        self.result: Any = None
        self.partial: Any = None
        self.version = 0
        self.made = time.time()
        self._limit = limit  # seconds
        self._ahead: Callable[[Job], int] = lambda _: 0
        self._began = self._ended = 0.0
        self._stop = threading.Event()

    @property
    def place(self) -> int:
        """Jobs before it in its lane; 0: it runs, is next, or has ended."""
        return self._ahead(self) if self.state == WAITING else 0

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def stopping(self) -> bool:
        """Whether it runs and has been asked to end."""
        return self.state == RUNNING and self._stop.is_set()

    @property
    def seconds(self) -> float:
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    def check(self) -> None:
        """Raises Cancelled where the job is to end."""
        if self._stop.is_set() or self.seconds > self._limit:
            raise Cancelled

    def report(self, fraction: float, note: str, partial: Any = None) -> None:
        """Says how far the work is; to be called at every step.

        Args:
          fraction: done, 0..1.
          note: what is done now, a few words.
          partial: what can be shown already; None leaves what was published before.

        Raises:
          Cancelled: the job is to end. The function lets it pass.
        """
        self.check()
        self.fraction, self.note = min(max(float(fraction), 0.0), 1.0), note
        if partial is not None:
            self.partial = partial
        self.version += 1

    def wait(self, seconds: float) -> None:
        """Sleeps, but not beyond the moment at which the job is to end; raises Cancelled then."""
        self._stop.wait(seconds)
        self.check()
