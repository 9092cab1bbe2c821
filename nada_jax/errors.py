"""The one exception for wrong input, and what turns damaged files and a lack of memory into it."""

import contextlib
import os
from collections.abc import Iterable, Iterator

LONGEST = 2000  # characters of a message; a file with many wrong keys would fill a terminal


class UserError(ValueError):
    """Wrong input: a field, file, prompt or device count.

    The message is one readable sentence that names the field or file, its value, and what would be
    right. `main.py` and `python -m convert` print it alone on stderr and exit with code 2.
    """

    def __init__(self, message: str):
        if len(message) > LONGEST:
            message = f"{message[:LONGEST]} ... ({len(message):,} characters)"
        # Messages quote files of strangers, whose control characters could steer a terminal.
        super().__init__(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
        )


def some(problems: Iterable[str], most: int = 12) -> str:
    """Joins the first problems in alphabetical order, and counts the others.

    Args:
      problems: one phrase each.
      most: how many are listed.

    Returns:
      The part of a message, separated by semicolons.
    """
    problems = sorted(problems)
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    return "; ".join([*problems[:most], *more])


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turns whatever a damaged or hostile file provokes while it is parsed into a UserError.

    The block parses one file and does nothing else: no look-up in tables of the program, no import,
    and no computation on a device, whose failures are not damage of the file.

    Args:
      path: the file, which every message names.

    Raises:
      UserError: the file cannot be read, is damaged, or needs more memory than there is.
    """
    name = os.fspath(path)
    try:
        yield
    except UserError as error:
        if name in str(error):
            raise
        raise UserError(f"{name}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from error
    except MemoryError as error:
        raise UserError(
            f"cannot read {name}: there is not enough memory for what it says that it holds"
        ) from error
    except Exception as error:
        if _is_ours(error):
            raise
        raise UserError(
            f"cannot read {name}: it is damaged, or not of the format that its name says ({error})"
        ) from error


def _is_ours(error: Exception) -> bool:
    """Whether no content of a file can cause an exception: a bug, a missing package, a device.

    JAX reports a device that is full or cannot be initialised as a RuntimeError. Two kinds of
    RuntimeError come from files: nesting that is too deep, and features that a parser lacks.
    """
    if isinstance(error, RecursionError | NotImplementedError):
        return False
    return isinstance(error, ImportError | NameError | RuntimeError)


# How XLA, CUDA and C++ say it; JAX has no exception of its own for it.
_LACK = ("resource_exhausted", "out of memory", "out_of_memory", "failed to allocate", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device or the host has no memory left."""
    told = isinstance(error, RuntimeError) and any(x in str(error).lower() for x in _LACK)
    return told or isinstance(error, MemoryError)


@contextlib.contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Turns a lack of memory, of a device or of the host, into a UserError.

    Args:
      remedy: what takes less memory, such as "lower batch_size".

    Raises:
      UserError: the block ran out of memory; it says what was asked for, and the remedy.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"there is not enough memory ({first[:200].rstrip('.')}); {remedy}"
        ) from error
