import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import irse50 as conversion
from nada_jax.errors import UserError
from nada_jax.losses.identity import identity
from nada_jax.models.irse import WIDTHS, Irse50, Irse50Architecture, average_pool
from nada_jax.weights import loading as weights
from nada_jax.weights import native

NARROW = Irse50Architecture(stem=6, widths=(6, 8, 8, 12, 16), reduction=2, side=2, features=5)
embed = jax.jit(Irse50.embed_pixels)


@pytest.fixture(scope="module")
def reference(golden):
    """Official features; images as [b, h, w, 3]."""
    arrays = dict(golden("styleclip.npz"))
    for name in ("image", "image_b"):
        arrays[name] = arrays[name].astype(np.float32).transpose(0, 2, 3, 1)
    return arrays


@pytest.fixture(scope="module")
def network(golden, golden_weights, reference):
    """The official identity network with seeded weights."""
    table = golden("shapes_styleclip.json")["irse50"]
    official = golden_weights(table, int(reference["seed"]))
    return conversion.to_native(official, "irse50")[0]


@pytest.fixture(scope="module")
def narrow():
    """The same network, a few channels wide, for images of 32 pixels."""
    random, arrays = np.random.default_rng(0), {}
    for path, shape in NARROW.shapes().items():
        x = random.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[:-1]))
        arrays[path] = np.abs(x) + 0.5 if path.endswith(("var", "scale")) else x
    return native.model_from_arrays(Irse50, arrays, NARROW)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (2, 80, 80, 3), minval=-1, maxval=1)


# -- against the official implementation --------------------------------------------------------------


def test_features_and_loss_match_the_official_network(network, reference, assert_close):
    features, others = (
        embed(network, network.pixels(reference[name])) for name in ("image", "image_b")
    )
    assert_close(features, reference["id_features"])
    assert_close(identity(features, others).mean(), reference["id_loss"])


def test_features_of_a_larger_image_match(network, reference, assert_close):
    # Bilinear x2 with half-pixel centres, as the reference made its larger image.
    larger = jax.image.resize(reference["image"], (2, 512, 512, 3), "linear")
    assert_close(embed(network, network.pixels(larger)), reference["id_features_512"])


@pytest.mark.parametrize(
    ("h", "w", "side"), [(188, 188, 112), (64, 64, 256), (9, 20, 7), (8, 8, 4)]
)
def test_pooling_is_that_of_pytorch(h, w, side, assert_close):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, h, w, 3), np.float32)
    pool = torch.nn.AdaptiveAvgPool2d(side)
    expected = pool(torch.tensor(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    assert_close(average_pool(x, side), expected, 1e-6)


def test_pooling_to_the_same_side_changes_nothing(images):
    assert average_pool(images, 80) is images


# -- behaviour ----------------------------------------------------------------------------------------


def test_features_have_unit_length_and_the_same_image_is_the_same_person(narrow, images):
    features = jax.jit(Irse50.embed_images)(narrow, images)
    assert (features.shape, features.dtype) == ((2, 5), jnp.float32)
    np.testing.assert_allclose(jnp.linalg.norm(features, axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(identity(features, features), 0, atol=1e-6)
    assert identity(features[:1], features[1:]) > 1e-4


def test_the_network_sees_the_face_alone_and_has_a_gradient_there(narrow, images):
    def loss(others):
        return identity(narrow.embed_images(images), narrow.embed_images(others)).sum()

    moved = images.at[:, 40, 40].add(0.5)
    seen = jnp.abs(jax.jit(jax.grad(loss))(moved)).max(axis=(0, 3)) > 0
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    # 80 pixels are pooled to 256: a pixel is 3.2 wide, the face is 35..222 by 32..219.
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (10, 69, 10, 68)


# -- architecture and files ---------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [NARROW, Irse50Architecture()])
def test_the_architecture_is_read_back_from_shapes(architecture):
    assert Irse50Architecture.from_shapes(architecture.shapes()) == architecture


def test_a_stage_ends_where_the_width_changes():
    assert Irse50Architecture(widths=WIDTHS).ends == (2, 6, 20, 23)
    assert (NARROW.ends, NARROW.image_size) == ((0, 2, 3, 4), 32)


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("body.block_1.conv_1.kernel", r"not a face identity network: .* blocks \[0, 2, 3, 4\]"),
        ("body.stem.kernel", "not a face identity network: .* behind one convolution"),
        ("dense.kernel", "it has no dense layer behind its body"),
    ],
)
def test_shapes_of_another_network_are_refused(absent, said):
    shapes = {path: shape for path, shape in NARROW.shapes().items() if path != absent}
    with pytest.raises(UserError, match=said):
        Irse50Architecture.from_shapes(shapes)


@pytest.mark.parametrize(
    "wrong", [{"reduction": 0}, {"widths": ()}, {"widths": tuple(range(1, 9))}, {"stem": -1}]
)
def test_a_body_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match="not an IR-SE50 body: expected 1 to 64 blocks"):
        Irse50Architecture(**wrong)


def test_a_network_is_saved_and_loaded_bit_for_bit(narrow, tmp_path):
    native.save_model(narrow, tmp_path / "narrow.safetensors")
    loaded = weights.load_model(Irse50, tmp_path / "narrow.safetensors")
    assert loaded.architecture == NARROW
    jax.tree.map(np.testing.assert_array_equal, loaded, narrow)
