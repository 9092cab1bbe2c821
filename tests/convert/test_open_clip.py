"""open_clip's configuration, held against Hugging Face's PyTorch CLIP with the same weights."""

import copy
import json

import numpy as np
import pytest
import safetensors.numpy

from convert import clip as conversion
from convert.__main__ import main
from nada_jax import load_clip
from nada_jax.errors import UserError
from nada_jax.models import clip as models

# Heads 80 wide in vision and 32 in text, and layers that are not four times as wide.
CONFIG = {
    "model_cfg": {
        "embed_dim": 48,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 320, "head_width": 80, "patch_size": 8,
            "mlp_ratio": 2.7, "patch_dropout": 0.5,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 1,
            "mlp_ratio": 3.0, "norm_kwargs": {"eps": 1e-2},
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}  # fmt: skip
NAMES = {  # Hugging Face's -> open_clip's
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding": "token_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.final_layer_norm": "ln_final",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


@pytest.fixture(scope="module")
def reference():
    """Hugging Face's network, with heads and widths spelled out by hand, and random weights."""
    torch = pytest.importorskip("torch")
    from transformers import CLIPConfig, CLIPModel

    shared = {"hidden_act": "gelu", "projection_dim": 48}
    vision = {
        "hidden_size": 320, "num_attention_heads": 4, "intermediate_size": 864,
        "num_hidden_layers": 2, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    text = {
        "hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 288,
        "num_hidden_layers": 1, "layer_norm_eps": 1e-2, "vocab_size": 49408,
        "eos_token_id": 49407,
    }  # fmt: skip
    config = CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=48)
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for array in model.parameters():
            array.add_(torch.randn_like(array) * 0.05)
    return model


@pytest.fixture(scope="module")
def arrays(reference):
    """Its weights, as open_clip names and packs them."""
    found = {}
    for name, tensor in reference.state_dict().items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        found[name] = tensor.numpy()
    found["visual.proj"] = found.pop("visual_projection.weight").T.copy()
    found["text_projection"] = found.pop("text_projection.weight").T.copy()
    for key in [key for key in found if ".self_attn.q_proj." in key]:
        block, kind = key.split(".self_attn.q_proj.")
        parts = [found.pop(f"{block}.self_attn.{p}_proj.{kind}") for p in "qkv"]
        found[f"{block}.attn.in_proj_{kind}"] = np.concatenate(parts)
    return found


@pytest.fixture
def file(arrays, tmp_path):
    """write(config) -> a file of the weights; the configuration beside it, if any."""
    path = tmp_path / "open_clip_model.safetensors"
    safetensors.numpy.save_file(arrays, path)

    def write(config=None, name="open_clip_config.json"):
        if config is not None:
            (tmp_path / name).write_text(json.dumps(config))
        return path

    return write


def changed(path, value):
    """CONFIG with another value; `path` is such as "model_cfg.vision_cfg.width"."""
    config = copy.deepcopy(CONFIG)
    *parents, leaf = path.split(".")
    part = config
    for name in parents:
        part = part[name]
    part[leaf] = value
    return config


def test_heads_widths_and_normalisation_are_those_of_the_configuration(
    file, reference, tmp_path, assert_close
):
    torch = pytest.importorskip("torch")
    path = file(CONFIG)
    clip = load_clip(path)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 40, 48, 3)).astype(np.float32)
    resized = torch.nn.functional.interpolate(  # both sides, and no crop
        torch.from_numpy(images.transpose(0, 3, 1, 2)) / 2 + 0.5,
        [32, 32],
        mode="bicubic",
        antialias=True,
    )
    mean, std = (
        torch.tensor(CONFIG["preprocess_cfg"][name]).view(3, 1, 1) for name in ("mean", "std")
    )
    pixels = (resized - mean) / std
    ids = clip.tokenize(["a “photo”", "sketch"])
    with torch.no_grad():
        of_images = reference.get_image_features(pixel_values=pixels).numpy()
        of_texts = reference.get_text_features(input_ids=torch.from_numpy(ids).long()).numpy()
    assert_close(clip.pixels(images, antialias=True), pixels.numpy().transpose(0, 2, 3, 1))
    for actual, expected in (
        (clip.embed_images(images, antialias=True), of_images),
        (clip.embed_tokens(ids), of_texts),
    ):
        assert_close(actual, expected / np.linalg.norm(expected, axis=-1, keepdims=True), 1e-5)

    # The same out of the converter.
    assert main(["clip", str(path), str(tmp_path / "out")]) == 0
    converted = load_clip(tmp_path / "out")
    assert converted.config == clip.config and converted.squash
    assert (converted.mean, converted.std) == (clip.mean, clip.std)


def test_a_configuration_is_found_under_the_name_of_its_file_first_or_given(file, tmp_path):
    wrong, quick = changed("model_cfg.embed_dim", 1), changed("model_cfg.quick_gelu", True)
    file(wrong)
    with pytest.raises(UserError, match="open_clip_config.json does not describe these weights"):
        load_clip(file())
    found = conversion.load_file(file(quick, "open_clip_model.json"))
    assert found.config["text_config"]["hidden_act"] == "quick_gelu"
    file(CONFIG, "elsewhere.json")
    given = conversion.load_file(file(), config=tmp_path / "elsewhere.json")
    assert given.config["vision_config"]["hidden_act"] == "gelu"
    options = ["--config", str(tmp_path / "elsewhere.json"), "--activation", "quick_gelu"]
    assert main(["clip", *options, str(file()), str(tmp_path / "out")]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vision_config"]["num_attention_heads"] == 4
    assert config["vision_config"]["hidden_act"] == "quick_gelu"


def test_a_file_of_model_configs_says_nothing_of_normalisation(file):
    with pytest.warns(UserWarning, match="does not say how images are normalised"):
        found = conversion.load_file(file(CONFIG["model_cfg"], "open_clip_model.json"))
    assert found.config["vision_config"]["num_attention_heads"] == 4
    assert found.preprocessor["image_mean"] == list(models.MEAN)


def test_defaults_are_those_of_open_clip(file):
    config = copy.deepcopy(CONFIG)
    del config["model_cfg"]["text_cfg"]["heads"]  # 8
    found = conversion.load_file(file(config))
    assert found.config["text_config"]["num_attention_heads"] == 8


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("model_cfg.vision_cfg.pool_type", "avg", "vision_cfg.pool_type is 'avg', and only 'tok'"),
        ("model_cfg.vision_cfg.ls_init_value", 0, "vision_cfg.ls_init_value is 0, and only None"),
        ("model_cfg.vision_cfg.no_ln_pre", True, "no_ln_pre is True, and only False"),
        ("model_cfg.vision_cfg.timm_model_name", "vit_x", "timm_model_name is 'vit_x'"),
        ("model_cfg.vision_cfg.attentional_pool", True, "attentional_pool is True"),
        ("model_cfg.vision_cfg.act_kwargs", {"approximate": "tanh"}, "act_kwargs is"),
        ("model_cfg.vision_cfg.new_in_open_clip_9", 1, "there is no such field"),
        ("model_cfg.text_cfg.pool_type", "last", "text_cfg.pool_type is 'last'"),
        ("model_cfg.text_cfg.no_causal_mask", True, "no_causal_mask is True"),
        ("model_cfg.text_cfg.hf_tokenizer_name", "xlm", "hf_tokenizer_name is 'xlm'"),
        ("model_cfg.text_cfg.tokenizer_kwargs", {"clean": "canonicalize"}, "tokenizer_kwargs"),
        ("model_cfg.text_cfg.norm_kwargs", {"bias": False}, "norm_kwargs is {'bias': False}"),
        ("model_cfg.custom_text", True, "model_cfg.custom_text is True"),
        ("model_cfg.multimodal_cfg", {}, "model_cfg.multimodal_cfg is {}"),
        ("preprocess_cfg.interpolation", "bilinear", "interpolation is 'bilinear', and only 'bicubic'"),
        ("preprocess_cfg.resize_mode", "longest", "resize_mode is 'longest'"),
        ("preprocess_cfg.mean", [0.5], r"preprocess_cfg.mean is \[0.5\]; expected three"),
        ("preprocess_cfg.std", [0, 1, 1], r"std is \[0, 1, 1\]; expected three .* from 0.0001"),
        ("model_cfg.vision_cfg.width", 1280, "width is 1280, but the arrays have 320"),
        ("model_cfg.vision_cfg.layers", [3, 4, 6, 3], r"layers is \[3, 4, 6, 3\], but"),
        ("model_cfg.vision_cfg.image_size", 64, "image_size is 64, but the arrays have 32"),
        ("model_cfg.vision_cfg.mlp_ratio", 4.0, r"mlp_ratio is 4.0, but the arrays have 864 / 320"),
        ("model_cfg.vision_cfg.head_width", 0, "head_width is 0, which does not divide"),
        ("model_cfg.text_cfg.heads", 5, "text_cfg.heads is 5, which does not divide a width of 96"),
        ("model_cfg.text_cfg.context_length", 32, "context_length is 32, but the arrays have 77"),
        ("model_cfg.text_cfg.layers", 2**70, "layers is 1180591620717411303424, but"),
        ("model_cfg.embed_dim", 64, "model_cfg.embed_dim is 64, but the arrays have 48"),
        ("model_cfg.text_cfg", [], r"no configuration of open_clip: text_cfg is \[\]"),
        ("model_cfg", None, "no configuration of open_clip: model_cfg is None"),
    ],
)  # fmt: skip
def test_what_is_not_built_is_refused_by_the_name_of_its_field(file, field, value, said):
    with pytest.raises(UserError, match=rf"open_clip_config.json.*{said}"):
        conversion.load_file(file(changed(field, value)))


def test_without_a_configuration_the_number_of_heads_is_not_guessed(file, official_like):
    with pytest.raises(UserError, match="how many heads its text tower of width 96 .*--config"):
        conversion.load_file(file())
    # A multiple of 64, but no network of OpenAI's is that wide, and open_clip's has heads of 80.
    with pytest.raises(UserError, match="how many heads its vision tower of width 1280"):
        conversion.from_openai(official_like(1280), "ViT-H-14.pt")


@pytest.fixture(scope="module")
def official_like():
    """make(width) -> arrays of OpenAI's names whose vision tower has a width; enough for its config."""

    def make(width):
        shapes = {
            "visual.conv1.weight": (width, 3, 14, 14), "visual.positional_embedding": (257, width),
            "visual.proj": (width, 64), "positional_embedding": (77, 64),
            "token_embedding.weight": (49408, 64),
        }  # fmt: skip
        return {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}

    return make
