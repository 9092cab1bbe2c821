"""Checkpoints come back bit by bit, and say what is wrong with them."""

import contextlib
import errno
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nada_jax.errors import UserError
from nada_jax.runs.checkpoints import Checkpoints


def state(value):
    params = {"a": jnp.full(3, value), "b": {"c": jnp.arange(4.0) * value}}
    return {"params": params, "opt": optax.adam(0.1).init(params), "step": jnp.int32(value)}


def test_the_whole_state_comes_back(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        assert checkpoints.latest() is None
        for step in (1, 2, 3):
            checkpoints.save(step, state(step + 0.1))
        assert checkpoints.latest() == 3
        restored = checkpoints.restore(3, state(0.0))
    same = jax.tree.map(np.array_equal, restored, state(3.1))
    assert all(jax.tree.leaves(same))
    assert jax.tree.structure(restored) == jax.tree.structure(state(0.0))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


@contextlib.contextmanager
def limit(size):
    """No file may become larger: what stands here for a full disk."""
    resource = pytest.importorskip("resource")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_checkpoint_that_does_not_fit_the_disk_is_one_sentence_and_leaves_nothing(
    tmp_path, capfd
):
    random = jnp.asarray(np.random.default_rng(0).standard_normal((8, 100_000), np.float32))
    many = {str(i): row for i, row in enumerate(random)}  # the first failure leaves others waiting
    small = {str(i): jnp.zeros(3) for i in range(8)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small)
        said = f"^cannot write checkpoint {tmp_path}/2: File too large$"
        with limit(100_000), pytest.raises(UserError, match=said):
            checkpoints.save(2, many)
        assert checkpoints.latest() == 1
        assert os.listdir(tmp_path) == ["1"]
        checkpoints.restore(1, small)
    assert capfd.readouterr().err == ""


def test_a_checkpoint_of_another_shape_is_refused_by_its_path(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": jnp.ones(3)})
        with pytest.raises(UserError, match=f"checkpoint {tmp_path}/1 does not fit"):
            checkpoints.restore(1, {"b": jnp.ones(3)})


def test_a_failure_that_was_told_is_not_raised_again_at_the_end(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    left = tmp_path / "1.orbax-checkpoint-tmp"

    def fail(*_, **__):
        left.mkdir(exist_ok=True)  # what runs in the background goes on for a while
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", fail)
    monkeypatch.setattr(checkpoints._manager, "close", fail)
    with (
        pytest.raises(UserError, match=r"cannot write checkpoint .*/1: No space left"),
        checkpoints,
    ):
        checkpoints.save(1, {"x": np.zeros(2)})
    assert not left.exists()
