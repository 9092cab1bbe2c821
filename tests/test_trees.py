import numpy as np

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
