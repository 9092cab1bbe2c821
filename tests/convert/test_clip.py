import json
import shutil
import warnings

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from convert import clip as conversion
from convert import clip_config
from convert.__main__ import main
from nada_jax import load_clip, trees
from nada_jax.errors import UserError
from nada_jax.models import clip as models


@pytest.fixture(scope="module")
def official(golden_weights):
    return golden_weights("clip ViT-B/32", 1235)


@pytest.fixture
def avatar_directory(shared, tmp_path):
    """A writable copy of the small Hugging Face CLIP."""
    copy = tmp_path / "source"
    copy.mkdir()
    for file in shared("weights/clip-avatar-p8").iterdir():
        shutil.copyfile(file, copy / file.name)
    return copy


def from_pretrained(directory):
    """What Hugging Face reads from a directory, by flat path; nothing missing is filled in."""
    from transformers import FlaxCLIPModel

    _, params = FlaxCLIPModel.from_pretrained(directory, _do_init=False)
    return trees.flatten(params)


def test_a_hugging_face_directory_becomes_a_flax_one(avatar_directory, tmp_path, avatar_clip):
    matches = conversion.convert(avatar_directory, tmp_path / "out")
    arrays = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    assert len(arrays) == len(matches) and all(x.dtype == np.float16 for x in arrays.values())
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        file.name for file in avatar_directory.iterdir()
    }
    read = from_pretrained(tmp_path / "out")
    expected = trees.flatten(avatar_clip.params)
    assert read.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(read[path], array)
    assert {file.name for file in tmp_path.iterdir()} == {"source", "out"}


def test_an_openai_state_dict_becomes_a_flax_directory(official, tmp_path):
    torch = pytest.importorskip("torch")
    extras = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    tensors = {key: torch.tensor(x).half() for key, x in official.items()}
    torch.save(tensors | {k: torch.tensor(x) for k, x in extras.items()}, tmp_path / "clip.pt")
    matches = conversion.convert(tmp_path / "clip.pt", tmp_path / "out")  # no warning: OpenAI's
    assert sum(match.destination is None for match in matches) == 3
    read = from_pretrained(tmp_path / "out")
    expected = conversion.from_openai(official).params
    assert read.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(read[path], array.astype(np.float16))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    clip = models.from_params(read, config, tmp_path / "out")
    assert (clip.image_size, clip.context, clip.dim) == (32, 77, 64)
    assert clip.tokenizer.end == config["text_config"]["eos_token_id"] == 49407


def test_bfloat16_stays_bfloat16_and_position_ids_are_dropped(avatar_directory, tmp_path):
    path = avatar_directory / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    arrays = {key: x.astype(ml_dtypes.bfloat16) for key, x in arrays.items()}
    arrays["text_model.embeddings.position_ids"] = np.arange(32)[None]
    safetensors.numpy.save_file(arrays, path, {"format": "pt"})
    conversion.convert(avatar_directory, tmp_path / "out")
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "flax"}
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"BF16"}  # noqa: SIM118


def test_pickled_hugging_face_weights_are_read(avatar_directory, avatar_clip):
    torch = pytest.importorskip("torch")
    arrays = safetensors.numpy.load_file(avatar_directory / "model.safetensors")
    torch.save(
        {k: torch.tensor(x) for k, x in arrays.items()}, avatar_directory / "pytorch_model.bin"
    )
    (avatar_directory / "model.safetensors").unlink()
    params, _ = conversion.load_torch_directory(avatar_directory)
    for path, array in trees.flatten(avatar_clip.params).items():
        np.testing.assert_array_equal(params[path], array)


def test_misfits_are_reported_together(official):
    wrong = {key: x for key, x in official.items() if key != "ln_final.bias"}
    wrong["visual.proj"] = np.zeros((64, 32), np.float32)
    with pytest.raises(UserError) as error:
        conversion.from_openai(wrong, what="clip.pt")
    assert "text_model.final_layer_norm.bias (64,) is missing" in str(error.value)
    assert "text_projection.kernel has shape (64, 64), expected (64, 32)" in str(error.value)
    with pytest.raises(UserError, match="2 problems: .*one.*two"):
        conversion.from_openai(official | {"one": np.zeros(1), "two": np.zeros(1)})


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"visual.layer1.0.conv1.weight": np.zeros(1)}, "ResNet.*ViT-B/32"),
        ({"weight": np.zeros(1)}, "not an OpenAI CLIP"),
    ],
)
def test_other_networks_are_refused(arrays, said):
    with pytest.raises(UserError, match=f"clip.pt is {said}|clip.pt is a CLIP with a {said}"):
        conversion.from_openai(arrays, what="clip.pt")


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "clip.pt")
    with pytest.raises(
        UserError, match="holds no CLIP: expected a plain state dict.* it has model"
    ):
        conversion.convert(tmp_path / "clip.pt", tmp_path / "out")


def test_wrong_sources_and_destinations_leave_nothing_behind(avatar_directory, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("kept")
    empty = tmp_path / "empty"
    empty.mkdir()
    truncated = avatar_directory / "model.safetensors"
    truncated.write_bytes(truncated.read_bytes()[:1000])
    for source, destination, said in (
        (avatar_directory, full, "full exists already"),
        (avatar_directory, tmp_path / "out", "not a whole safetensors file"),
        (empty, tmp_path / "out", "config.json"),
        (tmp_path / "absent", tmp_path / "out", "does not exist"),
        (full / "mine.txt", tmp_path / "out", "neither a directory nor"),
    ):
        with pytest.raises(UserError, match=said):
            conversion.convert(source, destination)
    assert [file.name for file in full.iterdir()] == ["mine.txt"]
    assert not (tmp_path / "out").exists()


def test_native_weights_are_not_converted_again(avatar_directory, tmp_path):
    conversion.convert(avatar_directory, tmp_path / "out")
    with pytest.raises(UserError, match="native .* already"):
        conversion.convert(tmp_path / "out", tmp_path / "again")


# -- files ---------------------------------------------------------------------------------------------


@pytest.fixture
def expected(official):
    """What every file of the golden CLIP must yield."""
    return conversion.from_openai(official).params


def assert_same(params, expected, dtype=np.float32):
    assert params.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(params[path], array.astype(dtype), err_msg=path)


def torchscript(arrays, path):
    """Saves arrays as the attributes of a TorchScript module, as OpenAI's CLIPs are published."""
    import torch

    root = torch.nn.Module()
    for key, array in arrays.items():
        *parents, leaf = key.split(".")
        module = root
        for name in parents:
            if name not in module._modules:
                module.add_module(name, torch.nn.Module())
            module = module._modules[name]
        tensor = torch.tensor(array)
        if tensor.is_floating_point():
            module.register_parameter(leaf, torch.nn.Parameter(tensor))
        else:
            module.register_buffer(leaf, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather export
        torch.jit.save(torch.jit.script(root), path)


def test_a_torchscript_archive_of_openai_becomes_a_flax_directory(official, expected, tmp_path):
    pytest.importorskip("torch")
    extras = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    half = {key: array.astype(np.float16) for key, array in official.items()}
    torchscript(half | {k: np.array(x) for k, x in extras.items()}, tmp_path / "ViT-B-32.pt")
    assert main(["clip", "--check", str(tmp_path / "ViT-B-32.pt"), str(tmp_path / "out")]) == 0
    assert_same(from_pretrained(tmp_path / "out"), expected, np.float16)


def test_a_training_checkpoint_of_open_clip_is_read(official, expected, tmp_path):
    torch = pytest.importorskip("torch")
    arrays = {f"module.{key}": torch.tensor(array) for key, array in official.items()}
    optimizer = {"state": {0: {"step": torch.tensor(1)}}, "param_groups": []}
    checkpoint = {"epoch": 3, "name": "run", "state_dict": arrays, "optimizer": optimizer}
    torch.save(checkpoint, tmp_path / "epoch_3.pt")
    with pytest.warns(
        UserWarning, match="epoch_3.pt .* taken for OpenAI's: .*quick_gelu.*--config"
    ):
        assert_same(conversion.load_file(tmp_path / "epoch_3.pt").params, expected)


def test_the_activation_may_be_given(official, tmp_path):
    path = tmp_path / "clip.safetensors"
    safetensors.numpy.save_file({k: np.asarray(x) for k, x in official.items()}, path)
    with pytest.warns(UserWarning, match="heads of 64, gelu, OpenAI's mean"):
        found = conversion.load_file(path, "gelu")
    assert {found.config[f"{tower}_config"]["hidden_act"] for tower in ("text", "vision")} == {
        "gelu"
    }


def test_an_archive_of_openai_is_not_described_by_what_lies_beside_it(official, tmp_path):
    extras = {name: np.array(1) for name in conversion.OPENAI_MARKS}
    arrays = {k: np.asarray(x) for k, x in official.items()} | extras
    safetensors.numpy.save_file(arrays, tmp_path / "ViT-B-32.safetensors")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": "of another file"}')
    found = conversion.load_file(tmp_path / "ViT-B-32.safetensors")
    assert found.config["vision_config"]["hidden_act"] == "quick_gelu"


def test_a_file_is_loaded_by_its_path(official, golden_clips, tmp_path):
    safetensors.numpy.save_file(
        {k: np.asarray(x) for k, x in official.items()}, tmp_path / "clip.safetensors"
    )
    with pytest.warns(UserWarning, match="taken for OpenAI's"):
        clip = load_clip(tmp_path / "clip.safetensors")
    expected = golden_clips["ViTB32"]
    np.testing.assert_array_equal(clip.tokenize(["a cat"]), expected.tokenize(["a cat"]))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(clip.embed_images(images), expected.embed_images(images), atol=1e-6)


SIZES = {  # patch, image, width, layers, text width, text heads, features, parameters
    "ViT-B/32": (32, 224, 768, 12, 512, 8, 512, 151_277_313),
    "ViT-B/16": (16, 224, 768, 12, 512, 8, 512, 149_620_737),
    "ViT-L/14": (14, 224, 1024, 24, 768, 12, 768, 427_616_513),
    "ViT-L/14@336px": (14, 336, 1024, 24, 768, 12, 768, 427_944_193),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_published_size_is_read_from_the_shapes(name):
    patch, side, width, layers, text_width, heads, dim, parameters = SIZES[name]
    shapes = {
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.positional_embedding": ((side // patch) ** 2 + 1, width),
        "visual.proj": (width, dim),
        "positional_embedding": (77, text_width),
        "token_embedding.weight": (49408, text_width),
    }
    for i in range(layers):
        shapes[f"visual.transformer.resblocks.{i}.ln_1.weight"] = (width,)
    for i in range(12):
        shapes[f"transformer.resblocks.{i}.ln_1.weight"] = (text_width,)
    zeros = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    config = clip_config.from_arrays(zeros, name, "quick_gelu")
    assert config["vision_config"]["image_size"] == side
    assert config["vision_config"]["num_attention_heads"] == width // 64
    assert config["text_config"]["num_attention_heads"] == heads
    counted = sum(int(np.prod(shape)) for shape in models.param_shapes(config).values())
    assert counted == parameters


def test_an_option_of_another_kind_is_refused(tmp_path, capsys):
    assert main(["vgg", "--activation", "gelu", "a.pth", str(tmp_path / "b.safetensors")]) == 2
    assert "--activation is for clip alone, not for vgg" in capsys.readouterr().err
    assert main(["clip", "--lpips", "a.pth", "b.pt", str(tmp_path / "c")]) == 2
    assert "--lpips is for vgg alone, not for clip" in capsys.readouterr().err
