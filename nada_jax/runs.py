"""What stands in a workdir, and whether another run may write there."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nada_jax import files, trees
from nada_jax.errors import UserError


def read_config(workdir: Path) -> dict[str, Any] | None:
    """The config of the run in a workdir by flat field, or None where there is no run.

    Raises:
      UserError: config.json is damaged.
    """
    file = workdir / "config.json"
    if not file.is_file():
        return None
    try:
        return trees.flatten(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a config ({error}); give another --workdir") from error


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Writes config.json."""
    files.write_text(workdir / "config.json", config.to_json(indent=2) + "\n")


def refuse_other(config: ConfigDict, workdir: Path, free: set[str], remedy: str) -> None:
    """Makes sure that the run in the workdir, if any, is the one that is configured.

    Args:
      free: top-level fields that may differ.
      remedy: ends the message.

    Raises:
      UserError: names every field that differs.
    """
    theirs = read_config(workdir)
    if theirs is None:
        return
    ours = trees.flatten(json.loads(config.to_json()))
    differ = [
        f"{field} was {theirs.get(field)!r} and is {ours.get(field)!r}"
        for field in sorted(ours.keys() | theirs.keys())
        if field.split(".")[0] not in free and ours.get(field) != theirs.get(field)
    ]
    if differ:
        raise UserError(
            f"{workdir} holds a run with other settings ({'; '.join(differ)}); {remedy}"
        )
