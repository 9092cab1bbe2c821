"""metrics.jsonl: one JSON object a line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nada_jax import files
from nada_jax.errors import UserError


def read(path: Path, *numbers: str) -> list[dict[str, Any]]:
    """The lines of a metrics file; the last one is dropped where a killed run left it half-written.

    Args:
      path: the file; one that is missing has no lines.
      numbers: metrics that every line has to have.

    Raises:
      UserError: it cannot be read, or a line is no metrics; to drop it would lose what a run has measured.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    rows = []
    # By line feeds alone, as they were written.
    *whole, last = content.split(b"\n")
    for number, line in enumerate(whole, 1):
        if (row := _row(line, numbers)) is None:
            expected = f" with {' and '.join(numbers)}" if numbers else ""
            raise UserError(
                f"line {number} of {path} is {line[:40].decode(errors='replace')!r}; expected a JSON object"
                f"{expected}; remove that line, or the file"
            )
        rows.append(row)
    if (row := _row(last, numbers)) is not None:
        rows.append(row)
    return rows


def _row(line: bytes, numbers: Sequence[str]) -> dict[str, Any] | None:
    """The metrics of a line, or None where it has none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # not UTF-8, or not JSON
        return None
    good = isinstance(row, dict) and isinstance(row.get("chosen", []), list)
    good = good and all(isinstance(row.get(name), int | float) for name in numbers)
    return row if good else None


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a whole metrics file atomically."""
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds lines to a metrics file."""
    with files.writing(path), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
