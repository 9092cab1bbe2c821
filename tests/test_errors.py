"""What a file provokes while it is parsed, and what it cannot provoke."""

import struct

import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.errors import UserError, enough_memory, reading


@pytest.mark.parametrize(
    "damage",
    [KeyError("w"), TypeError("no"), ValueError("no"), struct.error("short"), EOFError()]
    + [RecursionError("deep"), NotImplementedError("method"), ZeroDivisionError()],
)
def test_whatever_a_damaged_file_provokes_names_the_file(damage):
    with (
        pytest.raises(UserError, match="cannot read x.pt: it is damaged") as error,
        reading("x.pt"),
    ):
        raise damage
    assert error.value.__cause__ is damage


@pytest.mark.parametrize(
    "ours",
    [RuntimeError("Unable to initialize backend 'cuda'"), ImportError("torch"), NameError("x")],
)
def test_bugs_missing_packages_and_devices_are_not_reported_as_damage(ours):
    with pytest.raises(type(ours)) as error, reading("x.pt"):
        raise ours
    assert error.value is ours


def test_a_lack_of_memory_is_reported_as_such():
    said = "cannot read x.pt: there is not enough memory"
    with pytest.raises(UserError, match=said), reading("x.pt"):
        raise MemoryError


def test_a_file_that_cannot_be_opened_says_why():
    said = "cannot read x.pt: Permission denied"
    with pytest.raises(UserError, match=said), reading("x.pt"):
        raise PermissionError(13, "Permission denied")


def test_messages_name_the_file_once():
    for said in ("it is empty", "x.pt: it is empty"):
        with pytest.raises(UserError) as error, reading("x.pt"):
            raise UserError(said)
        assert str(error.value) == "x.pt: it is empty"


@pytest.mark.parametrize(
    ("allocate", "said"),
    [
        (
            lambda: jnp.zeros(2**52, jnp.uint8).block_until_ready(),
            "RESOURCE_EXHAUSTED: Out of memory",
        ),
        (lambda: np.zeros(2**52, np.uint8), "Unable to allocate 4.00 PiB"),
        (lambda: bytearray(2**62), "MemoryError"),
    ],
)
def test_a_lack_of_memory_names_what_takes_less(allocate, said):
    with (
        pytest.raises(
            UserError, match=rf"^there is not enough memory \({said}.*\); lower batch_size$"
        ),
        enough_memory("lower batch_size"),
    ):
        allocate()


@pytest.mark.parametrize(
    "other", [RuntimeError("Unable to initialize"), ValueError("bad"), OSError()]
)
def test_other_failures_are_no_lack_of_memory(other):
    with pytest.raises(type(other)) as error, enough_memory("lower batch_size"):
        raise other
    assert error.value is other
