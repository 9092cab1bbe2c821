"""Drawing as tasks do: chunks, seeds, batches; and guidance that does what it says."""

import jax
import numpy as np
import pytest

from nada_jax.diffusion.samplers import SAMPLERS
from nada_jax.diffusion.sampling import prepare
from nada_jax.errors import UserError

GREY = np.full((1, 16, 16, 3), 0.8, np.float32)
SEEDS = (3, 2**32 - 1, 7)


def draw(drawing, seeds=SEEDS):
    """All steps: latents, path, losses."""
    state, paths = drawing.start(seeds), []
    for i in range(drawing.chunks):
        state, path = drawing.advance(state, i)
        paths.append(jax.tree.map(np.asarray, path))
    path = jax.tree.map(lambda *parts: np.concatenate(parts), *paths)
    return np.asarray(state.carry.x), path.clean, path.losses


@pytest.fixture(scope="module")
def make(normal, make_sampling, make_guidance):
    """make(sampling, guidance, chunk=3) -> a drawing around 0.5, guided towards a grey."""

    def prepared(sampling=(), guidance=None, prompts=("0.5",), **fields):
        section = None if guidance is None else make_guidance(**guidance)
        return prepare(
            normal, make_sampling(**dict(sampling)), section, prompts, content=GREY, **fields
        )

    return prepared


@pytest.mark.parametrize("method", SAMPLERS)
def test_weight_0_is_the_unguided_sampler_bit_by_bit(make, method):
    settings = {"method": method, "eta": 0.5 * (method == "ddim"), "scale": 2.0}
    for found, expected in zip(
        draw(make(settings, {"weight": 0.0})), draw(make(settings)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", SAMPLERS)
def test_guided_images_come_nearer_to_what_guides_them(make, normal, method):
    """By half and more, with the weight of the report; and more so the longer it guides."""
    settings = {"method": method, "steps": 20}

    def distance(guidance):
        images = normal.decode(draw(make(settings, guidance))[0])
        return ((images - GREY) ** 2).mean(axis=(1, 2, 3))

    plain, late, whole = (
        distance(x) for x in ({"weight": 0.0}, {"weight": 0.6, "free": 0.5}, {"weight": 0.6})
    )
    assert (whole < 0.5 * plain).all() and (whole < late).all() and (late < plain).all()


def test_the_path_has_a_row_for_each_step_whatever_the_chunks(make):
    for method, steps in (("ddim", 7), ("pndm", 8)):
        drawing = make({"method": method, "steps": 7}, {"free": 0.5})
        latents, clean, losses = draw(drawing)
        assert drawing.steps == steps and clean.shape == (steps, 3, 8, 8, 4)
        # Steps before half of them are free, and have no loss.
        np.testing.assert_array_equal(
            np.isnan(losses["l2"]).any(axis=1), np.arange(steps) < steps / 2
        )
        cut = draw(make({"method": method, "steps": 7}, {"free": 0.5}, chunk=3))
        np.testing.assert_allclose(cut[0], latents, atol=1e-5)
        np.testing.assert_allclose(cut[1], clean, atol=1e-5)


def test_a_run_that_was_saved_goes_on_bit_by_bit(make):
    drawing = make({"eta": 1.0}, {"repeats": 2}, chunk=5)
    state, _ = drawing.advance(drawing.start(SEEDS), 0)
    leaves, tree = jax.tree.flatten(state)
    again = jax.tree.unflatten(tree, [np.array(x) for x in leaves])
    for one, other in zip(
        *(jax.tree.leaves(drawing.advance(x, 1)) for x in (state, again)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_seed_draws_the_same_image_in_any_batch_and_each_its_own(make):
    drawing = make({"eta": 1.0, "scale": 3.0}, {"repeats": 2})
    latents, clean, _ = draw(drawing)
    alone, path, _ = draw(drawing, SEEDS[1:2])
    np.testing.assert_allclose(alone, latents[1:2], atol=1e-5)
    np.testing.assert_allclose(path, clean[:, 1:2], atol=1e-5)
    assert np.abs(latents[0] - latents[1]).max() > 0.1
    np.testing.assert_array_equal(draw(drawing)[0], latents)


def test_images_of_a_batch_may_have_prompts_of_their_own(make):
    latents, _, _ = draw(make(prompts=("-2", "0", "2")))
    assert np.all(np.diff(latents.mean(axis=(1, 2, 3))) > 1.5)


def test_the_compiler_says_how_much_memory_a_batch_takes(make):
    drawing = make()
    path = 4 * drawing.chunk * 8 * 8 * 4  # bytes of each image
    few, many = (drawing.memory(drawing.start(range(count))) for count in (2, 6))
    assert many > few > 2 * path


def test_a_large_image_of_a_small_model(make):
    assert draw(make({"size": 32}), SEEDS[:1])[0].shape == (1, 16, 16, 4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompts": (" ",)}, "prompt is blank .*; expected words such as"),
        ({"sampling": {"steps": 5000}}, "sampler.steps is 5000; expected 1 to 1,000 steps"),
        ({"sampling": {"size": 20}}, "sampler.size is 20; expected a multiple of 8"),
        ({"guidance": {"scaling": "freedom"}}, "guidance.scaling is 'freedom'"),
    ],
)
def test_what_cannot_be_drawn_is_named_in_a_sentence(make, fields, said):
    with pytest.raises(UserError, match=said):
        make(**fields)


def test_a_network_is_guided_through(tiny_diffusion, make_sampling, make_guidance):
    style = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    section = make_guidance({"mean_variance": 1.0}, weight=0.3)
    sampling = make_sampling(steps=2, scale=7.5)
    drawing = prepare(tiny_diffusion, sampling, section, ["red hair"], reference=style)
    latents, clean, losses = draw(drawing, (1, 2))
    images = np.asarray(drawing.decode(latents))
    assert images.shape == (2, 16, 16, 3) and np.isfinite(images).all()
    assert np.isfinite(losses["mean_variance"]).all()
