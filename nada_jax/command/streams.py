"""Standard output and error of a command: whatever becomes of the terminal, the work goes on."""

import io
import os
import sys


def outlive_readers() -> None:
    """Drops what standard output and error cannot deliver, and writes what their encoding lacks as \\uXXXX.

    A reader may end before the program, as in `main.py | head -1`, a terminal may be closed, and the disk behind `> log`
    may be full; none of them is worth a run of hours. To be called once, before anything is printed.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # One that was closed before the program began, or a console of Windows, whose bytes are of its code page.
        if stream is None or (os.name == "nt" and stream.isatty()):
            continue
        stream.flush()
        written = io.BufferedWriter(_Dropping(stream.fileno(), "w", closefd=False))
        lines = name == "stderr" or stream.isatty()
        replaced = io.TextIOWrapper(
            written, stream.encoding, errors="backslashreplace", line_buffering=lines
        )
        setattr(sys, name, replaced)


class _Dropping(io.FileIO):
    """A file for which everything is written that can be."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)
