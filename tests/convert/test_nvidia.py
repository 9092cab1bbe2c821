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
