"""python -m convert KIND SOURCE DESTINATION: converts a checkpoint, in the direction of the endings."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from convert import rules
from convert.kinds import KINDS, convert
from nada_jax import files
from nada_jax.command.streams import outlive_readers
from nada_jax.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
      arguments: by default those of the process.

    Returns:
      The exit code: 0, or 2 after one sentence on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Converts official checkpoints to native weights, and back.",
        epilog=_examples(),
        # Keeps the lines of the examples, which the default would fill into a paragraph.
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS, help="what the file holds")
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--check", action="store_true", help="print a table of what was matched")
    for kind in KINDS.values():
        for option in kind.options:
            parser.add_argument(
                f"--{option.name}",
                type=option.type,
                metavar=option.metavar,
                help=f"{kind.name}: {option.help}",
            )
    # Options of all kinds are one flat list for argparse; `_options` sorts out those of other kinds.
    arguments = sys.argv[1:] if arguments is None else arguments
    given = vars(parser.parse_args(arguments))
    source, destination = given["source"], given["destination"]
    try:
        for argument in arguments:  # as they were given: a path has lost a slash of an address
            value = argument.partition("=")[2] if argument.startswith("-") else argument
            files.check_local(value, value)
        options = _options(given)
        with warnings.catch_warnings():
            # Without the line of code that Python would print below a warning.
            warnings.showwarning = _warn
            matches = convert(given["kind"], source, destination, **options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given["check"]:
        print(rules.table(matches))
    print(f"{len(matches)} arrays: {source} -> {destination}")
    return 0


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; UserError where one belongs to another kind."""
    found = {}
    for kind in KINDS.values():
        for option in kind.options:
            if given[option.name] is None:
                continue
            if kind is not KINDS[given["kind"]]:
                raise UserError(
                    f"--{option.name} is for {kind.name} alone, not for {given['kind']}"
                )
            if option.choices and given[option.name] not in option.choices:
                raise UserError(
                    f"--{option.name} is {given[option.name]!r}; expected one of {', '.join(option.choices)}"
                )
            found[option.name] = given[option.name]
    return found


def _examples() -> str:
    """The end of the help: the examples of every kind, aligned."""
    lines = [
        (f"  python -m convert {kind.name} {arguments}", meaning)
        for kind in KINDS.values()
        for arguments, meaning in kind.examples
    ]
    width = max(len(command) for command, _ in lines)
    return "examples:\n" + "\n".join(f"{command:{width}}  {meaning}" for command, meaning in lines)


def _warn(message: Warning | str, *_, **__) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
