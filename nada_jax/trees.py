"""Trees of arrays as flat tables, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

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


def enumerated(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of any kind by their place in it: {"state_000": x, ...}, as a snapshot holds them."""
    return {f"state_{i:03d}": x for i, x in enumerate(jax.tree.leaves(tree))}


def restored(like: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A tree of the structure of another with the arrays of `enumerated`."""
    leaves = [jnp.asarray(arrays[name]) for name in enumerated(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def misfits(
    arrays: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str] | None = None,
) -> list[str]:
    """Compares flat arrays of a file with the shapes that a model needs.

    Args:
      arrays: by flat path.
      expected: shapes by flat path.
      names: what the file calls an array, by flat path; used where its values are wrong.

    Returns:
      One phrase for each array that is missing, unknown, misshapen or `unusable`.
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
        elif wrong := unusable(arrays[path]):
            problems.append(f"{(names or {}).get(path, path)} {wrong}")
    return problems


def unusable(array: Any) -> str:
    """Says why an array out of a file cannot be weights.

    Args:
      array: of any type.

    Returns:
      A phrase: it holds no floats, or values that are not finite in float32; "" where it is good.
    """
    array = np.asarray(array)
    half = array.dtype in (np.float16, ml_dtypes.bfloat16)
    if not half and array.dtype.kind != "f":
        return f"holds {array.dtype}, expected floats"
    if half:
        # By their bits, in which infinity and NaN have all of the exponent's: numpy computes with halves in
        # software, ten times as slowly.
        bits, exponent = array.view(np.uint16), np.array(np.inf, array.dtype).view(np.uint16)
        finite = ((bits & exponent) != exponent).all()
    else:
        with np.errstate(over="ignore"):  # float64 may exceed float32
            finite = np.isfinite(array.astype(np.float32, copy=False)).all()
    return "" if finite else "holds NaN or infinity"
