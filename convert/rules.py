"""The table engine: conversion is a list of rules, applied strictly in either direction.

A rule pairs two key templates and says how the array between them changes:

    Rule("convs.{j}.conv.weight", "synthesis.conv_{j+1}.weight", CONV)

`{j}` stands for a number and `{j+1}` for that number plus one; `{name:a|b}` stands for one of the
words. A rule without a destination drops a key by name. Every key must be used exactly once; all
that does not fit is told in one message.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nada_jax.errors import UserError, some

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


class Transform(NamedTuple):
    """How an array changes on its way to the native layout, and on its way back."""

    name: str
    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]


def transpose(*axes: int) -> Transform:
    """Permutes axes."""
    inverse = np.argsort(axes)
    return Transform(
        f"transpose{axes}", lambda x: x.transpose(axes), lambda x: x.transpose(inverse)
    )


def reshape(native: Sequence[int], official: Sequence[int]) -> Transform:
    """Changes the shape alone; -1 stands for what is left."""
    return Transform(
        f"reshape{tuple(native)}", lambda x: x.reshape(native), lambda x: x.reshape(official)
    )


def chain(*transforms: Transform) -> Transform:
    """Applies transforms in order (and in reverse order on the way back)."""

    def forward(x):
        for transform in transforms:
            x = transform.forward(x)
        return x

    def backward(x):
        for transform in reversed(transforms):
            x = transform.backward(x)
        return x

    return Transform(" ".join(t.name for t in transforms), forward, backward)


SAME = Transform("same", lambda x: x, lambda x: x)
CONV = transpose(2, 3, 1, 0)  # PyTorch's [o, i, k, k] -> [k, k, i, o]
DENSE = transpose(1, 0)  # PyTorch's [o, i] -> [i, o]


class Rule(NamedTuple):
    """One line of a table; see the module docstring. `destination=None` drops the key."""

    source: str
    destination: str | None
    transform: Transform = SAME


class Match(NamedTuple):
    """One array's way through a table, for `--check`."""

    source: str
    destination: str | None
    transform: str
    shape: tuple[int, ...]


_FIELD = re.compile(r"\{(\w+)(?:([+-]\d+)|:([^}]*))?\}")


@functools.cache
def _compile(template: str) -> re.Pattern[str]:
    pattern, end = "", 0
    for field in _FIELD.finditer(template):
        name, _, words = field.groups()
        pattern += (
            re.escape(template[end : field.start()]) + f"(?P<{name}>{words or r'[0-9]{1,6}'})"
        )
        end = field.end()
    return re.compile(pattern + re.escape(template[end:]))


def _translate(key: str, source: str, destination: str) -> str | None:
    """Rewrites `key` from one template into the other; None where it does not match."""
    match = _compile(source).fullmatch(key)
    if match is None:
        return None
    values: dict[str, str | int] = {}
    for name, shift, words in _FIELD.findall(source):
        values[name] = match[name] if words else int(match[name]) - int(shift or 0)
    if any(isinstance(value, int) and value < 0 for value in values.values()):
        return None

    def fill(field: re.Match[str]) -> str:
        name, shift, _ = field.groups()
        return str(values[name] + int(shift) if shift else values[name])

    return _FIELD.sub(fill, destination)


def apply(
    rules: Iterable[Rule],
    arrays: Arrays,
    *,
    backward: bool = False,
    what: str = "checkpoint",
    expected: Callable[[Shapes], Shapes] | None = None,
) -> tuple[dict[str, np.ndarray], list[Match]]:
    """Sends every array through the one rule that fits it.

    Args:
      rules: the table.
      arrays: what to convert.
      backward: read the table from right to left.
      what: how messages call the thing that is converted.
      expected: the shapes that the model needs, by destination, given those that were converted.

    Returns:
      The converted arrays by destination, and the way of each for a report.

    Raises:
      UserError: keys that no rule or several rules take, two keys with one destination, and what
        `check` tells, all in one message.
    """
    rules = list(rules)
    problems: list[str] = []
    failed: set[str] = set()
    converted: dict[str, np.ndarray] = {}
    matches: list[Match] = []
    for key, array in arrays.items():
        found = []
        for rule in rules:
            if not backward and rule.destination is None:
                if _compile(rule.source).fullmatch(key):
                    found.append((None, rule.transform))
            elif rule.destination is not None:
                ends = (rule.source, rule.destination)
                destination = _translate(key, *(reversed(ends) if backward else ends))
                if destination is not None:
                    found.append((destination, rule.transform))
        if len(found) != 1:
            fits = "no rule takes it" if not found else f"{len(found)} rules take it"
            problems.append(f"{key} {tuple(array.shape)}: {fits}")
            continue
        destination, transform = found[0]
        matches.append(Match(key, destination, transform.name, tuple(array.shape)))
        if destination is None:
            continue
        if destination in converted:
            problems.append(f"{key}: {destination} is already taken by another key")
            continue
        try:
            convert = transform.backward if backward else transform.forward
            converted[destination] = np.asarray(convert(array), order="C")
        except (ValueError, IndexError) as error:
            problems.append(f"{key} {tuple(array.shape)}: {transform.name} failed ({error})")
            failed.add(destination)
    if expected is not None:
        try:
            shapes = expected({key: array.shape for key, array in converted.items()})
        except UserError as error:
            problems.append(str(error))
        else:
            shapes = {key: shape for key, shape in shapes.items() if key not in failed}
            problems += _misfits(converted, shapes)
    _report(problems, what)
    return converted, matches


def check(arrays: Arrays, expected: Shapes, *, what: str) -> None:
    """Holds converted arrays against the shapes that the model needs.

    Raises:
      UserError: missing, unknown and misshapen arrays, all in one message.
    """
    _report(_misfits(arrays, expected), what)


def _misfits(arrays: Arrays, expected: Shapes) -> list[str]:
    problems = []
    for key in expected.keys() | arrays.keys():
        if key not in arrays:
            problems.append(f"nothing gives {key} {tuple(expected[key])}")
        elif key not in expected:
            problems.append(f"{key} {arrays[key].shape} has no place in the model")
        elif arrays[key].shape != tuple(expected[key]):
            problems.append(f"{key} has shape {arrays[key].shape}, expected {expected[key]}")
    return problems


def _report(problems: list[str], what: str) -> None:
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UserError(f"{what} does not fit, {count}: {some(problems)}")


def table(matches: Iterable[Match]) -> str:
    """Formats what was matched, one line an array, for people to read."""
    rows = [
        (m.source, str(m.shape), m.transform, m.destination or "(dropped)") for m in matches
    ] or [("(nothing)", "", "", "")]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
