"""What a file of an adapted generator says of where it comes from: its header, written and read."""

import dataclasses
import json
from pathlib import Path

from nada_jax import files
from nada_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Of what, from which text to which, and by which CLIPs a generator was adapted."""

    source: str = ""  # weights; "" where it is unknown
    # Of source and target; "" where they are unknown, or where pictures stood for them.
    texts: tuple[str, ...] = ("", "")
    clips: tuple[str, ...] | None = None  # None where they are unknown

    def header(self) -> dict[str, str]:
        """The metadata of its file; what is unknown is left out."""
        told = {"source": self.source} if self.source else {}
        if self.clips is not None:
            told["clips"] = json.dumps(self.clips)
        if all(self.texts):
            told["texts"] = json.dumps(self.texts)
        return told


def read(path: Path) -> Lineage:
    """What the header of a safetensors file tells; UserError where it is garbled."""
    header = files.read_metadata(path)
    found = {key: _strings(path, header, key) for key in ("texts", "clips") if key in header}
    # Of others the source is the file that they were converted from.
    return Lineage(source=header.get("source", ""), **found) if found else Lineage()


def _strings(path: Path, header: dict[str, str], key: str) -> tuple[str, ...]:
    """A list of strings out of a header, which a stranger may have written; two of them for texts."""
    try:
        value = json.loads(header[key])
    except (ValueError, RecursionError):
        value = None
    whole = isinstance(value, list) and all(isinstance(x, str) for x in value)
    if not whole or (key == "texts" and len(value) != 2):
        raise UserError(
            f"{path}: its header says {key}={header[key]!r:.80}; expected a list of "
            + ("two texts" if key == "texts" else "names")
        )
    return tuple(value)
