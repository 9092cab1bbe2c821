import ml_dtypes
import numpy as np
import pytest

from nada_jax import trees


def test_trees_become_flat_and_nested_again():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert trees.flatten(tree) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert trees.unflatten(trees.flatten(tree)) == tree


def test_missing_unknown_and_misshapen_arrays_are_named():
    arrays = {"b": np.zeros(4), "c": np.zeros(1), "d": np.zeros((2, 3))}
    assert sorted(trees.misfits(arrays, {"a": (2,), "b": (3,), "d": (2, 3)})) == [
        "a (2,) is missing",
        "b has shape (4,), expected (3,)",
        "c (1,) has no place in the model",
    ]


FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_finite_floats_of_any_size_are_good_and_one_nan_or_infinity_is_named(dtype, shape):
    good = np.full(shape, -6e4, dtype).T  # near the largest number of float16; not contiguous
    assert trees.misfits({"w": good}, {"w": good.shape}) == []
    for value in (np.nan, np.inf, -np.inf):
        bad = good.copy()
        bad[(0,) * bad.ndim if bad.size else ...] = value
        said = trees.misfits({"w": bad}, {"w": bad.shape}, {"w": "conv.weight"})
        assert said == ["conv.weight holds NaN or infinity"] * (bad.size > 0)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones(2, np.int64), "holds int64, expected floats"),
        (np.ones(2, bool), "holds bool, expected floats"),
        (np.ones(2, np.complex64), "holds complex64, expected floats"),
        (np.array([1e39]), "holds NaN or infinity"),  # more than float32 can hold
        (np.array(np.nan, np.float32), "holds NaN or infinity"),
    ],
)
def test_arrays_that_cannot_be_weights_are_told(array, said):
    assert trees.unusable(array) == said
