"""The term "sds": its gradient by the formula, what it draws, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.adaptation import distillation
from nada_jax.adaptation.distillation import WEIGHTINGS, Distillation
from nada_jax.adaptation.steering import Text
from nada_jax.errors import UserError
from nada_jax.models import diffusion

SIDE = 24  # of images; the model's own is another


@pytest.fixture(scope="module")
def settings(make_settings, tiny_diffusion_directory):
    """settings({"sds.scale": 2.0}) -> the settings of an adaptation by the tiny model alone."""
    base = {
        "loss.sds": 1.0, "loss.directional": 0.0, "text.target": "zombie", "text.source": "person",
        "sds.weights": str(tiny_diffusion_directory), "sds.times": (0.2, 0.8),
        "sds.scale": 3.0,
    }  # fmt: skip
    return lambda fields=(): make_settings(base | dict(fields))


@pytest.fixture(scope="module")
def target(settings):
    return settings().load_networks()["sds"]


@pytest.fixture(scope="module")
def pair():
    random = np.random.default_rng(0)
    return random.uniform(-1, 1, (2, 2, SIDE, SIDE, 3)).astype(np.float32)


@jax.jit
def found(target, pair, key):
    """(losses [b], their gradient by the adapted images)."""
    losses, pull_back = jax.vjp(lambda adapted: target.loss(pair[0], adapted, key), pair[1])
    return losses, pull_back(jnp.ones_like(losses))[0]


@pytest.mark.parametrize(
    ("baseline", "weighting"), list(zip(distillation.BASELINES, WEIGHTINGS, strict=True))
)
def test_the_gradient_is_that_of_the_paper_through_the_encoder_alone(
    baseline, weighting, target, pair, assert_close
):
    section = dataclasses.replace(target.section, baseline=baseline, weighting=weighting)
    key = jax.random.key(1)
    losses, gradient = found(target.replace(section=section), pair, key)

    model, (negative, after, before) = target.diffusion, target.contexts
    steps = model.schedule.steps
    time_key, noise_key = jax.random.split(key)
    t = jax.random.randint(time_key, (2,), round(0.2 * (steps - 1)), round(0.8 * (steps - 1)) + 1)
    alpha = np.float32(model.schedule.alphas)[t][:, None, None, None]

    @jax.jit
    def encode(images):
        shape = (len(images), model.size, model.size, 3)
        return model.encode(jax.image.resize(images, shape, "cubic"))

    @jax.jit
    def guided(latents, noise, text):
        x = jnp.sqrt(alpha) * latents + jnp.sqrt(1 - alpha) * noise
        without, given = (
            model.estimate(x, t, jnp.broadcast_to(c, (2, *c.shape))) for c in (negative, text)
        )
        return without + 3.0 * (given - without)

    latents, pull_back = jax.vjp(encode, pair[1])
    noise = jax.random.normal(noise_key, latents.shape)
    other = guided(encode(pair[0]), noise, before) if baseline == "source" else noise
    weight = 1 - alpha if weighting == "variance" else np.float32(1)
    pull = weight * (guided(latents, noise, after) - other)
    assert_close(losses, jnp.mean(pull**2, axis=(1, 2, 3)) / 2)
    assert_close(gradient, pull_back(pull / pull[0].size)[0])
    assert jnp.abs(gradient).max() > 0


def test_twins_are_pulled_by_the_texts_alone_and_not_where_these_agree(target, pair):
    """As at the first step, where both generators draw the same."""
    twins = np.stack([pair[1], pair[1]])
    pulled, gradient = found(target, twins, jax.random.key(0))
    assert np.isfinite(pulled).all() and np.isfinite(gradient).all() and gradient.any()
    same = target.replace(contexts=target.contexts.at[2].set(target.contexts[1]))
    still, _ = found(same, twins, jax.random.key(0))
    assert (still < 1e-6 * pulled).all()


def test_constant_images_have_a_finite_gradient(target):
    constant = np.stack([np.zeros((2, SIDE, SIDE, 3)), np.ones((2, SIDE, SIDE, 3))])
    _, gradient = found(target, constant.astype(np.float32), jax.random.key(0))
    assert np.isfinite(gradient).all()


def test_each_image_and_each_key_draws_its_own_time_and_noise(target, pair):
    alike = np.broadcast_to(pair[:, :1], pair.shape)
    one, _ = found(target, alike, jax.random.key(0))
    other, _ = found(target, alike, jax.random.key(1))
    assert len({*map(float, one), *map(float, other)}) == 4
    again, _ = found(target, alike, jax.random.key(0))
    np.testing.assert_array_equal(one, again)


def test_the_denoiser_computes_in_bfloat16_where_that_is_wanted(settings, target, pair):
    half = settings({"precision": "bfloat16"}).load_networks()["sds"]
    assert half.diffusion.precision == "bfloat16"
    (losses, gradient), (_, exact) = (found(x, pair, jax.random.key(0)) for x in (half, target))
    assert losses.dtype == gradient.dtype == jnp.float32
    cosine = jnp.vdot(gradient, exact) / jnp.linalg.norm(gradient) / jnp.linalg.norm(exact)
    # What the texts of random networks change is little beside what is subtracted, and rounding is seen.
    assert 0.9 < cosine < 0.9999


def test_the_text_encoder_is_not_carried_through_the_step(target):
    assert set(target.diffusion.params) == {"unet", "vae"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weights": ""}, "sds.weights is ''; expected a diffusion model, which loss.sds needs"),
        ({"weights": "nowhere"}, "sds.weights='nowhere'"),
        ({"baseline": "text"}, "sds.baseline is 'text'; expected one of source, noise"),
        ({"weighting": "snr"}, "sds.weighting is 'snr'; expected one of variance, none"),
        ({"scale": float("inf")}, "sds.scale is inf; expected a finite number"),
        ({"times": (0.9, 0.1)}, "sds.times is .*; expected two shares in 0..1, the lower one first"),
        ({"times": (0.5,)}, "sds.times is .*; expected two shares"),
        ({"times": (0.0, 1.5)}, "sds.times is .*; expected two shares"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_a_sentence(settings, fields, said):
    with pytest.raises(UserError, match=said):
        settings({f"sds.{name}": x for name, x in fields.items()}).load_networks()


def test_texts_that_the_model_reads_as_one_are_refused(settings, target):
    texts = dataclasses.asdict(settings().text) | {"source": "a Zombie", "target": "a  zombie"}
    with pytest.raises(
        UserError, match="text.source='a Zombie' and text.target='a  zombie' are the"
    ):
        Distillation.load(target.section, text=Text(**texts), precision="float32")


def test_nothing_is_loaded_while_the_factor_is_0(settings, monkeypatch):
    def refuse():
        raise UserError("diffusers is imported")

    monkeypatch.setattr(diffusion, "_diffusers", refuse)
    diffusion.networks.cache_clear()
    off = settings({"loss.sds": 0.0, "loss.l2": 1.0, "loss.directional": 1.0})
    assert "sds" not in off.load_networks() and not off.remarks()
    with pytest.raises(UserError, match="diffusers is imported"):
        settings().load_networks()
    # Its target is a text, also where it leads alone.
    assert settings().loss.reads_texts and not settings().remarks()
