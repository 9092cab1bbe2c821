"""What is wrong with a command line, in a sentence: absl and ml_collections answer with syntax errors and tracebacks."""

import difflib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nada_jax.errors import UserError

MISSING = "--config is missing; for example --config=configs/nada_sketch.py"


def explain(error: BaseException | None, arguments: list[str]) -> str:
    """What is wrong with the config file, or with the fields that the arguments set.

    Args:
      error: what absl, ml_collections or the config file raised, if anything.
      arguments: the command line.

    Returns:
      A sentence, or "" where neither is to blame.
    """
    if not (given := re.search("\0--?config[=\0]([^\0]*)", "\0".join(arguments))):
        return MISSING
    path, *variant = given[1].split(":", 1)
    if not Path(path).is_file():
        return _absent(path)
    try:
        values = dict(_walk(_load(path, variant).to_dict()))
    except UserError as failure:
        return str(failure)
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
    if match := re.match(r"Found (--config\.\S+) in argv before", str(error)):
        return f"{match[1]} stands before --config; expected --config first"
    if match := re.match(r"Flag --config\.(\S+) is provided after --config\.", str(error)):
        return _section(match[1], values[match[1]])
    if match := re.match(
        r"Type .* of field (?:config\.)?(\S+) is not supported for overriding", str(error)
    ):
        value = values[match[1]]
        return (
            f"{match[1]} is a {type(value).__name__} in {path}, which no argument can replace; expected a plain number "
            "or text there"
        )
    if match := re.match(r"flag --config\.(\S+?)=(.*?): ", str(error), re.DOTALL):
        field, value = match.groups()
        if isinstance(values[field], dict):
            return _section(field, values[field])
        words = {int: "a whole number", float: "a number", bool: "True or False"}
        expected = words.get(type(values[field]), f"a value like {values[field]!r}")
        return f"{field} is {value!r}; expected {expected}"
    return ""


def _absent(path: str) -> str:
    """Where a config file was looked for, and which may be meant."""
    near = [
        name
        for name in (f"{path}.py", f"configs/{path}.py", f"configs/{path}")
        if Path(name).is_file()
    ]
    remedy = f"did you mean {near[0]}?" if near else "expected a file such as configs/default.py"
    return f"--config={path} does not exist in {Path.cwd()}; {remedy}"


def _load(path: str, variant: list[str]) -> ConfigDict:
    """Runs a config file, as ml_collections does, which hides what happens and where.

    Args:
      path: the file.
      variant: the argument of get_config, if any.

    Raises:
      UserError: the file cannot be run, or returns no config of a task; the message has the line, where there is one.
    """
    scope: dict[str, Any] = {"__name__": "config_config", "__file__": path}
    try:
        exec(compile(Path(path).read_bytes(), path, "exec"), scope)
        if not callable(scope.get("get_config")):
            raise UserError(
                f"{path} has no get_config; expected a function of this name that returns a ConfigDict"
            )
        config = scope["get_config"](*variant)
    except SyntaxError as error:  # of this file, or of one that it imports
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # a config file is code, and may fail in any way
        lines = [x.lineno for x in traceback.extract_tb(error.__traceback__) if x.filename == path]
        if isinstance(error, UserError) and not lines:
            raise
        place = f"{path}, line {lines[-1]}" if lines else path
        raise UserError(f"{place}: {_said(error)}") from error
    if not isinstance(config, ConfigDict):
        what = "None" if config is None else f"a {type(config).__name__}"
        raise UserError(f"get_config in {path} returns {what}; expected a ConfigDict")
    if "task" not in config:
        raise UserError(f"{path} has no field task; expected the task that it configures")
    return config


def _said(error: BaseException) -> str:
    """An exception of a config file in words."""
    text = " ".join(str(error).split())
    # A text in place of a section, or a number of another type.
    if match := re.match(
        r"Could not override field '(.+?)' .*?\. (.*) is of original type <class '(.+?)'> and .* <class '(.+?)'>",
        text,
    ):
        field, value, kind, expected = match.groups()
        if expected.endswith(".ConfigDict"):
            return f"{field} is a section; expected its fields to be set, instead of {value!r}"
        return f"{field} is {value} of type {kind}; expected {expected}"
    # A sentence needs no name of its kind; other texts, such as that of a KeyError, are none without it.
    if text and (isinstance(error, ValueError) or type(error) is Exception):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _section(field: str, values: dict) -> str:
    """What to write instead of --config.SECTION=value."""
    within = next(iter(values), "FIELD")
    return f"{field} is a section; expected one of its fields, as in --config.{field}.{within}"


def _walk(config: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """All fields and sections of a config by flat name."""
    for name, value in config.items():
        yield prefix + name, value
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{name}.")
