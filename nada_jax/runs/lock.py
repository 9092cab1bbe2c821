"""One run at a time in a workdir: a lock of the operating system, which ends with the process that holds it."""

import contextlib
import datetime
import errno
import json
import os
import socket
import warnings
from pathlib import Path

from nada_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

NAME = ".lock"  # the file, within the workdir, for as long as a run lives
# How systems say that another process holds a lock.
HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
# Windows keeps others from reading what is locked: a byte beyond all content is locked instead of it.
BEYOND = 2**30


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
        self._made: list[Path] = []  # directories that were made for the lock, the deepest first

    def take(self) -> None:
        """Takes the lock, and makes the workdir where it is missing.

        Raises:
          UserError: another run holds it, which the message names; or the workdir cannot be written.
        """
        try:
            above = (self.directory, *self.directory.parents)
            self._made = [path for path in above if not path.exists()]
            self.directory.mkdir(parents=True, exist_ok=True)
            self._handle = self._open()
            owner = {"process": os.getpid(), "host": socket.gethostname(), "since": _now()}
            os.ftruncate(self._handle, 0)  # what a killed run left
            os.write(self._handle, json.dumps(owner).encode())
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
            # While it is held, so that only its own file is removed. Windows removes no file that is open.
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._handle)
            self._handle = None
        with contextlib.suppress(OSError, ValueError):  # what is not empty stays
            for path in self._made:
                path.rmdir()
        self._made = []

    def _open(self) -> int:
        """The open file, locked."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
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
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _now() -> str:
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
