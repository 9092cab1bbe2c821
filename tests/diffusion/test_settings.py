"""Settings of drawing: the report's schedule of the weight, and what contradicts itself."""

import numpy as np
import pytest

from nada_jax.errors import UserError


def test_the_weight_follows_its_schedule(make_guidance):
    """Weight 0.6, times 1.5 from step 50 of 100 on, and none in the first 20."""
    weights = make_guidance(weight=0.6, boost=1.5, free=0.2).weights(100)
    expected = [0.0] * 20 + [0.6] * 30 + [0.9] * 50
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights.dtype == np.float32


@pytest.mark.parametrize("total", [1, 3, 7, 10, 50, 51, 1000])
def test_shares_of_decimals_fall_on_the_step_that_they_name(make_guidance, total):
    weights = make_guidance(free=0.3, until=0.7).weights(total)
    guided = np.flatnonzero(weights)
    first, stop = -(-3 * total // 10), -(-7 * total // 10)
    assert list(guided) == list(range(first, stop))


def test_steps_are_repeated_within_their_range_where_something_guides(make_guidance):
    section = make_guidance(repeats=4, repeat_from=0.2, repeat_until=0.6, free=0.4)
    np.testing.assert_array_equal(section.counts(10), [1] * 4 + [4] * 2 + [1] * 4)


def test_without_weight_nothing_is_needed(make_guidance):
    section = make_guidance({"l2": 0.0}, weight=0.0, reference="", vgg="", free=1.0)
    assert not section.on


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weight": -1.0}, "guidance.weight is -1.0; expected a number in 0..1,000,000"),
        ({"weight": float("nan")}, "guidance.weight is nan; expected a number"),
        ({"free": 0.5, "until": 0.5}, "guidance.free is 0.5; expected a share below guidance.until, 0.5"),
        ({"free": 20.0}, "guidance.free is 20.0; expected a share in 0..1"),
        ({"through": "unet"}, "guidance.through is 'unet'; expected one of denoiser, estimate"),
        ({"scaling": "sqrt"}, "guidance.scaling is 'sqrt'; expected one of noise, gradient, freedom"),
        ({"repeats": 0}, "guidance.repeats is 0; expected a whole number in 1..1000"),
        ({"repeats": 2, "repeat_from": 0.8, "repeat_until": 0.4},
         "guidance.repeat_from is 0.8; expected a share below guidance.repeat_until, 0.4"),
        ({"backward": 10**6}, "guidance.backward is 1000000; expected a whole number in 0..1000"),
        ({"backward_rate": 0.0}, "guidance.backward_rate is 0.0; expected a number above 0"),
        ({"remat": 1}, "guidance.remat is 1; expected True or False"),
    ],
)  # fmt: skip
def test_guidance_that_cannot_be_is_named_in_a_sentence(make_guidance, fields, said):
    with pytest.raises(UserError, match=said):
        make_guidance(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "heun"}, "sampler.method is 'heun'; expected one of ddim, pndm, euler"),
        ({"method": "pndm", "eta": 0.5}, "sampler.eta is 0.5; expected 0: pndm draws no noise, as ddim can"),
        ({"steps": 0}, "sampler.steps is 0; expected a whole number from 1"),
        ({"scale": -1.0}, "sampler.scale is -1.0; expected a number in 0..1000"),
        ({"size": -64}, "sampler.size is -64; expected pixels of a side"),
        ({"size": 10**9}, "sampler.size is 1000000000; expected pixels of a side"),
        ({"size": 100}, "sampler.size is 100; expected a multiple of 8 for this model, or 0 for its own 16"),
    ],
)  # fmt: skip
def test_samplers_that_cannot_be_are_named_in_a_sentence(make_sampling, normal, fields, said):
    with pytest.raises(UserError, match=said):
        make_sampling(**fields).side(normal)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_scaling_by_words_needs_words(make_guidance, make_sampling, scale):
    with pytest.raises(
        UserError,
        match="guidance.scaling is 'freedom'; expected another one, or another sampler.scale",
    ):
        make_guidance(scaling="freedom").check_against(make_sampling(scale=scale), 10)


def test_some_step_has_to_be_left_to_guide(make_guidance, make_sampling):
    said = "guidance.free=0.9, guidance.until=1 and guidance.boost=1 leave none of 5 steps to guide"
    with pytest.raises(UserError, match=said):
        make_guidance(free=0.9).check_against(make_sampling(), 5)
    make_guidance(free=0.9).check_against(make_sampling(), 10)
