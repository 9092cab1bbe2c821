"""Adapted generators by name: "preset:NAME" for those that ship, "run:NAME" for runs of the user.

Which presets there are, their files in nada_jax/assets/presets alone say: `configs/presets.py` makes them.
"""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.weights import native, registry

FOLDER = registry.ASSETS / "presets"
RUNS = Path("runs")  # where main.py puts runs
PREFIX = "nada_"  # of recipes in configs/, and so of their workdirs
GENERATOR = "generator.safetensors"  # in the workdir of an adaptation


@dataclasses.dataclass(frozen=True)
class Preset:
    """An adapted generator that ships.

    Attributes:
      name: after "preset:".
      title: what it draws, for people.
      source: the generator that it was adapted from.
      file: a generator delta; see `models.generator_delta`.
      image: a PNG, a row of the source above the same latents of the preset.
      facts: recipe and figures, as `tasks.presets` writes them: "place" in the gallery, "texts", "seed", "steps",
        "trained" (CLIPs), "judge" (a CLIP that took no part), "metrics" (as in evaluation.json), "command", ...
    """

    name: str
    title: str
    source: str
    file: Path
    image: Path
    facts: dict[str, Any]


def shipped(folder: Path = FOLDER) -> list[Preset]:
    """The presets of a folder, by default those that ship, in the order of the gallery; UserError: a file is damaged."""
    found = [_read(file) for file in folder.glob(f"*{native.SUFFIX}")]
    return sorted(found, key=lambda preset: (preset.facts.get("place", len(found)), preset.name))


def names() -> list[str]:
    """Their names, in this order."""
    return [preset.name for preset in shipped()]


def find(name: str) -> Preset:
    """A preset by its name; UserError, with the names that there are, where there is none."""
    for preset in shipped():
        if preset.name == name:
            return preset
    raise UserError(f"there is no preset {name!r}; expected one of {', '.join(names())}")


def find_file(weights: str | os.PathLike, field: str) -> Path | None:
    """Finds the file behind "preset:NAME" or "run:NAME".

    Args:
      weights: what the user gave for a generator.
      field: how messages call it.

    Returns:
      The file of a generator; None where `weights` is no such name.

    Raises:
      UserError: there is no such preset or run; the message lists those that there are.
    """
    said = files.spelled(weights, field)
    kind, colon, name = said.partition(":")
    if not colon or kind not in ("preset", "run"):
        return None
    if kind == "preset":
        try:
            return find(name).file
        except UserError as error:
            raise UserError(f"{field}={said!r}: {error}") from error
    if _is_folder(name):
        for folder in (name, PREFIX + name):
            if (file := RUNS / folder / GENERATOR).is_file():
                return file
    found = (x.parent.name for x in RUNS.glob(f"*/{GENERATOR}") if x.is_file())
    there = sorted(x.removeprefix(PREFIX) for x in found if _is_folder(x))
    listed = f"one of {', '.join(there)}" if there else "the name of one, and none is there yet"
    raise UserError(
        f"{field}={said!r} is no workdir in {RUNS}/ with {GENERATOR}, which an adaptation leaves; expected {listed}"
    )


def _is_folder(name: str) -> bool:
    """Whether a name is that of one folder, and nothing that leads elsewhere."""
    return re.fullmatch(r"[\w.-]*\w[\w.-]*", name) is not None and ".." not in name


def _read(file: Path) -> Preset:
    header = files.read_metadata(file)
    try:
        facts = json.loads(header.get("facts", "{}"))
        title = str(facts.get("title", file.stem))
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: its header has facts that are no JSON object") from error
    image = file.with_suffix(".png")
    return Preset(file.stem, title, header.get("source", ""), file, image, facts)
