"""Guidance by words and by losses, on a model whose true estimates are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.diffusion import samplers
from nada_jax.diffusion.guidance import SCALINGS, Words, as_unit, guided, size, unguided
from nada_jax.diffusion.objectives import Guide
from nada_jax.models.noise import clean_of

GREY = np.full((1, 16, 16, 3), 0.8, np.float32)


@pytest.fixture(scope="module")
def at(normal):
    """The step in the middle of ten."""
    times = samplers.ddim_times(normal.schedule, 10)
    return jax.tree.map(lambda x: x[5], times)


@pytest.fixture(scope="module")
def x():
    return samplers.noise(keys(2), (8, 8, 4))


def keys(count):
    return jax.random.split(jax.random.key(0), count)


@pytest.fixture(scope="module")
def ask(normal, make_guidance, at, x):
    """ask(weight=1.0) -> estimate, clean latents and losses at `x`, guided by the distance from grey images."""

    def make(scale=1.0, loss=None, **fields):
        section = make_guidance(loss, **fields)
        guide = Guide.load(section, 16, content=GREY, reference=GREY)
        negatives = None if scale == 1 else normal.embed_texts(["-0.5"])
        words = Words(normal, normal.embed_texts(["0.5"]), negatives, scale)
        denoise = guided(words, guide, section.how(10))
        eps, clean, (_, losses) = jax.jit(denoise)(x, at, keys(2))
        return eps, clean, losses

    return make


@pytest.fixture(scope="module")
def plain(normal, at, x):
    """The same without guidance."""
    eps, clean, _ = unguided(Words(normal, normal.embed_texts(["0.5"])))(x, at, keys(2))
    return eps, clean


def distance(normal, clean):
    return jnp.mean((normal.decode(clean) - GREY) ** 2, axis=(1, 2, 3))


def test_words_move_the_estimate_away_from_the_negatives_by_the_scale(normal, at, x):
    wanted, avoided = (normal.embed_texts([text]) for text in ("0.5", "-0.5"))
    one, nothing = Words(normal, wanted, None, 1.0).estimate(x, at)
    other, _ = Words(normal, avoided, None, 1.0).estimate(x, at)
    found, added = Words(normal, wanted, avoided, 7.5).estimate(x, at)
    np.testing.assert_allclose(found, other + 7.5 * (one - other), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(added, 7.5 * (one - other), rtol=1e-4, atol=1e-5)
    assert not nothing.any()
    same, _ = Words(normal, wanted, avoided, 1.0).estimate(x, at)
    np.testing.assert_allclose(same, one, atol=1e-6)


def test_each_image_has_its_own_words(normal, at, x):
    both, _ = Words(
        normal, normal.embed_texts(["1", "-1"]), normal.embed_texts(["0"]), 3.0
    ).estimate(x, at)
    for i, text in enumerate(("1", "-1")):
        alone = Words(normal, normal.embed_texts([text]), normal.embed_texts([""]), 3.0)
        np.testing.assert_allclose(both[i : i + 1], alone.estimate(x[i : i + 1], at)[0], atol=1e-6)


def test_the_correction_is_the_gradient_in_units_of_the_noise(normal, at, x, ask, plain):
    eps, clean = plain
    found, moved, losses = ask(weight=0.6, through="estimate")
    # The mean of squares over 16 x 16 x 3 numbers; each latent makes four of them, its fourth channel none.
    gradient = jnp.concatenate([clean[..., :3] - 0.8, jnp.zeros((2, 8, 8, 1))], axis=-1)
    expected = eps + 0.6 * np.sqrt(1 - at.alpha) * as_unit(gradient)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved, clean_of(found, x, at.alpha), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses["l2"], distance(normal, clean), rtol=1e-5)
    assert (distance(normal, moved) < distance(normal, clean)).all()


def test_through_the_denoiser_the_gradient_knows_how_much_of_it_the_step_decides(
    normal, at, ask, plain
):
    """d clean / d x of normal data is sqrt(a) s^2 / (a s^2 + 1 - a), which changes the length alone."""
    eps, _ = plain
    same = [ask(through=x)[0] for x in ("denoiser", "estimate")]
    np.testing.assert_allclose(*same, atol=1e-5)
    through, short = (
        ask(weight=50.0, scaling="gradient", through=x)[0] - eps for x in ("denoiser", "estimate")
    )
    s2 = normal.deviation**2
    share = np.sqrt(at.alpha) * s2 / (at.alpha * s2 + 1 - at.alpha)
    np.testing.assert_allclose(through, share * short, atol=1e-4 * float(jnp.abs(through).max()))


def test_freedom_corrects_by_the_size_of_what_words_add(normal, at, x, ask):
    words = Words(normal, normal.embed_texts(["0.5"]), normal.embed_texts(["-0.5"]), 4.0)
    eps, added = words.estimate(x, at)
    found, _, _ = ask(scale=4.0, weight=0.3, scaling="freedom")
    np.testing.assert_allclose(size(found - eps), 0.3 * size(added), rtol=1e-4)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("through", ["denoiser", "estimate"])
def test_weights_of_0_change_no_number_and_see_no_loss(ask, plain, scaling, through):
    """Steps before `free` are free; here all but the last one."""
    eps, clean, losses = ask(free=0.9, scaling=scaling, through=through)
    for found, expected in zip((eps, clean), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.isnan(losses["l2"]).all()


def test_steps_on_the_clean_latents_come_nearer(normal, x, at, ask):
    _, before, _ = ask(weight=1e-3)
    eps, after, _ = ask(weight=1e-3, backward=10, backward_rate=0.2)
    assert (distance(normal, after) < 0.5 * distance(normal, before)).all()
    np.testing.assert_allclose(clean_of(eps, x, at.alpha), after, rtol=1e-3, atol=1e-4)


def test_repeated_steps_come_nearer_than_one(normal, ask):
    _, once, _ = ask(weight=0.3)
    _, often, _ = ask(weight=0.3, repeats=6)
    assert (distance(normal, often) < distance(normal, once)).all()
    # Outside of their range, steps are taken once.
    _, beyond, _ = ask(weight=0.3, repeats=6, repeat_from=0.6)
    np.testing.assert_allclose(beyond, once, atol=1e-6)


def test_blocks_computed_again_give_the_same_gradient(tiny_diffusion):
    model, x = tiny_diffusion, jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
    words = jax.random.normal(jax.random.key(1), (1, 4, model.text_dim))

    def loss(x, model):
        return jnp.mean(model.decode(model.estimate(x, 500, words)) ** 2)

    # Their inputs alone are kept; XLA's compiler for CPUs undoes that, so that memory does not show it here.
    assert "remat" in str(jax.make_jaxpr(jax.grad(loss))(x, model.replace(remat=True)))
    kept, again = (jax.jit(jax.grad(loss))(x, model.replace(remat=y)) for y in (False, True))
    np.testing.assert_allclose(kept, again, atol=1e-5)


def test_gradients_have_the_size_of_noise_but_for_none_at_all():
    x = jnp.stack([jnp.zeros((2, 2, 4)), jnp.full((2, 2, 4), 1e-30), jnp.full((2, 2, 4), -1e25)])
    np.testing.assert_allclose(as_unit(x)[:, 0, 0, 0], [0, 1, -1], rtol=1e-6)
