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
    """What differs between flat arrays and the shapes that they should have, one sentence each."""
    shapes = {path: tuple(array.shape) for path, array in arrays.items()}
    return [
        f"{path}: {shapes.get(path, 'missing')}, expected {expected.get(path, 'nothing')}"
        for path in shapes.keys() | expected.keys()
        if shapes.get(path) != expected.get(path)
    ]
