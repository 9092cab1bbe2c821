"""metrics.jsonl: one JSON object a line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nada_jax import files


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a line that a killed run left half-written is dropped."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a whole metrics file atomically."""
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds lines to a metrics file."""
    with files.writing(path), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
