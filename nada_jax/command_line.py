"""What is wrong with a command line, in a sentence: absl and ml_collections answer with syntax errors and tracebacks."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from absl import flags

MISSING = "--config is missing; for example --config=configs/nada_sketch.py"
ABSENT = "--config={} does not exist; expected a file such as configs/default.py"


def explain(error: Exception, arguments: list[str]) -> str:
    """What is wrong with the fields that the arguments set.

    Args:
      error: what absl or ml_collections said.
      arguments: the command line.

    Returns:
      A sentence, or "" where the fields are not to blame.
    """
    if not (given := re.search("\0--?config[=\0]([^\0]*)", "\0".join(arguments))):
        return MISSING
    path = given[1].partition(":")[0]
    if not Path(path).is_file():
        return ABSENT.format(path)
    try:
        config = flags.FLAGS["config"].parser.parse(given[1]).to_dict()
    except Exception:  # it fails itself, which `error` says
        return ""
    values = dict(_walk(config))
    named = [re.match(r"--?(?:no)?config\.([^=]+)", x) for x in arguments]
    unknown = [f"config.{match[1]}" for match in named if match and match[1] not in values]
    if match := re.match(r"Unknown command line flag '(.+?)'", str(error)):
        unknown.append(match[1])
    if unknown:
        known = ["workdir", *(f"config.{field}" for field in values)]
        # "--steps=5" and "--config.lr=1": the field is right, and its beginning is not.
        ending = unknown[0].rpartition(".")[2]
        same = [field for field in known if field.rpartition(".")[2] == ending]
        near = difflib.get_close_matches(unknown[0], same or known, 1, 0 if same else 0.7)
        if not near:
            endings = {field.rpartition(".")[2]: field for field in reversed(known)}
            near = [endings[x] for x in difflib.get_close_matches(ending, endings, 1, 0.7)]
        return f"there is no --{unknown[0]}" + (f"; did you mean --{near[0]}?" if near else "")
    if match := re.match(r"flag --config\.(\S+?)=(.*?): ", str(error), re.DOTALL):
        field, value = match.groups()
        if isinstance(values[field], dict):
            return f"{field} is a section; expected one of its fields, as in --config.{field}.{next(iter(values[field]))}"
        words = {int: "a whole number", float: "a number", bool: "True or False"}
        expected = words.get(type(values[field]), f"a value like {values[field]!r}")
        return f"{field} is {value!r}; expected {expected}"
    return ""


def _walk(config: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """All fields and sections of a config by flat name."""
    for name, value in config.items():
        yield prefix + name, value
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{name}.")
