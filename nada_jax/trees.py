"""Nested dictionaries of arrays as flat tables, and back."""

from collections.abc import Mapping
from typing import Any

SEPARATOR = "."


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turns {"a": {"b": x}} into {"a.b": x}.

    Args:
      tree: nested dictionaries with string keys that hold no ".".
      prefix: put before every key.

    Returns:
      One flat dictionary, in the order of the tree.
    """
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}{SEPARATOR}")
        else:
            flat[prefix + key] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turns {"a.b": x} into {"a": {"b": x}}; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def misfits(arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Compares flat arrays with the shapes that a model needs.

    Args:
      arrays: by flat path.
      expected: shapes by flat path.

    Returns:
      One phrase for each array that is missing, unknown or misshapen.
    """
    problems = []
    for path in expected.keys() | arrays.keys():
        if path not in arrays:
            problems.append(f"{path} {tuple(expected[path])} is missing")
        elif path not in expected:
            problems.append(f"{path} {tuple(arrays[path].shape)} has no place in the model")
        elif tuple(arrays[path].shape) != tuple(expected[path]):
            held, needed = tuple(arrays[path].shape), tuple(expected[path])
            problems.append(f"{path} has shape {held}, expected {needed}")
    return problems
