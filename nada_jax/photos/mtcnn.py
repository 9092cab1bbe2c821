"""The three networks of MTCNN (Zhang et al. 2016, arXiv:1604.02878) in NumPy, with the weights of the package `mtcnn`.

The package carries the weights (MIT licence, 2 MB), but computes with TensorFlow, of two gigabytes. Half a million
parameters need no more than this file. Images are [n, h, w, 3], (colour - 127.5) / 128.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nada_jax.errors import UserError

Weights = Sequence[np.ndarray]
POOLS_OF_REFINEMENT = ((3, True), (3, False), None)  # after each convolution: side, padded or not
POOLS_OF_OUTPUT = ((3, True), (3, False), (2, True), None)


class Networks(NamedTuple):
    """What sees 12, 24 and 48 pixels.

    Attributes:
      propose: images -> shifts of boxes [n, y, x, 4], probability of a face [n, y, x]; cells are 12 pixels wide, 2 apart.
      refine: images [n, 24, 24, 3] -> shifts of boxes [n, 4], probability [n].
      output: images [n, 48, 48, 3] -> shifts, landmarks [n, 5, 2] as shares of the box, probability.
    """

    propose: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    refine: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    output: Callable[[np.ndarray], tuple[np.ndarray, ...]]


@functools.cache
def networks() -> Networks:
    """Reads the weights once; UserError where the package that carries them is not installed."""
    # Found without importing the package, which would import TensorFlow.
    spec = importlib.util.find_spec("mtcnn")
    places = spec.submodule_search_locations if spec else None
    folder = Path(places[0] if places else "") / "assets" / "weights"
    if not folder.is_dir():
        raise UserError(
            "faces are found by weights of the package mtcnn, which is not installed; run "
            "`pip install -r requirements.txt`, or give landmarks"
        )
    import joblib  # comes with mtcnn, whose files are in its format

    first, second, third = (joblib.load(folder / f"{name}net.lz4") for name in "pro")
    return Networks(
        functools.partial(_propose, first),
        functools.partial(_refine, second),
        functools.partial(_output, third),
    )


def _propose(weights: Weights, x: np.ndarray) -> tuple[np.ndarray, ...]:
    x = _pool(_convolve(weights[:3], x), 2, padded=True)
    x = _convolve(weights[6:9], _convolve(weights[3:6], x))
    shift, logits = (x @ weights[i][0, 0] + weights[i + 1] for i in (9, 11))
    return shift, _probability(logits)


def _refine(weights: Weights, x: np.ndarray) -> tuple[np.ndarray, ...]:
    shift, logits = _heads(weights, x, POOLS_OF_REFINEMENT)
    return shift, _probability(logits)


def _output(weights: Weights, x: np.ndarray) -> tuple[np.ndarray, ...]:
    shift, points, logits = _heads(weights, x, POOLS_OF_OUTPUT)
    # All columns come first, then all rows.
    return shift, points.reshape(-1, 2, 5).swapaxes(1, 2), _probability(logits)


def _heads(
    weights: Weights, x: np.ndarray, pools: Sequence[tuple[int, bool] | None]
) -> list[np.ndarray]:
    """Convolutions and pools, a dense layer, and a dense layer for each output."""
    for i, pool in enumerate(pools):
        x = _convolve(weights[3 * i : 3 * i + 3], x)
        x = _pool(x, *pool) if pool else x
    x = x.swapaxes(1, 2).reshape(len(x), -1)  # columns first, as in MATLAB, where it was trained
    kernel, bias, slope, *heads = weights[3 * len(pools) :]
    x = _prelu(x @ kernel + bias, slope)
    return [x @ heads[i] + heads[i + 1] for i in range(0, len(heads), 2)]


def _convolve(weights: Weights, x: np.ndarray) -> np.ndarray:
    """Convolution without padding, bias, PReLU."""
    kernel, bias, slope = weights
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return _prelu(np.tensordot(windows, kernel, ((4, 5, 3), (0, 1, 2))) + bias, slope)


def _prelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x * slope.reshape(-1))


def _pool(x: np.ndarray, side: int, padded: bool) -> np.ndarray:
    """Maximum over windows that lie 2 apart; padded, the last may reach beyond the border."""
    if padded:
        beyond = [side - 2 + n % 2 for n in x.shape[1:3]]
        before_after = [(n // 2, n - n // 2) for n in beyond]
        x = np.pad(x, ((0, 0), *before_after, (0, 0)), constant_values=-np.inf)
    h, w = ((n - side) // 2 + 1 for n in x.shape[1:3])
    parts = (
        x[:, i : i + 2 * h - 1 : 2, j : j + 2 * w - 1 : 2] for i in range(side) for j in range(side)
    )
    return functools.reduce(np.maximum, parts)


def _probability(logits: np.ndarray) -> np.ndarray:
    """Of the second of two classes."""
    return (1 + np.tanh((logits[..., 1] - logits[..., 0]) / 2)) / 2
