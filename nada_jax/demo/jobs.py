"""Pieces of work of the page's visitors: in lanes, one after another, bounded, and cancelled by a flag of their own.

A job outlives the request that began it: the page may be reloaded, and asks for it again.
"""

import contextlib
import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nada_jax.demo.job import CANCELLED, DONE, FAILED, RUNNING, WAITING, Cancelled, Job
from nada_jax.errors import UserError, is_out_of_memory

LANES = ("train", "draw", "work")  # a training; seconds; minutes. Each has a thread of its own.
REMEMBERED = 1000  # jobs that are known at once, so that the memory is bounded whoever comes
EVERY = 60.0  # seconds between looks at what is too old
UPLOAD = "upload-"  # begins the name of a folder that holds no job, but what a visitor sent
UPLOADS = (
    0.25  # share of the disk's bound that these may take, so that they push nobody's results out
)
LOG = logging.getLogger(__name__)


class Jobs:
    """All jobs of the page.

    Args:
      directory: under which each visitor has a folder, and in it each job.
      each: jobs of one visitor that wait or run, at most.
      waiting: jobs of all that wait or run, at most.
      minutes: that a job may run.
      hours: after which what a job left is deleted.
      megabytes: of all files under `directory`; beyond, the oldest go.
    """

    def __init__(
        self,
        directory: Path,
        *,
        each: int = 4,
        waiting: int = 40,
        minutes: float = 20.0,
        hours: float = 24.0,
        megabytes: float = 2000.0,
    ):
        self.directory = directory
        self.each, self.waiting, self.minutes = each, waiting, minutes
        self.hours, self.megabytes = hours, megabytes
        self._jobs: dict[str, Job] = {}
        self._functions: dict[str, Callable[[Job], Any]] = {}  # of those that wait
        self._lanes: dict[str, list[Job]] = {lane: [] for lane in LANES}  # that wait, in order
        self._changed = threading.Condition()
        self._closed, self._untidy, self._grown = threading.Event(), threading.Event(), 0.0
        work = [(self._work, (lane,)) for lane in LANES] + [(self._keep_tidy, ())]
        self._threads = [
            threading.Thread(target=target, args=args, daemon=True) for target, args in work
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, visitor: str, tab: str, lane: str, title: str, function: Callable[[Job], Any]
    ) -> Job:
        """Puts a piece of work at the end of a lane.

        Args:
          visitor: whose it is.
          tab: of the page.
          lane: one of `LANES`.
          title: what it is, for people.
          function: is called with the job in the lane's thread; its answer becomes `result`. A UserError, or a lack of
            memory, becomes the job's `error`.

        Raises:
          UserError: too many wait.
        """
        with self._changed:
            active = [job for job in self._jobs.values() if not job.ended]
            mine = sum(job.visitor == visitor for job in active)
            if mine >= self.each:
                raise UserError(
                    f"{mine} of your jobs wait or run already; wait for one of them, or cancel it"
                )
            if len(active) >= self.waiting or self._closed.is_set():
                raise UserError(
                    f"{len(active)} jobs of all visitors wait or run; try again in a few minutes"
                )
            path = self.directory / visitor / secrets.token_hex(16)
            job = Job(visitor, tab, lane, title, path, self.minutes * 60)
            job._ahead = self._place
            self._jobs[job.id], self._functions[job.id] = job, function
            self._lanes[lane].append(job)
            self._forget()
            self._touch(lane)
            return job

    def latest(self, visitor: str, tab: str) -> Job | None:
        """The last job of a visitor in a tab."""
        return next((job for job in reversed(self.of(visitor)) if job.tab == tab), None)

    def of(self, visitor: str) -> list[Job]:
        """All jobs of a visitor, in the order of their making."""
        with self._changed:
            return [job for job in self._jobs.values() if job.visitor == visitor]

    def cancel(self, visitor: str, id: str) -> None:
        """Ends a job: at once where it waits, at its next report where it runs. Those of others stay as they are."""
        with self._changed:
            job = self._jobs.get(id)
            if job is None or job.visitor != visitor or job.ended:
                return
            self._stop(job)

    def close(self, seconds: float = 30.0) -> None:
        """Cancels everything and waits for the threads, at most so long; nothing is taken on after that."""
        with self._changed:
            self._closed.set()
            self._untidy.set()
            for job in self._jobs.values():
                if not job.ended:
                    self._stop(job)
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))

    def tidy(self) -> None:
        """Deletes what is older than `hours`, and the oldest beyond `megabytes`; jobs at work keep theirs."""
        with self._changed:
            active = {job.id for job in self._jobs.values() if not job.ended}
        found = []
        for folder in self.directory.glob("*/*"):
            if folder.name not in active:
                with contextlib.suppress(OSError):  # it went meanwhile
                    found.append(_Left(folder.stat().st_mtime, _size(folder), folder))
        found.sort()
        then = time.time() - self.hours * 3600
        old = [x for x in found if x.changed < then]
        kept = found[len(old) :]
        most = self.megabytes * 1e6
        uploads = [x for x in kept if x.folder.name.startswith(UPLOAD)]
        pushed = _oldest(uploads, UPLOADS * most)
        pushed += _oldest([x for x in kept if x not in pushed], most)
        for left in old + pushed:
            _delete(left.folder)
            why = (
                f"after {self.hours:g} hours" if left in old else "to make room for those of others"
            )
            self._lose(left.folder.name, f"its results were deleted {why}; start it again")

    def grown(self, size: int) -> None:
        """Says that files were written beside those of jobs, in bytes; many of them are looked through at once."""
        with self._changed:
            self._grown += size
            if self._grown > self.megabytes * 1e5:  # a tenth
                self._grown = 0
                self._untidy.set()

    # -- Within ----------------------------------------------------------------------------------------

    def _place(self, job: Job) -> int:
        with self._changed:
            lane = self._lanes[job.lane]
            before = lane.index(job) if job in lane else 0
            running = (x.lane == job.lane and x.state == RUNNING for x in self._jobs.values())
            return before + any(running)

    def _stop(self, job: Job) -> None:
        job._stop.set()
        if job.state == WAITING:
            job.state = CANCELLED
            self._lanes[job.lane].remove(job)
            del self._functions[job.id]
        job.version += 1
        self._touch(job.lane)

    def _touch(self, lane: str) -> None:
        """Wakes the lane, and tells those who follow a waiting job that its place may be another."""
        for job in self._lanes[lane]:
            job.version += 1
        self._changed.notify_all()

    def _forget(self) -> None:
        """Drops the oldest ended jobs beyond `REMEMBERED`; their files go by age."""
        ended = [id for id, job in self._jobs.items() if job.ended]
        for id in ended[: max(len(self._jobs) - REMEMBERED, 0)]:
            del self._jobs[id]

    def _lose(self, id: str, why: str) -> None:
        with self._changed:
            if job := self._jobs.get(id):
                job.state, job.error, job.result, job.partial = FAILED, why, None, None
                job.version += 1

    def _work(self, lane: str) -> None:
        """The thread of a lane."""
        while True:
            with self._changed:
                while not self._lanes[lane] and not self._closed.is_set():
                    self._changed.wait()
                if self._closed.is_set():
                    return
                job = self._lanes[lane].pop(0)
                function = self._functions.pop(job.id)
                job.state, job._began = RUNNING, time.monotonic()
                job.version += 1
                self._touch(lane)
            with self._ending(job):
                job.directory.mkdir(parents=True, exist_ok=True)
                job.result = function(job)
            # The function may hold arrays of the visitor's images; until the next job comes, nothing else would free them.
            del function

    @contextlib.contextmanager
    def _ending(self, job: Job) -> Iterator[None]:
        """Whatever happens in the block becomes the job's state, and the lane goes on."""
        state, error = FAILED, ""
        try:
            yield
            state = DONE
        except Cancelled:
            if job._stop.is_set():
                state = CANCELLED
            else:
                error = f"it was ended after {self.minutes:g} minutes, the longest that a job may take here"
        except UserError as failure:
            # Where the folder of a job stands on this server is no matter of visitors.
            error = re.sub(rf"{re.escape(str(self.directory))}/\w+/[\w-]+/?", "", str(failure))
        except Exception as failure:
            if is_out_of_memory(failure):
                error = "there is not enough memory for this on the server; try a smaller one"
            else:
                LOG.exception("job %s (%s) failed", job.id, job.tab)
                error = f"something went wrong; the log of the server says what (job {job.id})"
        with self._changed:
            job._ended = time.monotonic()
            job.error, job.state = error, state
            if state == DONE:
                job.fraction = 1.0
            if state != DONE:
                job.result = None
            job.version += 1
            self._touch(job.lane)

    def _keep_tidy(self) -> None:
        while not self._closed.is_set():
            self._untidy.wait(EVERY)
            self._untidy.clear()
            if self._closed.is_set():
                return
            try:
                self.tidy()
            except Exception:
                LOG.exception("old results could not be deleted")


class _Left(NamedTuple):
    """A folder of results; they sort by age."""

    changed: float
    size: int
    folder: Path


def _oldest(found: Sequence[_Left], most: float) -> list[_Left]:
    """Those that have to go so that the others take at most so many bytes."""
    total, gone = sum(x.size for x in found), []
    for left in found:
        if total <= most:
            break
        gone.append(left)
        total -= left.size
    return gone


def _size(folder: Path) -> int:
    """Bytes of all files of a folder, or of a file."""
    files = folder.rglob("*") if folder.is_dir() and not folder.is_symlink() else [folder]
    return sum(file.lstat().st_size for file in files)


def _delete(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)
