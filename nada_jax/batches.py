"""Applies a jitted function to many rows, a batch at a time: memory stays bounded, and one shape is compiled."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np


def split(count: int, size: int) -> Iterator[np.ndarray]:
    """Indices of rows, `size` at a time; the last batch repeats the last row, so that all have one shape.

    Args:
      count: rows in all, at least 1.
      size: rows of a batch.

    Yields:
      Indices [size] in 0..count - 1.
    """
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1)


def apply(
    function: Callable[..., Any],
    size: int,
    *arrays: np.ndarray,
    report: Callable[[int, int], None] | None = None,
) -> Any:
    """Applies a function of batches to arrays of any length.

    Args:
      function: jitted; takes batches [size, ...], returns a tree of arrays [size, ...].
      size: rows of a batch.
      *arrays: [n, ...], all of one n of at least 1.
      report: is called after each batch with the number of finished rows and n.

    Returns:
      A tree of numpy arrays [n, ...].
    """
    count, results = len(arrays[0]), []
    for rows in split(count, size):
        # To the host at once: results of thousands of images would fill the memory of a device.
        results.append(jax.device_get(function(*(array[rows] for array in arrays))))
        if report is not None:
            report(min(len(results) * size, count), count)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)


def every_tenth(what: str) -> Callable[[int, int], None]:
    """A report of progress that prints ten lines over the whole work, however long it is.

    Args:
      what: is done, in words.

    Returns:
      (finished, all) -> None.
    """
    said = 0

    def report(done: int, total: int) -> None:
        nonlocal said
        if (tenths := 10 * done // total) > said:
            said = tenths
            print(f"{what}: {done}/{total}", flush=True)

    return report
