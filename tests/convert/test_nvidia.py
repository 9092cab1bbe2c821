"""NVIDIA's pickles, made by `official.py` from generators that are at hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import stylegan2 as conversion
from convert.__main__ import main
from nada_jax import load_generator
from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture, Generator
from nada_jax.weights import native
from tests.convert import official

torch = pytest.importorskip("torch")


def with_clamp(generator, clamp):
    return generator.replace(
        architecture=dataclasses.replace(generator.architecture, conv_clamp=clamp)
    )


def assert_same(one, other):
    one, other = (native.model_to_arrays(generator) for generator in (one, other))
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path], err_msg=path)


@pytest.fixture(params=["torch", "tensorflow"])
def kind(request):
    return request.param


# -- what is read ----------------------------------------------------------------------------------


@pytest.fixture
def generator(tiny_generator):
    """Its style biases stay the same when 1 is taken off and added, as TensorFlow's files need."""
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.round(x * 64) / 64 if path[-2].key == "modulation" else x,
        tiny_generator.params,
    )
    return tiny_generator.replace(params=params)


def test_a_pickle_gives_the_generator_that_was_put_in(generator, kind, tmp_path):
    (tmp_path / "g.pkl").write_bytes(official.release(generator, kind))
    read = load_generator(tmp_path / "g.pkl")
    assert_same(read, generator)
    assert read.architecture == generator.architecture


@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_every_protocol_of_pickles_is_read(generator, kind, protocol, tmp_path):
    if kind == "torch":
        content = official.torch_pickle({"G_ema": official.torch_module(generator)}, protocol)
    else:
        networks = (official.tensorflow_network(generator),) * 3
        content = official.tensorflow_pickle(networks, protocol)
        # numpy's name in the days of these files
        content = content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    (tmp_path / "g.pkl").write_bytes(content)
    assert_same(load_generator(tmp_path / "g.pkl"), generator)


def test_the_narrow_256_pixel_generator_draws_the_reference_images(
    golden, golden_weights, assert_close, tmp_path
):
    reference = golden("generator.npz")
    source = golden_weights("generator 256 cm1", int(reference["seed"]))
    source["latent_avg"] = reference["latent_avg"]
    expected = conversion.to_native(source, "golden")[0]
    (tmp_path / "g.pkl").write_bytes(official.release(expected, "torch"))
    generator, _ = conversion.read(tmp_path / "g.pkl")
    assert_same(generator, expected)
    stride = int(reference["stride"])
    images = jax.jit(Generator.synthesize)(generator, generator.map(reference["z"]))
    assert_close(images.transpose(0, 3, 1, 2)[:, :, ::stride, ::stride], reference["image"], 1e-4)


def test_a_mapping_of_two_layers_and_of_eight_are_read(random_generator, kind, tmp_path):
    for depth in (2, 8):
        architecture = Architecture((6, 5, 4), z_dim=8, w_dim=8, mapping_layers=depth)
        (tmp_path / "g.pkl").write_bytes(official.release(random_generator(architecture), kind))
        assert load_generator(tmp_path / "g.pkl").architecture == architecture


def test_it_converts_to_rosinality_and_back_bit_for_bit(tiny_generator, kind, tmp_path):
    (tmp_path / "g.pkl").write_bytes(official.release(tiny_generator, kind))
    steps = ["g.pkl", "native.safetensors", "g.pt", "again.safetensors"]
    for source, destination in zip(steps, steps[1:], strict=False):
        assert main(["stylegan2", str(tmp_path / source), str(tmp_path / destination)]) == 0
    assert_same(*(load_generator(tmp_path / steps[i]) for i in (1, 3)))


def test_nothing_but_pytorch_files_need_pytorch(tiny_generator, kind, tmp_path, monkeypatch):
    (tmp_path / "g.pkl").write_bytes(official.release(tiny_generator, kind))
    monkeypatch.setattr(conversion.reader, "import_torch", None)
    load_generator(tmp_path / "g.pkl")


# -- state dicts, and modules that were pickled on their own ----------------------------------------


PLACES = ("", "G_ema", "g_ema.module", "state_dict.G_ema", "model._orig_mod")


def placed(state, place):
    """A state dict within tables, and with prefixes "module", "_orig_mod" and "G_ema" of the last."""
    for name in reversed(place.split(".") if place else []):
        wraps = name in ("module", "_orig_mod") or place == "state_dict.G_ema" and name == "G_ema"
        state = {f"{name}.{key}": x for key, x in state.items()} if wraps else {name: state}
    return state


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.filterwarnings("ignore:.*clamped")
def test_a_state_dict_with_nvidias_keys_is_the_pickles_generator(tiny_generator, place, tmp_path):
    state = official.torch_state_dict(official.torch_module(tiny_generator))
    torch.save(placed(state, place), tmp_path / "g.pt")
    read = load_generator(tmp_path / "g.pt")
    assert_same(read, tiny_generator)
    assert read.architecture == tiny_generator.architecture


@pytest.mark.filterwarnings("default")
def test_what_a_state_dict_does_not_say_is_said_by_an_option(tiny_generator, tmp_path, capsys):
    clamped = with_clamp(tiny_generator, 256.0)
    torch.save(official.torch_state_dict(official.torch_module(clamped)), tmp_path / "g.pt")
    source, native_file = str(tmp_path / "g.pt"), tmp_path / "g.safetensors"
    assert main(["stylegan2", source, str(native_file)]) == 0
    assert "g.pt does not say whether its layers are clamped" in capsys.readouterr().err
    assert load_generator(native_file).architecture.conv_clamp is None
    assert main(["stylegan2", source, str(native_file), "--clamp=256"]) == 0
    assert capsys.readouterr().err == ""
    assert load_generator(native_file).architecture == clamped.architecture
    (tmp_path / "g.pkl").write_bytes(official.release(clamped, "torch"))
    refused = {
        ("g.pkl", "h.safetensors", "256"): "g.pkl says by itself what it clamps",
        ("g.safetensors", "h.pt", "256"): "--clamp is for official files; ",
        ("g.pt", "h.safetensors", "-1"): "conv_clamp is -1.0; expected a number above 0",
    }
    for (source, destination, clamp), said in refused.items():
        files = [str(tmp_path / source), str(tmp_path / destination)]
        assert main(["stylegan2", *files, f"--clamp={clamp}"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mapping.embed.weight": (8, 10)}, "conditional, with labels"),
        ({"synthesis.b8.skip.weight": (5, 6, 1, 1)}, "'resnet' or 'orig'"),
        ({"synthesis.b4.torgb.": None}, "'resnet' or 'orig'"),
        ({"synthesis.input.weight": (8, 8), "synthesis.b4.const": None}, "a StyleGAN3"),
        ({"synthesis.b4.resample_filter": (4, 4)}, "resample_filter is not the filter"),
        ({"synthesis.b4.more": (1,)}, r"synthesis.b4.more \(1,\): no rule takes it"),
        ({"synthesis.b8.conv0.noise_const": None}, r"noise.conv_1 \(8, 8\) is missing"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*clamped")
def test_state_dicts_of_other_networks_are_refused_by_name(tiny_generator, change, said, tmp_path):
    state = official.torch_state_dict(official.torch_module(tiny_generator))
    for key, shape in change.items():
        for known in [known for known in state if shape is None and known.startswith(key)]:
            del state[known]
        if shape is not None:
            state[key] = torch.ones(shape)
    torch.save(state, tmp_path / "g.pt")
    with pytest.raises(UserError, match=f"g.pt.*({said})"):
        load_generator(tmp_path / "g.pt")


@pytest.mark.parametrize("name", ["model_multi_id.pt", "model.pkl", "model.PTH"])
@pytest.mark.parametrize("table", [None, "G_ema"])
def test_a_module_that_torch_saved_is_read_with_all_it_says(tiny_generator, name, table, tmp_path):
    clamped = with_clamp(tiny_generator, 256.0)
    module = official.torch_module(clamped)
    content = module if table is None else {table: module, "D": None, "w": torch.ones(2)}
    (tmp_path / name).write_bytes(official.torch_archive(content))
    read = load_generator(tmp_path / name)
    assert_same(read, clamped)
    assert read.architecture == clamped.architecture


def test_a_module_in_pytorchs_old_format_says_what_works(tiny_generator, tmp_path):
    module = official.torch_module(tiny_generator)
    (tmp_path / "g.pt").write_bytes(official.torch_archive(module, zipped=False))
    with pytest.raises(UserError, match=r"torch_utils.persistence.*torch.save\(model.state_dict"):
        load_generator(tmp_path / "g.pt")


@pytest.mark.parametrize("name", ["g.pkl", "g.PKL", "g.pt"])
def test_a_network_pickled_on_its_own_is_read(generator, kind, name, tmp_path):
    made = official.torch_module if kind == "torch" else official.tensorflow_network
    dump = official.torch_pickle if kind == "torch" else official.tensorflow_pickle
    (tmp_path / name).write_bytes(dump(made(generator)))
    assert_same(load_generator(tmp_path / name), generator)


def test_a_pickle_of_the_generator_that_trained_says_so(tiny_generator, tmp_path):
    module = official.torch_module(tiny_generator)
    (tmp_path / "g.pkl").write_bytes(official.torch_pickle({"G": module, "D": None}))
    with pytest.warns(UserWarning, match="g.pkl has G alone, .* where g_ema is its average"):
        assert_same(load_generator(tmp_path / "g.pkl"), tiny_generator)


def test_another_network_pickled_on_its_own_is_named(tmp_path):
    other = official.Persistent("Discriminator", {"weight": np.ones((2, 2), np.float32)})
    for name, content in (("d.pkl", official.torch_pickle), ("d.pt", official.torch_archive)):
        (tmp_path / name).write_bytes(content(other))
        with pytest.raises(UserError, match=f"{name} holds no generator: .* a pickled Discrim"):
            load_generator(tmp_path / name)


# -- conv_clamp ------------------------------------------------------------------------------------


def torch_image(generator, ws):
    """What NVIDIA's network computes: one kernel per image, clamped layers."""
    from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

    tree = jax.tree.map(lambda x: torch.tensor(np.array(x)), generator.params["synthesis"])
    noise = jax.tree.map(lambda x: torch.tensor(np.array(x)), generator.noise)
    clamp = generator.architecture.conv_clamp
    fir = torch.tensor(official.FIR) * 4

    def filtered(x, padding):
        b, c, h, w = x.shape
        x = torch.nn.functional.pad(x, padding).reshape(
            b * c, 1, *(np.add((h, w), sum(padding[:2])))
        )
        return conv2d(x, fir[None, None]).reshape(b, c, *(np.add((h, w), sum(padding[:2]) - 3)))

    def modulated(x, layer, w, up=False, demodulate=True):
        modulation = layer["modulation"]
        style = w @ modulation["weight"] / np.sqrt(len(w[0])) + modulation["bias"]
        kernel = layer["weight"].permute(3, 2, 0, 1)
        kernel = kernel / np.sqrt(np.prod(kernel.shape[1:]))
        outputs = []
        for one, s in zip(x, style, strict=True):
            k = kernel * s[None, :, None, None]
            if demodulate:
                k = k * torch.rsqrt((k**2).sum((1, 2, 3), keepdim=True) + 1e-8)
            if up:
                y = conv_transpose2d(one[None], k.transpose(0, 1), stride=2)
                outputs.append(filtered(y, (1, 1, 1, 1)))
            else:
                outputs.append(conv2d(one[None], k, padding=k.shape[2] // 2))
        return torch.cat(outputs)

    x = tree["constant"].permute(2, 0, 1)[None].repeat(len(ws), 1, 1, 1)
    image = None
    for i in range(generator.num_layers - 1):
        layer = tree[f"conv_{i}"]
        x = modulated(x, layer, ws[:, i], up=i % 2 == 1)
        x = x + layer["noise_strength"] * noise[f"conv_{i}"]
        x = leaky_relu(x + layer["bias"][:, None, None], 0.2) * 2**0.5
        x = x.clamp(-clamp, clamp)
        if i % 2 == 0:
            layer = tree[f"to_rgb_{i // 2}"]
            rgb = modulated(x, layer, ws[:, i + 1], demodulate=False)
            rgb = (rgb + layer["bias"][:, None, None]).clamp(-clamp, clamp)
            if image is not None:
                b, c, h, w = image.shape
                zeros = torch.zeros(b, c, 2 * h, 2 * w)
                zeros[:, :, ::2, ::2] = image
                rgb = rgb + filtered(zeros, (2, 1, 2, 1))
            image = rgb
    return image.permute(0, 2, 3, 1).numpy()


def test_the_clamp_is_kept_and_honoured_by_synthesis(tiny_generator, kind, tmp_path, assert_close):
    clamped = with_clamp(tiny_generator, 0.75)
    (tmp_path / "g.pkl").write_bytes(official.release(clamped, kind))
    assert main(["stylegan2", str(tmp_path / "g.pkl"), str(tmp_path / "g.safetensors")]) == 0
    generator = load_generator(tmp_path / "g.safetensors")
    assert generator.architecture.conv_clamp == 0.75
    random = np.random.default_rng(0)
    ws = random.standard_normal((2, generator.num_layers, 8)).astype(np.float32)
    expected = torch_image(generator, torch.tensor(ws))
    draw = jax.jit(Generator.synthesize)
    assert_close(draw(generator, ws), expected, 1e-5)
    free = draw(tiny_generator, ws)
    assert float(jnp.abs(free - expected).max()) > 0.1


@pytest.mark.filterwarnings("default")
def test_writing_a_clamped_generator_for_rosinality_says_what_is_lost(
    tiny_generator, tmp_path, capsys
):
    native.save_model(with_clamp(tiny_generator, 256.0), tmp_path / "g.safetensors")
    assert main(["stylegan2", str(tmp_path / "g.safetensors"), str(tmp_path / "g.pt")]) == 0
    assert "clamps every layer at 256" in capsys.readouterr().err


def test_another_filter_is_refused(tiny_generator, tmp_path, monkeypatch):
    monkeypatch.setattr(official, "FIR", np.full((4, 4), 1 / 16, np.float32))
    (tmp_path / "g.pkl").write_bytes(official.release(tiny_generator, "torch"))
    with pytest.raises(UserError, match="resample_filter"):
        load_generator(tmp_path / "g.pkl")
