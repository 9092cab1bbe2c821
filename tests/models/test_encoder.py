import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import encoder as conversion
from convert import rules
from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.models.encoder import Encoder, EncoderArchitecture, refine
from nada_jax.weights import loading as weights
from nada_jax.weights import native

BODY = {"stem": 6, "widths": (6, 8, 8, 12, 16), "reduction": 2, "w_dim": 5}
TYPES = {  # a few channels wide
    "GradualStyleEncoder": EncoderArchitecture(**BODY, heads=(4, 5, 6, 6)),
    "Encoder4Editing": EncoderArchitecture(**BODY, heads=(4, 5, 5, 6), progressive=True),
    "BackboneEncoder": EncoderArchitecture(**BODY, in_channels=6, heads=(4,) * 3, pyramid=False),
    "ProgressiveBackboneEncoder": EncoderArchitecture(
        **BODY, in_channels=6, heads=(4,) * 3, pyramid=False, progressive=True
    ),
}
offsets, encode = jax.jit(Encoder.offsets), jax.jit(Encoder.encode)


@functools.cache
def made(encoder_type):
    """A narrow encoder with random weights."""
    architecture = TYPES[encoder_type]
    random, arrays = np.random.default_rng(0), {}
    for path, shape in architecture.shapes().items():
        x = random.standard_normal(shape, np.float32)
        if path.endswith("kernel"):
            x /= np.sqrt(np.prod(shape[:-1]))
        elif path.endswith(("var", "scale")):
            x = np.abs(x) + 0.5
        arrays[path] = x
    return native.model_from_arrays(Encoder, arrays, architecture)


@functools.cache
def random_images(channels):
    return jax.random.uniform(jax.random.key(0), (2, 256, 256, channels), minval=-1, maxval=1)


def draw(ws):
    """In place of a generator: [b, l, 5] -> waves [b, 64, 64, 3] that differ between latents."""
    phase = jnp.arange(64) / 20 * ws.sum(axis=1)[:, 3:, None]
    waves = jnp.sin(phase[:, 0, :, None, None] + phase[:, 1, None, :, None])
    return waves * jnp.tanh(ws[:, None, None, 0, :3])


# -- against the official implementation --------------------------------------------------------------


@pytest.fixture(scope="module")
def official(golden, golden_weights):
    """The official encoder of a 64-pixel generator; seeded weights are the same in e4e and pSp."""
    tables = golden("shapes_encoders.json")
    assert tables["e4e"] == tables["psp"]
    weights = golden_weights(tables["e4e"], int(golden("encoders.npz")["seed"]))
    return conversion.to_native(weights, "e4e", "Encoder4Editing")[0]


@pytest.mark.parametrize(("name", "progressive"), [("e4e", True), ("psp", False)])
def test_latents_match_the_official_encoder(name, progressive, official, golden, assert_close):
    architecture = official.architecture
    assert architecture.heads == (4,) * 3 + (5,) * 4 + (6,) * 3
    fields = vars(architecture) | {"progressive": progressive}
    encoder = official.replace(architecture=EncoderArchitecture(**fields))
    reference = golden("encoders.npz")
    images = reference["image"].astype(np.float32).transpose(0, 2, 3, 1)
    assert_close(encode(encoder, images), reference[f"{name}_codes"])


def twin(torch, official, images, progressive):
    """What the official classes compute, in PyTorch, from their state dict and NHWC images."""
    o = {key.removeprefix("encoder."): torch.tensor(x) for key, x in official.items()}
    F = torch.nn.functional

    def conv(x, name, **options):
        return F.conv2d(x, o[f"{name}.weight"], o.get(f"{name}.bias"), **options)

    def norm(x, name):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(o[f"{name}.{part}"] for part in names))

    x = torch.tensor(np.asarray(images).transpose(0, 3, 1, 2))
    x = norm(conv(x, "input_layer.0", padding=1), "input_layer.1")
    x = F.prelu(x, o["input_layer.2.weight"])
    maps, width = {}, None
    for i in range(5):
        block, before = f"body.{i}", x
        stride = 1 if len(o[f"{block}.res_layer.4.weight"]) == width else 2
        width = len(o[f"{block}.res_layer.4.weight"])
        x = conv(norm(x, f"{block}.res_layer.0"), f"{block}.res_layer.1", padding=1)
        x = F.prelu(x, o[f"{block}.res_layer.2.weight"])
        x = conv(x, f"{block}.res_layer.3", padding=1, stride=stride)
        x = norm(x, f"{block}.res_layer.4")
        gate = F.relu(conv(F.adaptive_avg_pool2d(x, 1), f"{block}.res_layer.5.fc1"))
        x = x * torch.sigmoid(conv(gate, f"{block}.res_layer.5.fc2"))
        if f"{block}.shortcut_layer.0.weight" in o:
            before = conv(before, f"{block}.shortcut_layer.0", stride=stride)
            x = x + norm(before, f"{block}.shortcut_layer.1")
        else:
            x = x + F.max_pool2d(before, 1, stride)
        maps[x.shape[2]] = x
    if "latlayer1.weight" in o:
        for name, side in (("latlayer1", 32), ("latlayer2", 64)):
            enlarged = F.interpolate(
                maps[side // 2], (side, side), mode="bilinear", align_corners=True
            )
            maps[side] = enlarged + conv(maps[side], name)
    latents, i = [], 0
    while f"styles.{i}.linear.weight" in o:
        convs = sum(key.startswith(f"styles.{i}.convs.") for key in o) // 2
        x = maps[2**convs]
        for j in range(convs):
            x = F.leaky_relu(conv(x, f"styles.{i}.convs.{2 * j}", padding=1, stride=2), 0.01)
        weight = o[f"styles.{i}.linear.weight"]
        x = F.linear(x[:, :, 0, 0], weight / weight.shape[1] ** 0.5, o[f"styles.{i}.linear.bias"])
        latents.append(x + latents[0] if progressive and i else x)
        i += 1
    return torch.stack(latents, dim=1).numpy()


@pytest.mark.parametrize("encoder_type", TYPES)
def test_latents_match_a_pytorch_twin_of_each_official_class(encoder_type, assert_close):
    torch = pytest.importorskip("torch")
    encoder, images = made(encoder_type), random_images(TYPES[encoder_type].in_channels)
    arrays = native.model_to_arrays(encoder)
    official, _ = rules.apply(conversion.RULES, arrays, backward=True)
    expected = twin(torch, official, images, encoder.architecture.progressive)
    again, _ = conversion.to_native(official, "twin", encoder_type)
    assert again.architecture == encoder.architecture
    assert_close(offsets(again, images), expected)


# -- behaviour ----------------------------------------------------------------------------------------


def test_e4e_adds_the_first_latent_to_all_others_and_psp_does_not(assert_close):
    e4e = made("Encoder4Editing")
    fields = vars(e4e.architecture) | {"progressive": False}
    psp = e4e.replace(architecture=EncoderArchitecture(**fields))
    together, alone = offsets(e4e, random_images(3)), offsets(psp, random_images(3))
    assert_close(together[:, 0], alone[:, 0], 1e-6)
    assert_close(together[:, 1:], alone[:, 1:] + alone[:, :1], 1e-6)
    assert jnp.abs(together - alone).max() > 0.1


def test_the_average_latent_is_added_and_other_sides_are_resized(assert_close):
    torch = pytest.importorskip("torch")
    encoder = made("GradualStyleEncoder")
    images = random_images(3)[:, :200, :100]
    resized = torch.nn.functional.interpolate(
        torch.tensor(np.asarray(images).transpose(0, 3, 1, 2)),
        (256, 256), mode="bilinear", antialias=True,
    )  # fmt: skip
    plain = offsets(encoder, resized.numpy().transpose(0, 2, 3, 1))
    assert_close(encode(encoder, images), encoder.latent_avg + plain)


def test_refinement_corrects_the_average_latent_step_by_step(assert_close):
    restyle, images = made("BackboneEncoder"), random_images(3)
    assert restyle.iterative and not made("GradualStyleEncoder").iterative
    ws = jnp.broadcast_to(restyle.latent_avg, (2, 3, 5))
    for steps in (1, 2, 3):
        attempt = jnp.repeat(jnp.repeat(draw(ws), 4, axis=1), 4, axis=2)
        ws = ws + offsets(restyle, jnp.concatenate([images, attempt], axis=-1))
        refined = jax.jit(refine, static_argnums=(2,))(restyle, images, draw, steps)
        assert_close(refined, ws)


@pytest.mark.parametrize(
    ("encoder_type", "shape"),
    [("GradualStyleEncoder", (1, 64, 64, 3)), ("BackboneEncoder", (1, 256, 256, 3))],
)
def test_images_of_a_wrong_shape_are_reported_with_the_right_one(encoder_type, shape):
    channels = TYPES[encoder_type].in_channels
    with pytest.raises(ValueError) as error:
        made(encoder_type).offsets(jnp.zeros(shape))
    assert str(error.value).endswith(f"{shape}; expected (1, 256, 256, {channels})")


# -- architecture and files ---------------------------------------------------------------------------


@pytest.mark.parametrize("encoder_type", TYPES)
def test_an_encoder_is_saved_and_loaded_bit_for_bit(encoder_type, tmp_path):
    encoder = made(encoder_type)
    native.save_model(encoder, tmp_path / "encoder.safetensors")
    loaded = weights.load_model(Encoder, tmp_path / "encoder.safetensors")
    assert loaded.architecture == encoder.architecture
    assert loaded.num_layers == len(encoder.latent_avg)
    jax.tree.map(np.testing.assert_array_equal, loaded, encoder)


def test_an_encoder_of_smaller_images_with_narrower_heads_keeps_both_in_its_file(tmp_path):
    architecture = EncoderArchitecture(**BODY, heads=(1, 2, 3), image_size=32, head_width=3)
    arrays = {path: np.ones(shape, np.float32) for path, shape in architecture.shapes().items()}
    assert arrays["head_2.conv_2.kernel"].shape == (3, 3, 3, 3)
    assert arrays["head_2.linear.weight"].shape == (3, 5)
    assert EncoderArchitecture.from_shapes(architecture.shapes(), image_size=32).head_width == 3
    encoder = native.model_from_arrays(Encoder, arrays, architecture)
    native.save_model(encoder, tmp_path / "encoder.safetensors", half=True)
    loaded = weights.load_encoder(tmp_path / "encoder.safetensors")
    assert loaded.architecture == architecture
    jax.tree.map(np.testing.assert_array_equal, loaded, encoder)
    assert jax.eval_shape(loaded.encode, jnp.zeros((2, 40, 40, 3))).shape == (2, 3, 5)
    assert jax.eval_shape(loaded.offsets, jnp.zeros((2, 32, 32, 3))).shape == (2, 3, 5)


def test_a_file_without_an_image_size_is_of_256_pixels_as_the_official_ones(tmp_path):
    encoder = made("GradualStyleEncoder")
    native.save_model(encoder, tmp_path / "encoder.safetensors")
    arrays, metadata = files.read_safetensors(tmp_path / "encoder.safetensors")
    described = json.loads(metadata["architecture"])
    del described["image_size"], described["head_width"]
    metadata["architecture"] = json.dumps(described)
    files.write_safetensors(tmp_path / "older.safetensors", arrays, metadata)
    assert weights.load_encoder(tmp_path / "older.safetensors").architecture == encoder.architecture


@pytest.mark.parametrize("fields", [{"image_size": 100}, {"image_size": 8}, {"head_width": 0}])
def test_sizes_that_fit_no_body_are_refused(fields):
    with pytest.raises(UserError, match="not an encoder: it reads images of|not an IR-SE50 body"):
        EncoderArchitecture(**BODY, heads=(0,), **fields)


@pytest.mark.parametrize("heads", [(), (4, 3), (4, 7)])
def test_heads_that_fit_no_map_are_refused(heads):
    with pytest.raises(UserError, match=r"its heads have .* where maps of 16, 32, 64 pixels need"):
        EncoderArchitecture(heads=heads)


def test_deep_heads_without_a_pyramid_are_refused():
    with pytest.raises(UserError, match="where maps of 16 pixels need 4"):
        EncoderArchitecture(heads=(4, 5), pyramid=False)


def test_shapes_without_heads_are_refused():
    shapes = TYPES["BackboneEncoder"].shapes()
    body = {path: shape for path, shape in shapes.items() if path.startswith("body")}
    with pytest.raises(UserError, match="not an encoder: it has no head"):
        EncoderArchitecture.from_shapes(body)
