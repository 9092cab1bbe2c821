"""The engine of the tables: a conversion is a list of rules, applied strictly in either direction.

A rule pairs two key templates and says how the array between them changes:

    Rule("convs.{j}.conv.weight", "synthesis.conv_{j+1}.weight", CONV)

`{j}` stands for a number and `{j+1}` for that number plus one; `{name:a|b}` stands for one of the
words. A rule without a destination drops a key by name. Every key must be used exactly once; one
message lists all that does not fit.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nada_jax import tables, trees
from nada_jax.errors import UserError, some
from nada_jax.weights import native
from nada_jax.weights.native import Model

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


class Transform(NamedTuple):
    """How an array changes on its way to the native layout, and on its way back."""

    name: str
    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]


def transpose(*axes: int) -> Transform:
    """Permutes axes."""
    inverse = np.argsort(axes)  # the permutation that undoes `axes`
    return Transform(
        f"transpose{axes}", lambda x: x.transpose(axes), lambda x: x.transpose(inverse)
    )


def reshape(native: Sequence[int], official: Sequence[int]) -> Transform:
    """Changes the shape alone; -1 is the size that is left."""
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


def layer(
    official: str, destination: str, transform: Transform = SAME, weight: str = "kernel"
) -> list[Rule]:
    """Rules of one layer of PyTorch, with weight and bias.

    Args:
      official: template of its name.
      destination: template of its native name.
      transform: of the weight.
      weight: native name of the weight: "kernel" in Flax's own layers, "weight" in those of StyleGAN2,
        "scale" in norms.
    """
    return [
        Rule(f"{official}.weight", f"{destination}.{weight}", transform),
        Rule(f"{official}.bias", f"{destination}.bias"),
    ]


class Match(NamedTuple):
    """One array's way through a table, for `--check`."""

    source: str
    destination: str | None
    transform: str
    shape: tuple[int, ...]


_FIELD = re.compile(r"\{(\w+)(?:([+-]\d+)|:([^}]*))?\}")


@functools.cache  # each rule is tried on each key
def _compile(template: str) -> re.Pattern[str]:
    pattern, end = "", 0
    for field in _FIELD.finditer(template):
        name, _, words = field.groups()
        # Six digits at most: a key of a stranger must not become a huge integer.
        value = words or "[0-9]{1,6}"
        pattern += re.escape(template[end : field.start()]) + f"(?P<{name}>{value})"
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
    # "conv_0" is no "conv_{j+1}": there is no number before 0.
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
      what: how messages call the source.
      expected: the shapes that the model needs, by destination, given those that were converted.

    Returns:
      The converted arrays by destination, and the way of each for a report.

    Raises:
      UserError: keys that no rule or several rules take, two keys with one destination, and arrays
        that are missing, unknown, misshapen, not finite or no floats, all in one message.
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
        # Two rules for one key would make the result depend on their order.
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
            # safetensors writes memory as it lies, so a transposed view must become an array of its own.
            converted[destination] = np.asarray(convert(array), order="C")
        except (ValueError, IndexError, TypeError) as error:
            problems.append(f"{key} {tuple(array.shape)}: {transform.name} failed ({error})")
            failed.add(destination)
    if expected is not None:
        try:
            shapes = expected({key: array.shape for key, array in converted.items()})
        except UserError as error:
            problems.append(str(error))
        else:
            # What failed above is not missing too.
            shapes = {key: shape for key, shape in shapes.items() if key not in failed}
            sources = {match.destination: match.source for match in matches}
            problems += trees.misfits(converted, shapes, sources)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UserError(f"{what} does not fit, {count}: {some(problems)}")
    return converted, matches


def build(
    kind: type[Model], rules: Iterable[Rule], official: Arrays, what: str, **settings: Any
) -> tuple[Model, list[Match]]:
    """Converts a state dict to a model, all of whose arrays it must hold.

    Args:
      kind: the class of the model.
      rules: its table.
      official: key -> array, as in the official file.
      what: how messages call it.
      **settings: fields of the architecture that do not follow from the shapes.

    Returns:
      The model, and each key's way.

    Raises:
      UserError: what does not fit, all in one message.
    """
    arrays, matches = apply(
        rules,
        official,
        what=what,
        expected=lambda shapes: kind.ARCHITECTURE.from_shapes(shapes, **settings).shapes(),
    )
    return native.model_from_arrays(kind, arrays, **settings), matches


def table(matches: Iterable[Match]) -> str:
    """Formats what was matched, one line an array."""
    rows = [
        {
            "key": match.source,
            "shape": str(match.shape),
            "transform": match.transform,
            "destination": match.destination or "(dropped)",
        }
        for match in matches
    ]
    return tables.plain(rows or [{"key": "(nothing)"}], heads=False)
