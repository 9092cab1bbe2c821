import numpy as np
import pytest

from convert import rules
from convert.rules import Rule
from nada_jax.errors import UserError

RULES = [
    Rule("convs.{j}.weight", "conv_{j+1}.kernel", rules.transpose(2, 1, 0)),
    Rule("{side:left|right}.{n}.scale", "{side:left|right}_{n}.scale"),
    Rule("bias", "bias", rules.reshape((3,), (1, 3, 1))),
    Rule("strength", "strength", rules.chain(rules.reshape((1,), ()), rules.reshape((), (1,)))),
    Rule("convs.{j}.blur", None),
]


def arrays(**shapes):
    random = np.random.default_rng(0)
    return {key: random.standard_normal(shape) for key, shape in shapes.items()}


OFFICIAL = arrays(
    **{"convs.0.weight": (2, 3, 4), "convs.11.weight": (5,) * 3, "left.2.scale": (4,)},
    **{"bias": (1, 3, 1), "strength": ()},
)


def test_numbers_shift_words_carry_over_and_arrays_change():
    native, matches = rules.apply(RULES, OFFICIAL)
    assert set(native) == {"conv_1.kernel", "conv_12.kernel", "left_2.scale", "bias", "strength"}
    assert native["conv_1.kernel"].shape == (4, 3, 2)
    assert native["conv_1.kernel"].flags.c_contiguous
    assert [match.source for match in matches] == list(OFFICIAL)


def test_backward_is_the_inverse_and_scalars_stay_scalars():
    native, _ = rules.apply(RULES, OFFICIAL)
    official, _ = rules.apply(RULES, native, backward=True)
    assert set(official) == set(OFFICIAL)
    for key, array in OFFICIAL.items():
        np.testing.assert_array_equal(official[key], array, strict=True)


def test_a_rule_without_destination_drops_by_name():
    native, matches = rules.apply(RULES, arrays(**{"convs.3.blur": (4, 4)}))
    assert not native
    assert matches[0].destination is None


def test_keys_that_fit_no_rule_or_several_are_reported_together():
    twice = [*RULES, Rule("bias", "other_bias")]
    wrong = arrays(**{"up.weight": (1,), "convs.a.weight": (1,), "middle.0.scale": (1,)}, bias=3)
    with pytest.raises(UserError, match="file.pt does not fit, 4 problems") as error:
        rules.apply(twice, wrong, what="file.pt")
    assert "bias (3,): 2 rules take it" in str(error.value)
    for key in ("up.weight", "convs.a.weight", "middle.0.scale"):
        assert f"{key} (1,): no rule takes it" in str(error.value)


def test_two_keys_with_one_destination_and_misfits_are_refused():
    clash = [Rule("a", "x"), Rule("b", "x"), Rule("c", "c", rules.transpose(1, 0))]
    with pytest.raises(UserError, match="b: x is already taken.*transpose.* failed"):
        rules.apply(clash, arrays(a=2, b=2, c=2))


def test_a_number_that_would_become_negative_does_not_match():
    with pytest.raises(UserError, match="conv_0.kernel.*no rule takes it"):
        rules.apply(RULES, arrays(**{"conv_0.kernel": (1, 1, 1)}), backward=True)


def test_what_the_model_needs_is_compared_with_what_was_converted():
    table, expected = [Rule("{name:[abc]}", "{name:[abc]}")], {"a": (2,), "b": (3,)}
    rules.apply(table, arrays(a=2, b=3), expected=lambda _: expected)
    with pytest.raises(UserError, match="file.pt does not fit, 4 problems") as error:
        rules.apply(table, arrays(b=4, c=1, d=1), what="file.pt", expected=lambda _: expected)
    for said in (
        "a (2,) is missing",
        "b has shape (4,), expected (3,)",
        "c (1,) has no place in the model",
        "d (1,): no rule takes it",
    ):
        assert said in str(error.value)


def test_table_shows_every_key():
    _, matches = rules.apply(RULES, OFFICIAL | arrays(**{"convs.3.blur": (4, 4)}))
    lines = rules.table(matches).splitlines()
    assert len(lines) == len(OFFICIAL) + 1
    assert lines[-1].endswith("(dropped)")
