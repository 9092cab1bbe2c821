"""Functions of batches, applied to arrays of any length."""

import numpy as np

from nada_jax import batches


def test_every_batch_has_one_size_and_its_padding_is_dropped():
    sizes = []

    def double(x, y):
        sizes.append(len(x))
        return {"sum": x + y}

    found = batches.apply(double, 4, np.arange(10), np.ones(10))
    assert sizes == [4, 4, 4] and np.array_equal(found["sum"], np.arange(1, 11))


def test_types_are_kept_and_progress_counts_rows():
    reports = []
    found = batches.apply(
        np.sqrt, 4, np.arange(6, dtype=np.float32), report=lambda *counts: reports.append(counts)
    )
    assert found.dtype == np.float32 and reports == [(4, 6), (6, 6)]
