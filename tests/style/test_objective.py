import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.errors import UserError
from nada_jax.losses.style import KINDS
from nada_jax.models.vgg import Vgg
from nada_jax.style.objective import Objective, Targets, Weights
from nada_jax.weights.loading import load_model

LAYERS = ("relu1_1", "relu2_1", "relu3_1")
OBJECTIVE = Objective(("relu2_2",), LAYERS, tile=1024)


@pytest.fixture(scope="module")
def vgg(narrow_networks):
    return load_model(Vgg, narrow_networks["vgg"])


def image(seed, height, width):
    """A smooth image [1, h, w, 3]."""
    coarse = jax.random.normal(jax.random.key(seed), (1, height // 4, width // 4, 3))
    return jnp.clip(jax.image.resize(coarse, (1, height, width, 3), "cubic"), -1, 1)


def targets(objective, vgg, content, style):
    """Of one content and one style, for one image."""
    found = objective.describe(vgg, style, as_target=True)
    return Targets(objective.remember(vgg, content), jax.tree.map(lambda x: x[:, None], found))


def weights(content=1.0, style=1.0):
    return Weights(
        jnp.full((1, 1), content), jnp.full((1, len(LAYERS)), style), jnp.ones((1, 1)), jnp.zeros(1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_its_own_content_and_style(vgg, kind):
    objective, x = dataclasses.replace(OBJECTIVE, kind=kind), image(0, 40, 56)
    _, figures = objective.loss(vgg, x, targets(objective, vgg, x, x), weights())
    assert figures["content"] == pytest.approx(0, abs=1e-5)
    other = objective.loss(vgg, x, targets(objective, vgg, x, image(1, 40, 56)), weights())[1]
    assert abs(figures["style"]) < 1e-4 * other["style"]


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_give_the_loss_and_gradient_of_the_whole(vgg, kind, wrap, assert_close):
    # Sides that are no multiples of the stride, but where the image wraps.
    x, content, style = (image(i, *((72, 88) if wrap else (75, 90))) for i in range(3))
    halves = jnp.zeros((1, 2, *x.shape[1:3])).at[:, 0, :40].set(1).at[:, 1, 40:].set(1)
    found = []
    for tile in (1024, 64):
        objective = dataclasses.replace(OBJECTIVE, kind=kind, tile=tile, wrap=wrap)
        known = objective.describe(
            vgg, jnp.concatenate([style, style[:, ::-1] / 2]), as_target=True
        )
        known = jax.tree.map(lambda y: y[None], known)

        @jax.jit
        def loss(x, vgg, content, known, halves, objective=objective):
            wanted = Targets(
                objective.remember(vgg, content), known, objective.resample(vgg, halves)
            )
            shares = dataclasses.replace(weights(style=100.0), blend=jnp.array([[0.3, 0.7]]))
            return objective.loss(vgg, x, wanted, shares)[0].sum()

        found.append(jax.value_and_grad(loss)(x, vgg, content, known, halves))
    assert_close(found[1][0], found[0][0], 1e-5)
    assert_close(found[1][1], found[0][1], 1e-4)


def test_shifting_an_image_that_wraps_changes_nothing(vgg):
    objective = Objective((), LAYERS, wrap=True)
    x = image(0, 48, 64)
    shifted = jnp.roll(x, (20, 12), axis=(1, 2))
    distances = [
        sum(o.distance(o.describe(vgg, shifted), o.describe(vgg, x)).values())
        for o in (objective, dataclasses.replace(objective, wrap=False))
    ]
    assert distances[0] < 1e-6 * max(distances[1], 1e-9) or distances[0] < 1e-10
    assert distances[1] > distances[0]
    with pytest.raises(UserError, match="multiples of 4"):
        objective.describe(vgg, image(0, 50, 64))


def test_masks_keep_regions_apart(vgg):
    """The distance to a style has no gradient in the region of the other."""
    x, style = image(0, 64, 64), image(1, 64, 64)
    # A gap wider than a feature sees, so that none belongs to both.
    masks = jnp.zeros((1, 2, 64, 64)).at[:, 0, :16].set(1).at[:, 1, 48:].set(1)
    known = OBJECTIVE.describe(vgg, jnp.concatenate([style, style]), as_target=True)
    wanted = Targets({}, jax.tree.map(lambda y: y[None], known), OBJECTIVE.resample(vgg, masks))
    objective = dataclasses.replace(OBJECTIVE, content_layers=())

    def loss(x, first):
        shares = jnp.array([[1.0, 0.0]]) if first else jnp.array([[0.0, 1.0]])
        return objective.loss(vgg, x, wanted, dataclasses.replace(weights(), blend=shares))[0].sum()

    gradients = jax.jit(jax.grad(loss), static_argnums=1)
    gradient = gradients(x, True)
    assert gradient[:, :16].any() and not gradient[:, 48:].any()
    gradient = gradients(x, False)
    assert gradient[:, 48:].any() and not gradient[:, :16].any()


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_gradients_of_images_of_one_colour_are_finite(vgg, value):
    x = jnp.full((1, 32, 32, 3), value)
    for kind in KINDS:
        objective = dataclasses.replace(OBJECTIVE, kind=kind)
        wanted = targets(objective, vgg, image(0, 32, 32), image(1, 32, 32))
        gradient = jax.grad(lambda x, o=objective, t=wanted: o.loss(vgg, x, t, weights())[0].sum())(
            x
        )
        assert np.isfinite(gradient).all()


def test_layers_that_a_network_lacks_are_named(vgg):
    with pytest.raises(UserError, match="has no layer 'relu9_9'; it has conv1_1, relu1_1"):
        Objective((), ("relu9_9",)).describe(vgg, image(0, 32, 32))
