"""What guides: losses of images against styles, images and texts; what is missing is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.diffusion.objectives import OBJECTIVES, Guide
from nada_jax.errors import UserError
from nada_jax.losses.style import KINDS

SIDE = 16
ALL = dict.fromkeys(OBJECTIVES, 1.0)


def stripes(colours):
    """[1, SIDE, SIDE, 3], two colours in stripes of four pixels."""
    rows = np.arange(SIDE)[:, None, None] // 4 % 2
    one = np.where(rows, *(np.asarray(x, np.float32) for x in colours))
    return np.broadcast_to(one, (SIDE, SIDE, 3))[None].astype(np.float32)


STYLE = stripes(((0.7, -0.7, 0.2), (-0.8, -0.2, 0.3)))
CONTENT = stripes(((-0.1, 0.5, 0.4), (0.9, 0.8, -0.6)))


@pytest.fixture(scope="module")
def load(make_guidance):
    """load(loss, size=8) -> the guide towards `STYLE`, `CONTENT` and the texts."""

    def make(loss, style=STYLE, image=CONTENT, **fields):
        return Guide.load(make_guidance(loss, **fields), SIDE, reference=style, content=image)

    return make


losses = jax.jit(Guide.losses)


def test_each_is_0_for_what_it_leads_to_and_more_for_other_images(load):
    guide = load(ALL)
    other = np.random.default_rng(0).uniform(-1, 1, STYLE.shape).astype(np.float32)
    found = losses(guide, np.concatenate([STYLE, CONTENT, other]))
    assert set(found) == set(OBJECTIVES) and all(x.shape == (3,) for x in found.values())
    for kind in KINDS:
        assert found[kind][0] == pytest.approx(0, abs=1e-4) and (found[kind][1:] > 0.01).all()
    for name in ("l2", "lpips"):
        assert found[name][1] == pytest.approx(0, abs=1e-6) and (found[name][::2] > 1e-3).all()
    # No direction leads from the content to itself.
    assert found["direction"][1] == pytest.approx(1, abs=1e-3)
    assert (found["similarity"] > 0).all() and (found["similarity"] < 2).all()


def test_the_total_is_a_sum_by_factors(load):
    guide = load({"l2": 2.0, "mean_variance": 0.5})
    found = losses(guide, STYLE)
    total = guide.total(found)
    np.testing.assert_allclose(total, 2 * found["l2"] + 0.5 * found["mean_variance"], rtol=1e-6)


def test_images_may_have_a_reference_each(load):
    guide = load({"gram": 1.0}, style=np.concatenate([STYLE, CONTENT]))
    own = losses(guide, np.concatenate([STYLE, CONTENT]))["gram"]
    swapped = losses(guide, np.concatenate([CONTENT, STYLE]))["gram"]
    np.testing.assert_allclose(own, 0, atol=1e-4)
    assert (swapped > 0.01).all()


def test_gradients_are_finite_for_constant_references_and_images(load):
    grey = np.zeros_like(STYLE)
    # That of the Wasserstein distance, which compiles slowly, is tested with the losses.
    guide = load(ALL | {"wasserstein": 0.0}, style=grey, image=grey)
    images = jnp.concatenate([grey, grey - 1, STYLE])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(guide.total(guide.losses(x)))))(images)
    assert jnp.isfinite(gradient).all() and gradient[1:].any(axis=(1, 2, 3)).all()


def test_a_network_may_look_at_another_size(load):
    """Then features stand for more of the image; the stripes are the same all the same."""
    guide = load({"mean_variance": 1.0}, size=32)
    assert losses(guide, STYLE)["mean_variance"] == pytest.approx(0, abs=1e-5)
    small = jax.image.resize(STYLE, (1, 8, 8, 3), "cubic")
    assert losses(load({"mean_variance": 1.0}, size=8, style=small), STYLE)["mean_variance"] < 1e-5


@pytest.mark.parametrize(
    ("loss", "fields", "said"),
    [
        ({"gram": 0.0}, {}, r"all of guidance.loss \(gram, .*\) are 0; expected one above 0, or guidance.weight=0"),
        ({"gram": -1.0}, {}, "guidance.loss.gram is -1.0; expected a number from 0"),
        ({"gram": 1.0}, {"reference": ""}, "guidance.reference is ''; expected a style image, which guidance.loss.gram"),
        ({"l2": 1.0}, {"content": ""}, "guidance.content is ''; expected an image, which guidance.loss.l2 needs"),
        ({"similarity": 1.0}, {"text_target": " "}, "guidance.text_target is ' '; expected words such as"),
        ({"direction": 1.0}, {"text_source": ""}, "guidance.text_source is ''; expected words for what"),
        ({"similarity": 1.0}, {"clip": ""}, "guidance.clip is ''; expected a CLIP, such as 'avatar-p8'"),
        ({"gram": 1.0}, {"vgg": ""}, "guidance.vgg is ''; expected a VGG"),
        ({"gram": 1.0}, {"layers": ()}, r"guidance.layers is \(\); expected names of layers, which guidance.loss.gram"),
        ({"gram": 1.0}, {"layers": ("relu1_1",) * 2}, "guidance.layers is .*; expected names of layers, each once"),
        ({"gram": 1.0}, {"layers": ("relu9_1",)}, r"guidance.layers is \('relu9_1',\); expected some of conv1_1, .*those of"),
        ({"gram": 1.0}, {"vgg": "nowhere"}, "guidance.vgg='nowhere' is neither"),
        ({"similarity": 1.0}, {"clip": "nowhere"}, "guidance.clip='nowhere'"),
        ({"gram": 1.0}, {"size": 1}, "guidance.size is 1: images of 1 x 1 pixels are too small for relu2_1"),
        ({"gram": 1.0}, {"size": 5000}, "guidance.size is 5000; expected pixels of a side, 0 to 4096"),
        ({"lpips": 1.0}, {"size": 8}, "guidance.size is 8: images of 8 x 8 pixels are too small"),
        ({"direction": 1.0}, {"text_target": "Photo"}, "sees no difference between guidance.text_source='photo' and "),
    ],
)  # fmt: skip
def test_what_is_missing_or_does_not_fit_is_named_in_a_sentence(load, loss, fields, said):
    with pytest.raises(UserError, match=said):
        load(loss, **fields)


def test_an_image_of_another_size_is_refused(load):
    with pytest.raises(
        UserError, match="guidance.content has 8 x 8 pixels; expected 16 x 16, as the images"
    ):
        load({"l2": 1.0}, image=CONTENT[:, :8, :8])
