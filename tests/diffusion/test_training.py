"""The steps that train a diffusion model, and the weights of times."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nada_jax.diffusion import training
from nada_jax.models.noise import PREDICTIONS, clean_of, noise_of, noisy


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_weights_make_the_loss_that_of_the_clean_sample_up_to_the_bound(prediction):
    random = np.random.default_rng(0)
    clean, noise, error = random.standard_normal((3, 5))
    alpha = np.array([0.02, 0.3, 0.6, 0.9, 0.99])
    x = noisy(clean, noise, alpha)
    target = PREDICTIONS[prediction].target(clean, noise, alpha)
    eps = noise_of(target + error, x, alpha, prediction)
    found = training.snr_weight(alpha, prediction, 5.0) * error**2
    snr = alpha / (1 - alpha)
    expected = np.minimum(snr, 5.0) * (clean_of(eps, x, alpha) - clean) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_latents_are_scaled_to_unit_variance():
    random = np.random.default_rng(0)
    mean = 3 * random.standard_normal((500, 2, 2, 4))
    logvar = np.full_like(mean, np.log(16))
    assert training.scaling((mean, logvar)) == pytest.approx(1 / 5, rel=0.03)


def settings(**fields):
    plain = {
        "widths": (32, 32), "layers": 1, "heads": 2, "attention": (0, 1), "prediction": "epsilon",
        "dropped": 0.0, "min_snr": 0.0,
    }  # fmt: skip
    return training.Unet(**plain | fields)


def tiny_shape(model):
    side = model.size // model.factor
    return side, side, model.channels


def test_some_captions_do_not_matter(tiny_diffusion):
    model, optimizer = tiny_diffusion, optax.with_extra_args_support(optax.sgd(0.1))
    ids, blank = model.tokenize(["a person with red hair", "a clown"]), model.tokenize([""])
    moments = jnp.zeros((2, 2, *tiny_shape(model)))
    state = training.begin(model.params["unet"], optimizer)
    step = jax.jit(training.unet_step(settings(dropped=0.5), optimizer, 0))

    def loss(key, *texts):
        found = step(state, model, tuple(moments), ids[list(texts)], blank, key)
        return float(found[1]["mse"])

    # By which of the two captions the loss changes: each is dropped for itself.
    kept = set()
    for i in range(8):
        key = jax.random.key(i)
        before = loss(key, 0, 0)
        kept.add((loss(key, 1, 0) != before, loss(key, 0, 1) != before))
    assert len(kept) > 2


def test_the_vae_learns_to_draw_its_images_again(tiny_diffusion):
    model = tiny_diffusion
    optimizer = optax.with_extra_args_support(optax.adam(2e-3))
    vae = training.Autoencoder((8, 8), 1, 4, 1, 2, 1.0, 1e-4)
    step = jax.jit(training.vae_step(vae, optimizer, 2.0))
    colours = np.array([(250, 20, 20), (20, 20, 250)], np.uint8)
    pixels = np.broadcast_to(colours[:, None, None], (2, 16, 16, 3))
    state = training.begin(model.params["vae"], optimizer)
    first = None
    for i in range(12):
        state, metrics = step(state, model, pixels, jax.random.key(i))
        first = first or float(metrics["l1"])
    assert float(metrics["l1"]) < 0.7 * first
    # The average follows behind.
    apart = optax.tree.norm(optax.tree.sub(state.ema, state.params))
    assert 0 < apart < optax.tree.norm(optax.tree.sub(model.params["vae"], state.params))
