import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.models.vgg import (
    BLOCKS,
    LPIPS_LAYERS,
    Vgg,
    VggArchitecture,
    convolutions,
)
from nada_jax.weights import loading as weights
from nada_jax.weights import native

torch = pytest.importorskip("torch")
F = torch.nn.functional

NARROW, TRUE = (5, 6, 7, 8, 9), (64, 128, 256, 512, 512)  # channels of each block
features = jax.jit(Vgg.features, static_argnums=(2, 3))
lpips = jax.jit(Vgg.lpips)


def make(depth, preprocessing="torchvision", linear=False, blocks=NARROW):
    """A VGG of random weights that keep the size of what passes through them."""
    widths = tuple(w for w, n in zip(blocks, BLOCKS[depth], strict=True) for _ in range(n))
    architecture = VggArchitecture(widths, depth, preprocessing, linear)
    random, arrays = np.random.default_rng(depth), {}
    for path, shape in architecture.shapes().items():
        spread = (2 / np.prod(shape[:-1])) ** 0.5 if path.endswith("kernel") else 0.3
        arrays[path] = random.normal(0, spread, shape).astype(np.float32)
        if path.startswith("lin"):
            arrays[path] = np.abs(arrays[path])  # as in LPIPS
    return native.model_from_arrays(Vgg, arrays, architecture)


@pytest.fixture(scope="module")
def images():
    """Two images with odd sides."""
    return np.random.default_rng(0).uniform(-1, 1, (2, 43, 58, 3)).astype(np.float32)


def scaled(vgg, images):
    """[b, h, w, 3] in [-1, 1] -> what torchvision or Caffe would be given, [b, 3, h, w]."""
    x = (torch.as_tensor(images).permute(0, 3, 1, 2) + 1) / 2
    if vgg.architecture.preprocessing == "caffe":
        mean = torch.tensor([103.939, 116.779, 123.68])
        return x.flip(1) * 255 - mean[:, None, None]
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / deviation[:, None, None]


def twin(vgg, x, pooling="max"):
    """The same network in torch: layer -> [b, c, h, w]."""
    pool = {"max": F.max_pool2d, "average": F.avg_pool2d}[pooling]
    found = {}
    for block, count in enumerate(BLOCKS[vgg.architecture.depth], 1):
        for i in range(1, count + 1):
            layer = vgg.params[f"conv{block}_{i}"]
            kernel = torch.tensor(np.asarray(layer["kernel"]).transpose(3, 2, 0, 1).copy())
            x = F.conv2d(x, kernel, torch.tensor(np.asarray(layer["bias"])), padding=1)
            found[f"conv{block}_{i}"] = x
            x = found[f"relu{block}_{i}"] = F.relu(x)
        x = found[f"pool{block}"] = pool(x, 2)
    return found


def twin_lpips(vgg, a, b):
    """LPIPS as Zhang et al. define it, with the scaling layer and the epsilon of their code."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    one, other = (
        twin(vgg, (torch.as_tensor(x).permute(0, 3, 1, 2) - shift[:, None, None]) / scale[:, None, None])
        for x in (a, b)
    )  # fmt: skip
    total = 0
    for i, layer in enumerate(LPIPS_LAYERS):
        x, y = (f[layer] / (f[layer].norm(dim=1, keepdim=True) + 1e-10) for f in (one, other))
        weight = torch.tensor(np.asarray(vgg.params[f"lin_{i}"]))[None, :, None, None]
        total = total + F.conv2d((x - y) ** 2, weight).mean(dim=(1, 2, 3))
    return total


def back(tensor):
    """[b, c, h, w] -> numpy [b, h, w, c]."""
    return tensor.detach().permute(0, 2, 3, 1).numpy()


# -- features -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("preprocessing", ["torchvision", "caffe"])
@pytest.mark.parametrize("depth", [16, 19])
def test_every_layer_matches_torch(depth, preprocessing, pooling, images, assert_close):
    vgg = make(depth, preprocessing)
    expected = twin(vgg, scaled(vgg, images), pooling)
    names = tuple(vgg.architecture.layers())
    assert len(names) == 2 * (depth - 3) + 5 and set(names) == expected.keys()
    found = features(vgg, images, names, pooling)
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert x.dtype == jnp.float32
        assert_close(x, back(expected[name]), 1e-5)


def test_the_true_widths_match_torch(assert_close):
    vgg = make(19, blocks=TRUE)
    assert sum(x.size for x in jax.tree.leaves(vgg)) == 20_024_384
    images = np.random.default_rng(1).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    expected = twin(vgg, scaled(vgg, images))
    for name, x in features(vgg, images, ("relu1_1", "conv4_2", "relu5_4"), "max").items():
        assert_close(x, back(expected[name]), 1e-5)


def test_max_pooling_is_the_default(images):
    vgg = make(16)
    chosen = vgg.features(images, ["pool1"])["pool1"]
    np.testing.assert_array_equal(chosen, vgg.features(images, ["pool1"], "max")["pool1"])
    assert (chosen > vgg.features(images, ["pool1"], "average")["pool1"]).any()


def test_nothing_behind_the_deepest_layer_is_computed(images):
    vgg = make(19)
    needed = {name: vgg.params[name] for name in ("conv1_1", "conv1_2", "conv2_1")}
    found = vgg.replace(params=needed).features(images, ["conv1_1", "conv2_1"])
    assert set(found) == {"conv1_1", "conv2_1"}
    assert vgg.features(images, []) == {}


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_gradients_match_torch(pooling, images, assert_close):
    vgg = make(16, "caffe")

    def loss(images):
        return jnp.mean(vgg.features(images, ["conv5_1"], pooling)["conv5_1"] ** 2)

    x = torch.tensor(images, requires_grad=True)
    (twin(vgg, scaled(vgg, x), pooling)["conv5_1"] ** 2).mean().backward()
    assert_close(jax.jit(jax.grad(loss))(images), x.grad.numpy())


def test_the_gradient_of_an_image_without_edges_is_finite():
    vgg, grey = make(16, linear=True), jnp.zeros((1, 32, 32, 3))
    for loss in (lambda x: vgg.features(x, ["relu5_3"])["relu5_3"], lambda x: vgg.lpips(x, grey)):
        gradient = jax.jit(jax.grad(lambda x, loss=loss: jnp.sum(loss(x))))(grey)
        assert jnp.isfinite(gradient).all()


def test_an_unknown_layer_is_refused_with_the_known_ones(images):
    with pytest.raises(UserError, match="VGG-16 has no layer 'relu3_4'; it has conv1_1, relu1_1, "):
        make(16).features(images, ["relu1_1", "relu3_4"])


def test_an_unknown_pooling_is_refused(images):
    with pytest.raises(UserError, match="pooling is 'mean'; expected one of max, average"):
        make(16).features(images, ["relu1_1"], "mean")


def test_an_image_too_small_for_a_layer_is_refused():
    image = jnp.zeros((1, 15, 40, 3))
    assert make(16).features(image, ["relu4_1"])["relu4_1"].shape[1:3] == (1, 5)
    with pytest.raises(UserError, match="15 x 40 pixels are too small for relu5_1 of a VGG; pool4"):
        make(16).features(image, ["relu5_1"])


# -- LPIPS ----------------------------------------------------------------------------------------------


def test_lpips_matches_its_definition_in_torch(images, assert_close):
    vgg, others = make(16, linear=True), np.roll(images, 3, axis=1) * 0.8
    expected = twin_lpips(vgg, images, others)
    found = lpips(vgg, images, others)
    assert found.shape == (2,) and (found > 0.01).all()
    assert_close(found, expected, 1e-5)
    assert_close(lpips(vgg, others, images), expected, 1e-5)


def test_the_gradient_of_lpips_matches_torch(images, assert_close):
    vgg, others = make(16, linear=True), np.roll(images, 3, axis=1) * 0.8
    x = torch.tensor(others, requires_grad=True)
    twin_lpips(vgg, images, x).sum().backward()
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(vgg.lpips(images, x))))(others)
    assert_close(gradient, x.grad.numpy())


def test_equal_images_are_0_apart_and_distance_grows_with_the_change(images):
    vgg, noise = make(16, linear=True), np.random.default_rng(2).standard_normal(images.shape)
    distances = [lpips(vgg, images, images + s * np.float32(noise)) for s in (0, 0.05, 0.4)]
    assert (distances[0] < 1e-12).all()
    assert (distances[1] > 0).all() and (distances[2] > distances[1]).all()


def test_lpips_without_its_linear_layers_says_what_to_convert(images):
    with pytest.raises(UserError, match=r"no linear layers of LPIPS; convert .*vgg\.pth"):
        make(16).lpips(images, images)


# -- architecture and files -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", [(16, "torchvision", True), (19, "torchvision"), (19, "caffe")])
def test_a_saved_vgg_loads_as_it_was(case, tmp_path):
    vgg, path = make(*case), tmp_path / "vgg.safetensors"
    native.save_model(vgg, path)
    loaded = weights.load_model(Vgg, path)
    assert loaded.architecture == vgg.architecture
    jax.tree.map(np.testing.assert_array_equal, loaded.params, vgg.params)


@pytest.mark.parametrize("depth", [16, 19])
def test_depth_and_widths_are_read_from_the_shapes(depth):
    architecture = make(depth, "caffe").architecture
    assert VggArchitecture.from_shapes(architecture.shapes(), "caffe") == architecture


@pytest.mark.parametrize(
    ("depth", "count", "layers"),
    [
        (16, 1, "conv1_1 relu1_1"),
        (19, 2, "conv1_1 relu1_1 conv1_2 relu1_2"),  # what follows, a pool or not, is not known
        (19, 3, "conv1_1 relu1_1 conv1_2 relu1_2 pool1 conv2_1 relu2_1"),
        (19, 8, None),
    ],
)
def test_the_first_convolutions_alone_are_a_vgg(depth, count, layers, images):
    whole = make(depth)
    params = {name: whole.params[name] for name in convolutions(depth)[:count]}
    arrays = {f"{name}.{leaf}": x for name, layer in params.items() for leaf, x in layer.items()}
    vgg = native.model_from_arrays(Vgg, arrays)
    known = vgg.architecture.layers()
    assert known == (layers.split() if layers else whole.architecture.layers()[: len(known)])
    assert known[-1] == convolutions(depth)[count - 1].replace("conv", "relu")
    expected = whole.features(images, known[-1:])[known[-1]]
    np.testing.assert_array_equal(vgg.features(images, known[-1:])[known[-1]], expected)


@pytest.mark.parametrize("absent", ["conv1_1", "conv3_2", "conv4_4"])
def test_a_gap_between_the_convolutions_is_refused(absent):
    arrays = native.model_to_arrays(make(19))
    del arrays[f"{absent}.kernel"]
    with pytest.raises(UserError, match=f"not a VGG: it has 15 convolutions, but no {absent} "):
        native.model_from_arrays(Vgg, arrays)


def test_linear_layers_on_another_network_are_refused():
    arrays = native.model_to_arrays(make(16, linear=True))
    for args, said in (((19,), "VGG-19 with 16 .* torchvision"), ((16, "caffe"), "13 .* caffe")):
        with pytest.raises(
            UserError, match=f"trained on the whole VGG-16 of torchvision; .*{said}"
        ):
            make(*args, linear=True)
    last = {path: x for path, x in arrays.items() if not path.startswith("conv5_3")}
    with pytest.raises(UserError, match="VGG-16 with 12 convolutions"):
        native.model_from_arrays(Vgg, last)
    del arrays["lin_3"]
    with pytest.raises(UserError, match=r"are not those of the kind vgg: lin_3 \(8,\) is missing"):
        native.model_from_arrays(Vgg, arrays)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depth", 17),
        ("depth", None),
        ("preprocessing", "tf"),
        ("widths", 64),
        ("widths", []),
        ("widths", ["wide"] * 13),
        ("widths", [64] * 17),
    ],
)
def test_a_header_that_describes_no_vgg_is_refused(field, value, tmp_path):
    path = tmp_path / "vgg.safetensors"
    native.save_model(make(16), path)
    arrays, metadata = files.read_safetensors(path)
    described = json.dumps(json.loads(metadata["architecture"]) | {field: value})
    files.write_safetensors(path, arrays, metadata | {"architecture": described})
    with pytest.raises(UserError, match="describes no vgg"):
        weights.load_model(Vgg, path)
