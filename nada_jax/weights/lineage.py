"""The origin of an adapted generator: metadata in the header of its file."""

import dataclasses
import json
from pathlib import Path

from nada_jax import files
from nada_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Lineage:
    """How a generator was adapted.

    Attributes:
      source: weights of the generator that was adapted; "" where they are unknown.
      texts: of source and target; "" where they are unknown, or where images took their place.
      clips: names of the CLIPs; None where they are unknown.
    """

    source: str = ""
    texts: tuple[str, ...] = ("", "")
    clips: tuple[str, ...] | None = None

    def header(self) -> dict[str, str]:
        """The metadata of its file, without what is unknown."""
        known = {"source": self.source} if self.source else {}
        if self.clips is not None:
            known["clips"] = json.dumps(self.clips)
        if all(self.texts):
            known["texts"] = json.dumps(self.texts)
        return known


def read(path: Path) -> Lineage:
    """Reads the lineage from the header of a safetensors file.

    Args:
      path: the file.

    Returns:
      The lineage, empty where the file is not of an adapted generator.

    Raises:
      UserError: the file is damaged, or its header is garbled.
    """
    header = files.read_metadata(path)
    found = {key: _strings(path, header, key) for key in ("texts", "clips") if key in header}
    # The header of a converted file has a "source" too: the official file, which is no generator
    # that was adapted.
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
