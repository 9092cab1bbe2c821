"""The term "style": what it compares, what it is 0 for, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nada_jax import images
from nada_jax.adaptation.style import Style, StyleTarget
from nada_jax.errors import UserError
from nada_jax.losses.style import KINDS

SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two style images: stripes, and dots of many colours."""
    path, random = tmp_path_factory.mktemp("styles"), np.random.default_rng(0)
    stripes = np.where(np.arange(2 * SIDE)[:, None, None] // 4 % 2, (220, 40, 90), (20, 90, 160))
    dots = random.integers(0, 255, (SIDE, SIDE, 3))
    for name, pixels in (
        ("stripes", np.broadcast_to(stripes, (2 * SIDE,) * 2 + (3,))),
        ("dots", dots),
    ):
        Image.fromarray(pixels.astype(np.uint8)).save(path / f"{name}.png")
    return path


@pytest.fixture(scope="module")
def section(folder, narrow_networks):
    layers = ("relu1_1", "conv2_1")
    return Style(str(narrow_networks["vgg"]), str(folder), "mean_variance", layers, SIDE, 1.0)


def change(section, **fields):
    return dataclasses.replace(section, **fields)


loss = jax.jit(StyleTarget.loss)


def seen(path):
    """An image as it is compared, [1, SIDE, SIDE, 3]."""
    return images.read(path, SIDE)[None]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_has_its_own_style_and_one_without_features_is_1_away(section, folder, kind):
    one = folder / "stripes.png"
    target = StyleTarget.load(change(section, kind=kind, images=str(one)))
    pair = np.concatenate([seen(one), seen(folder / "dots.png")])
    same, other = loss(target, None, pair)
    assert same == pytest.approx(0, abs=1e-5) and other > 0.01
    # Where in the image its marks are makes no difference but at the border.
    moved, _ = loss(target, None, np.roll(pair, 8, axis=1))
    assert moved < 0.05 * other
    silent = jax.tree.map(jnp.zeros_like, target.vgg.params)
    nothing = loss(target.replace(vgg=target.vgg.replace(params=silent)), None, pair)
    np.testing.assert_allclose(nothing, 1.0, atol=1e-3)


def test_the_style_of_a_folder_is_the_mean_over_its_images(section, folder, assert_close):
    ones = [StyleTarget.load(change(section, images=str(x))) for x in sorted(folder.iterdir())]
    both = StyleTarget.load(section)
    for layer, statistics in both.style.items():
        for name, x in statistics.items():
            assert_close(x, (ones[0].style[layer][name] + ones[1].style[layer][name]) / 2, 1e-5)


def test_style_images_are_read_larger_by_the_scale(section, folder):
    """Stripes 4 of 64 pixels high are 4 pixels high in adapted images of half the size."""
    at_scale = StyleTarget.load(change(section, images=str(folder / "stripes.png"), scale=2.0))
    original = images.read(folder / "stripes.png", 2 * SIDE)[None]
    assert loss(at_scale, None, original[:, :SIDE, :SIDE]) < 0.01
    assert loss(at_scale, None, seen(folder / "stripes.png")) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_it_falls_along_a_gradient_that_is_finite_for_constant_images(section, kind):
    target = StyleTarget.load(change(section, kind=kind))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(target.loss(None, x))))
    grey = jnp.stack([jnp.zeros((16, 16, 3)), jnp.full((16, 16, 3), -1.0)])  # drawn at 16 pixels
    found = gradient(grey)
    assert jnp.isfinite(found).all() and found.any(axis=(1, 2, 3)).all()
    before, after = loss(target, None, grey), loss(target, None, grey - 0.01 * jnp.sign(found))
    assert (after < before).all()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"images": "nowhere"}, "style.images='nowhere' does not exist; expected a file or a folder"),
        ({"images": "{empty}"}, "style.images=.*is a folder without files of such a kind"),
        ({"images": "{broken}"}, "broken.png"),
        ({"weights": "nowhere"}, "style.weights='nowhere' is neither"),
        ({"layers": ("relu9_1",)}, r"style.layers is \('relu9_1',\); expected some of conv1_1, relu1_1"),
        ({"layers": ()}, r"style.layers is \(\); expected names of layers, each once"),
        ({"layers": ("relu1_1", "relu1_1")}, "style.layers is .*expected names of layers, each once"),
        ({"size": 1}, "style.size is 1, but images of 1 x 1 pixels are too small for conv2_1"),
        ({"scale": 1 / 32}, "style.scale is 0.03125, but images of 1 x 1 pixels are too small"),
        ({"size": 4096, "scale": 2.0}, "style.scale is 2.0; expected style images of 1 to 4096"),
        ({"size": 0}, "style.size is 0; expected pixels of a side"),
        ({"kind": "grams"}, "style.kind is 'grams'; expected one of gram, mean_variance"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_a_sentence(section, fields, said, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.png").write_bytes(b"\x89PNG and nothing else")
    if name := str(fields.get("images", "")).strip("{}"):
        inside = (tmp_path / name).exists()
        fields = {"images": str(tmp_path / name) if inside else name}
    with pytest.raises(UserError, match=said):
        StyleTarget.load(change(section, **fields))


def test_it_is_neither_loaded_nor_computed_while_its_factor_is_0(make_settings, folder):
    fields = {"style.images": "nowhere", "style.weights": "nowhere"}
    assert make_settings(fields).load_networks() == {}
    with pytest.raises(UserError, match="style.weights='nowhere' is neither"):
        make_settings(fields | {"loss.style": 1.0}).load_networks()
    with pytest.raises(UserError, match="style.images is ''; .* which loss.style needs"):
        make_settings({"loss.style": 1.0})
