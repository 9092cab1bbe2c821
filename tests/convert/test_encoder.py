import argparse

import jax
import numpy as np
import pytest

from convert import encoder as conversion
from convert import rules
from nada_jax.errors import UserError
from nada_jax.models.encoder import Encoder, EncoderArchitecture
from nada_jax.weights import loading as weights
from nada_jax.weights import native

NARROW = {"stem": 6, "widths": (6, 8, 12, 16), "reduction": 2, "w_dim": 5}
PYRAMID = EncoderArchitecture(**NARROW, heads=(4, 5, 6))
RESTYLE = EncoderArchitecture(**NARROW, in_channels=6, heads=(4, 4, 4), pyramid=False)


def official(architecture=PYRAMID):
    """A made-up official state dict, without an average latent."""
    random = np.random.default_rng(0)
    native = {
        path: random.standard_normal(shape, np.float32)
        for path, shape in architecture.shapes().items()
        if path != "latent_avg"
    }
    arrays, _ = rules.apply(conversion.RULES, native, backward=True)
    return arrays | {"encoder.input_layer.1.num_batches_tracked": np.array(7)}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def file(torch, tmp_path):
    """(state dict, content beside it) -> an official file, with a decoder in it."""

    def write(arrays, **content):
        tensors = {key: torch.tensor(x) for key, x in arrays.items()}
        state = tensors | {"decoder.input.input": torch.zeros(1, 6, 4, 4)}
        torch.save({"state_dict": state} | content, tmp_path / "encoder.pt")
        return tmp_path / "encoder.pt"

    return write


def options(encoder_type, **more):
    return argparse.Namespace(encoder_type=encoder_type, device="cuda:0", **more)


# -- what is read -------------------------------------------------------------------------------------


def test_the_table_gives_the_official_keys_and_shapes(golden):
    architecture = EncoderArchitecture(heads=(4,) * 3 + (5,) * 4 + (6,) * 3)
    native = {path: np.zeros(shape, bool) for path, shape in architecture.shapes().items()}
    made, _ = rules.apply(conversion.RULES, native, backward=True)
    del made["latent_avg"]
    for expected in golden("shapes_encoders.json").values():
        counters = {key: [] for key in expected if key.endswith("num_batches_tracked")}
        assert {key: list(x.shape) for key, x in made.items()} | counters == expected


@pytest.mark.parametrize(
    ("encoder_type", "architecture", "progressive"),
    [
        ("GradualStyleEncoder", PYRAMID, False),
        ("Encoder4Editing", PYRAMID, True),
        ("BackboneEncoder", RESTYLE, False),
        ("ProgressiveBackboneEncoder", RESTYLE, True),
    ],
)
def test_a_file_shows_its_kind_and_sizes(
    encoder_type, architecture, progressive, file, torch, tmp_path
):
    arrays, average = official(architecture), torch.arange(15.0).reshape(3, 5)
    opts = options(encoder_type, input_nc=architecture.in_channels)
    path = file(arrays, opts=opts, latent_avg=average)
    encoder, matches = conversion.read(path)
    expected = vars(architecture) | {"progressive": progressive}
    assert encoder.architecture == EncoderArchitecture(**expected)
    assert encoder.latent_avg.tolist() == average.tolist()
    assert {m.source for m in matches} == arrays.keys() | {"latent_avg"}
    back, _ = rules.apply(conversion.RULES, native.model_to_arrays(encoder), backward=True)
    for key in back.keys() & arrays.keys():
        np.testing.assert_array_equal(back[key], arrays[key])
    native.save_model(encoder, tmp_path / "encoder.safetensors")
    for name in ("encoder.pt", "encoder.safetensors"):
        loaded = weights.load_model(Encoder, tmp_path / name)
        assert loaded.architecture == encoder.architecture
        jax.tree.map(np.testing.assert_array_equal, loaded, encoder)


@pytest.mark.parametrize(
    ("opts", "average", "expected"),
    [
        ({}, (5,), 1),  # one for all latents
        ({}, (1, 5), 1),
        ({"start_from_latent_avg": True}, (3, 5), 1),
        ({"start_from_latent_avg": False}, (3, 5), 0),
        ({"start_from_latent_avg": False}, None, 0),
        ({}, None, 0),
        ({"start_from_latent_avg": False, "input_nc": 6}, (3, 5), 1),  # ReStyle always adds it
    ],
)
def test_the_average_latent_is_kept_where_the_encoder_adds_it(opts, average, expected, file, torch):
    arrays = official(RESTYLE if "input_nc" in opts else PYRAMID)
    content = {} if average is None else {"latent_avg": torch.ones(average)}
    path = file(arrays, opts=options("GradualStyleEncoder", **opts), **content)
    assert conversion.read(path)[0].latent_avg.tolist() == [[expected] * 5] * 3


# -- what is refused ----------------------------------------------------------------------------------


def test_missing_unknown_and_misshapen_keys_are_reported_together():
    arrays = official() | {"latent_avg": np.zeros((4, 5), np.float32)}
    del arrays["encoder.styles.2.convs.0.bias"], arrays["encoder.latlayer2.weight"]
    arrays["discriminator.weight"] = np.zeros((2, 3), np.float32)
    arrays["encoder.styles.1.linear.bias"] = np.zeros(7, np.float32)
    with pytest.raises(UserError) as error:
        conversion.to_native(arrays, "file.pt", "Encoder4Editing")
    message = str(error.value)
    assert message.startswith("file.pt does not fit, 5 problems: ")
    for said in (
        "head_2.conv_0.bias (5,) is missing",
        "lateral_1.kernel (1, 1, 8, 16) is missing",
        "discriminator.weight (2, 3): no rule takes it",
        "head_1.linear.bias has shape (7,), expected (5,)",
        "latent_avg has shape (4, 5), expected (3, 5)",
    ):
        assert said in message


@pytest.mark.parametrize(
    ("encoder_type", "said"),
    [
        ("ResNetBackboneEncoder", r"with a ResNet34 body \(ResNetBackboneEncoder\), .*IR-SE50"),
        (
            "BackboneEncoderUsingLastLayerIntoW",
            "'BackboneEncoderUsingLastLayerIntoW'; encoders that read one style code",
        ),
        ("SingleStyleCodeEncoder", "'SingleStyleCodeEncoder'; encoders that read one style code"),
        ("Mine", "opts.encoder_type is 'Mine'; expected one of GradualStyleEncoder"),
        (None, "opts.encoder_type is missing; expected one of GradualStyleEncoder, Encoder4Edi"),
    ],
)
def test_an_encoder_of_another_or_an_unknown_kind_is_refused(encoder_type, said, file):
    with pytest.raises(UserError, match=said):
        conversion.read(file(official(), opts=options(encoder_type)))
    if encoder_type is None:
        with pytest.raises(UserError, match=said):
            conversion.read(file(official()))


@pytest.mark.parametrize(
    ("key", "said"), [("conv1", "ResNet34 body"), ("linear", "encoders that read one style code")]
)
def test_other_encoders_are_known_by_their_keys_too(key, said):
    arrays = {f"encoder.{key}.weight": np.zeros((64, 6), np.float32)}
    with pytest.raises(UserError, match=said):
        conversion.to_native(arrays, "file.pt", None)


@pytest.mark.parametrize("opts", [{"start_from_latent_avg": True}, {"input_nc": 6}])
def test_an_encoder_that_starts_from_an_average_needs_it(opts, file):
    path = file(official(), opts=options("GradualStyleEncoder", **opts), latent_avg=None)
    with pytest.raises(UserError, match="has no latent_avg, from which its encoder starts"):
        conversion.read(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.", "encoder.module."])
def test_an_encoder_is_found_behind_a_prefix(prefix, torch, tmp_path):
    arrays, average = official(), np.ones((3, 5), np.float32)
    state = {
        key.replace("encoder.", prefix, 1) if "encoder" in prefix else prefix + key: torch.tensor(x)
        for key, x in arrays.items()
    }
    content = {"state_dict": state, "opts": options("Encoder4Editing")}
    torch.save({"last": content, "latent_avg": torch.tensor(average)}, tmp_path / "encoder.pt")
    encoder, _ = conversion.read(tmp_path / "encoder.pt")
    expected, _ = conversion.to_native(arrays | {"latent_avg": average}, "e", "Encoder4Editing")
    jax.tree.map(np.testing.assert_array_equal, encoder, expected)


def test_a_file_without_an_encoder_is_refused(file, torch, tmp_path):
    with pytest.raises(UserError, match=r"holds no encoder: .*, it has decoder\.input\.input"):
        conversion.read(file({}))
    plain = {key.removeprefix("encoder."): torch.tensor(x) for key, x in official().items()}
    torch.save(plain, tmp_path / "plain.pt")
    with pytest.raises(
        UserError, match=r"tensors encoder\.… in state_dict, it has (body|input_layer)"
    ):
        conversion.read(tmp_path / "plain.pt")


def test_a_network_without_body_or_heads_is_refused():
    arrays = official()
    for part, said in (
        ("body", "not an encoder: it has the residual blocks"),
        ("styles", "has no head"),
    ):
        kept = {key: x for key, x in arrays.items() if not key.startswith(f"encoder.{part}")}
        with pytest.raises(UserError, match=f"file.pt does not fit, .*{said}"):
            conversion.to_native(kept, "file.pt", "Encoder4Editing")
