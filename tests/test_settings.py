"""Sections of a config check themselves, and name fields as the user wrote them."""

import math
from typing import Annotated

import jax
import numpy as np
import pytest

from nada_jax import settings
from nada_jax.errors import UserError
from nada_jax.settings import Count, NonNegative, Positive, Section, Seed, Share, at_least, one_of


class Part(Section, name="part"):
    k: Count
    mode: Annotated[str, one_of(("fast", "slow"))]
    names: tuple[str, ...]
    share: Share


class Whole(Section):
    rate: Positive
    flag: bool
    part: Part

    def check(self):
        self.need(self.rate < self.part.k, "rate", "less than part.k")


class Outer(Section):
    inner: Whole


PART = {"k": 2, "mode": "fast", "names": ("a",), "share": 0.5}
WHOLE = {"rate": 0.5, "flag": True, "part": PART}


def test_a_config_is_read_into_sections_within_sections():
    whole = Whole.read(WHOLE)
    assert whole == Whole(rate=0.5, flag=True, part=Part(**PART))
    assert Whole.read(WHOLE | {"rate": 1}).rate == 1  # whole numbers pass for numbers
    assert settings.fields(Whole) == {
        "rate", "flag", "part.k", "part.mode", "part.names", "part.share",
    }  # fmt: skip
    with pytest.raises(AttributeError):
        whole.rate = 1.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"k": 0}, "part.k is 0; expected a whole number from 1"),
        ({"k": 1.0}, "part.k is 1.0; expected a whole number from 1"),
        ({"k": True}, "part.k is True; expected a whole number from 1"),
        ({"mode": "idle"}, "part.mode is 'idle'; expected one of fast, slow"),
        ({"names": ("a", 1)}, r"part.names is \('a', 1\); expected a tuple, each element a text"),
        ({"names": "a"}, "part.names is 'a'; expected a tuple, each element a text"),
        ({"share": math.nan}, "part.share is nan; expected a share in 0..1"),
        ({"speed": 1}, "part.speed is unknown; expected all of k, mode, names, share"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_would_be_right(fields, said):
    with pytest.raises(UserError, match=f"^{said}$"):
        Whole.read(WHOLE | {"part": PART | fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rate": -1.0}, "rate is -1.0; expected a number above 0"),
        ({"rate": math.inf}, "rate is inf; expected a number above 0"),
        ({"rate": 9.0}, "rate is 9.0; expected less than part.k"),
        ({"flag": 1}, "flag is 1; expected True or False"),
    ],
)
def test_fields_at_the_top_and_their_relations_are_checked(fields, said):
    with pytest.raises(UserError, match=f"^{said}$"):
        Whole.read(WHOLE | fields)


def test_a_value_in_place_of_a_section_is_named():
    said = "part is 'zombie'; expected a section with k, mode, names, share"
    with pytest.raises(UserError, match=f"^{said}$"):
        Whole.read(WHOLE | {"part": "zombie"})
    with pytest.raises(UserError, match=f"^inner.{said}$"):
        Outer.read({"inner": WHOLE | {"part": "zombie"}})


def test_a_missing_field_is_named():
    with pytest.raises(
        UserError, match="^flag is missing in the config; expected all of rate, flag, part$"
    ):
        Whole.read({"rate": 0.5, "part": PART})


def test_a_config_within_a_config_names_its_fields_in_full():
    with pytest.raises(UserError, match="^inner.part.k is 0; expected a whole number from 1$"):
        Outer.read({"inner": WHOLE | {"part": PART | {"k": 0}}})
    assert "inner.part.k" in settings.fields(Outer)


def test_a_section_is_extended_by_the_rows_of_a_table():
    wide = Part.extended({"x": NonNegative, "y": Annotated[int, at_least(3)]})
    assert wide.path("x") == "part.x"
    assert wide(**PART, x=0.0, y=3).y == 3
    with pytest.raises(UserError, match="part.y is 2; expected a whole number from 3"):
        wide(**PART, x=0.0, y=2)
    other = Section.extended({"weights": str}, "lpips")
    assert other.path("weights") == "lpips.weights"


def test_the_numbers_of_numpy_count_as_numbers():
    part = Part(**PART | {"k": np.int64(3), "share": np.float32(0.5)})
    assert part.k == 3 and part.share == 0.5
    with pytest.raises(UserError, match="part.k is .*; expected a whole number from 1"):
        Part(**PART | {"k": np.float64(3.0)})


class Drawn(Section):
    seed: Seed


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1, np.int64(2**32 - 1), np.uint32(2**32 - 1)])
def test_every_seed_is_another_key(seed):
    seed = Drawn(seed=seed).seed
    assert np.asarray(jax.random.key_data(jax.random.key(seed)))[-1] == int(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, np.int64(2**32), True, 1.0])
def test_a_seed_of_which_jax_would_keep_a_part_is_refused(seed):
    with pytest.raises(UserError, match=r"^seed is .*; expected a whole number in 0\.\.2\^32 - 1$"):
        Drawn(seed=seed)
