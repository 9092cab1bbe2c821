"""The one exception that means "you gave me something I cannot use"."""

import contextlib
import os
from collections.abc import Iterable, Iterator

LONGEST = 2000  # characters of a message


class UserError(ValueError):
    """Wrong input: a field, file, prompt or device count.

    The message is one readable sentence that names the field or file, its value, and what would be
    right. `main.py` and `python -m convert` print it alone on stderr and exit with code 2. What a stranger's
    file brings into it cannot steer a terminal, nor fill it.
    """

    def __init__(self, message: str):
        if len(message) > LONGEST:
            message = f"{message[:LONGEST]} ... ({len(message):,} characters)"
        super().__init__(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
        )


def some(problems: Iterable[str], most: int = 12) -> str:
    """The first of many problems, and how many more there are, for a message."""
    problems = sorted(problems)
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    return "; ".join([*problems[:most], *more])


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Within the block, whatever a damaged or hostile file provokes becomes a UserError that names it."""
    try:
        yield
    except UserError as error:
        if os.fspath(path) in str(error):
            raise
        raise UserError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
    except (Exception, MemoryError) as error:
        raise UserError(
            f"cannot read {os.fspath(path)}: it is damaged, or not what it seems ({error})"
        ) from error
