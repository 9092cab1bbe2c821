"""One run at a time in a workdir: a lock of the operating system, which ends with the process that holds it."""

import contextlib
import datetime
import errno
import json
import os
import socket
import stat
import uuid
import warnings
from pathlib import Path

from nada_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

# The file, within the workdir, for as long as a run lives; no other program has a file of this name.
NAME = ".nada_jax.lock"
FIELDS = {"process", "host", "since", "run"}  # what it says about its run
# How systems say that another process holds a lock.
HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
# Windows keeps others from reading what is locked: a byte beyond all content is locked instead of it.
BEYOND = 2**30


class Lost(UserError):
    """The workdir is no longer that of the run."""


class Lock:
    """The right to write into a workdir. Making it does nothing.

    A file system that cannot lock files, as some network file systems cannot, costs a warning: to refuse would bar
    every run from it, to protect from a second one that few people start.

    Args:
      directory: the workdir.
    """

    def __init__(self, directory: Path):
        self.directory, self.path = directory, directory / NAME
        self._handle: int | None = None
        self._owner = b""  # what this run has written into the file
        self._made: list[Path] = []  # directories that were made for the lock, the deepest first

    def take(self) -> None:
        """Takes the lock, and makes the workdir where it is missing.

        Raises:
          UserError: another run holds it, which the message names; or the workdir cannot be written; or a file
            that is no lock of a run has its name.
        """
        try:
            above = (self.directory, *self.directory.parents)
            self._made = [path for path in above if not path.exists()]
            self.directory.mkdir(parents=True, exist_ok=True)
            self._handle = self._open()
            values = {"process": os.getpid(), "host": socket.gethostname(), "since": _now()}
            values["run"] = uuid.uuid4().hex  # one process may have two runs within a second
            self._owner = json.dumps(values).encode()
            os.ftruncate(self._handle, 0)  # what a killed run left
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, self._owner)
        except UserError:
            self.release()
            raise
        except (OSError, ValueError) as error:  # ValueError: a null character
            self.release()
            why = getattr(error, "strerror", None) or error
            if isinstance(error, FileExistsError):
                why = "it is a file; expected a directory"
            raise UserError(f"cannot write into {self.directory}: {why}") from error

    def release(self) -> None:
        """Gives the lock back, if it was taken; directories that were made for it and are empty go, too."""
        if self._handle is not None:
            # While it is held, so that only its own file is removed. Windows removes no file that is open: it stays there,
            # and the next run takes it.
            with contextlib.suppress(OSError):
                if self._held():
                    self.path.unlink()
            os.close(self._handle)
            self._handle = None
        with contextlib.suppress(OSError, ValueError):  # what is not empty stays
            for path in self._made:
                path.rmdir()
        self._made = []

    def check(self) -> None:
        """Makes sure that the workdir is still that of the run, if it has taken the lock.

        A workdir may be deleted while a run is at work, and another run may begin there.

        Raises:
          Lost: the lock that this run took is gone, or that of another run stands in its place.
        """
        if self._handle is not None and not self._held():
            raise Lost(
                f"{self.directory} was deleted or taken over by another run while this run was at work; nothing more "
                "is written"
            )

    def _held(self) -> bool:
        """Whether the file is that of this run; True where the system cannot tell."""
        try:
            # What it says counts: where files cannot be locked, another run writes into the same one.
            return self.path.read_bytes() == self._owner
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def _open(self) -> int:
        """The open file, locked, of a run that lives no longer or of none."""
        handle = self._open_locked()
        try:
            self._refuse_strangers(handle)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _refuse_strangers(self, handle: int) -> None:
        """Refuses a file that is no lock, which would be overwritten and removed."""
        content = os.read(handle, 1000)
        try:
            ours = not content or set(json.loads(content)) == FIELDS
        except (ValueError, TypeError, RecursionError):
            ours = False
        if not ours:
            raise UserError(
                f"{self.path} is not the lock of a run; move it away, or give another --workdir"
            )

    def _open_locked(self) -> int:
        while True:
            # Neither a link, which would lead out of the workdir, nor a pipe, which would be waited for.
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(os.lstat(self.path).st_mode):
                    raise UserError(
                        f"{self.path} is not a file; move it away, or give another --workdir"
                    )
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(self.path, flags, 0o666)
            try:
                _lock(handle)
            except OSError as error:
                if error.errno in HELD:
                    owner = os.read(handle, 1000)
                    os.close(handle)
                    raise UserError(self._refusal(owner)) from error
                warnings.warn(
                    f"{self.directory} is on a file system that cannot lock files ({error.strerror}): take care that "
                    "no second run writes there",
                    stacklevel=2,
                )
                return handle
            # The run before may have removed the file after it was opened here: its lock excludes nobody.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    return handle
            os.close(handle)

    def _refusal(self, owner: bytes) -> str:
        try:
            run = "process {process} on {host} has been running there since {since}"
            run = run.format(**json.loads(owner))
        except (ValueError, KeyError, TypeError):  # it has just begun, and not yet written its name
            run = "another run has just begun there"
        return f"{self.directory} is in use: {run}; wait until it ends, or give another --workdir"


def _lock(handle: int) -> None:
    """Locks an open file, without waiting; OSError where another process holds it."""
    if os.name == "nt":
        os.lseek(handle, BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _now() -> str:
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
