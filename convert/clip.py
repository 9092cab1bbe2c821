"""CLIP: Hugging Face (PyTorch) directories, OpenAI's files, open_clip's -> native directories.

A native directory is what `FlaxCLIPModel.save_pretrained` writes, with the tokenizer beside it.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert import reader, rules
from convert.rules import CONV, DENSE, Match, Rule
from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.models.clip import MEAN, STD, param_shapes, read_json

ACTIVATIONS = ("quick_gelu", "gelu")  # OpenAI's, and what open_clip mostly trains with
COPIED = (
    "config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


def _norm(official: str, native: str) -> list[Rule]:
    return [
        Rule(f"{official}.weight", f"{native}.scale"),
        Rule(f"{official}.bias", f"{native}.bias"),
    ]


def _dense(official: str, native: str) -> list[Rule]:
    return [
        Rule(f"{official}.weight", f"{native}.kernel", DENSE),
        Rule(f"{official}.bias", f"{native}.bias"),
    ]


_TOWER = "{tower:text|vision}_model"
_LAYER = f"{_TOWER}.encoder.layers.{{i}}"
_VISION, _TEXT = "vision_model", "text_model"

HUGGINGFACE = [
    Rule("logit_scale", "logit_scale"),
    Rule("{side:visual|text}_projection.weight", "{side:visual|text}_projection.kernel", DENSE),
    Rule(f"{_VISION}.embeddings.class_embedding", f"{_VISION}.embeddings.class_embedding"),
    Rule(
        f"{_VISION}.embeddings.patch_embedding.weight",
        f"{_VISION}.embeddings.patch_embedding.kernel",
        CONV,
    ),
    Rule(
        f"{_TEXT}.embeddings.token_embedding.weight",
        f"{_TEXT}.embeddings.token_embedding.embedding",
    ),
    Rule(
        f"{_TOWER}.embeddings.position_embedding.weight",
        f"{_TOWER}.embeddings.position_embedding.embedding",
    ),
    Rule(f"{_TOWER}.embeddings.position_ids", None),
    *_dense(*[f"{_LAYER}.self_attn.{{part:q|k|v|out}}_proj"] * 2),
    *_dense(*[f"{_LAYER}.mlp.fc{{n}}"] * 2),
    *_norm(*[f"{_LAYER}.layer_norm{{n}}"] * 2),
    *_norm(*[f"{_TEXT}.final_layer_norm"] * 2),
    *_norm(*[f"{_VISION}.pre_layrnorm"] * 2),
    *_norm(*[f"{_VISION}.post_layernorm"] * 2),
]


def _openai_blocks(official: str, tower: str) -> list[Rule]:
    block, layer = f"{official}.resblocks.{{i}}", f"{tower}.encoder.layers.{{i}}"
    return [
        *_dense(
            f"{block}.attn.{{part:q|k|v|out}}_proj", f"{layer}.self_attn.{{part:q|k|v|out}}_proj"
        ),
        *_dense(f"{block}.mlp.c_fc", f"{layer}.mlp.fc1"),
        *_dense(f"{block}.mlp.c_proj", f"{layer}.mlp.fc2"),
        *_norm(f"{block}.ln_{{n}}", f"{layer}.layer_norm{{n}}"),
    ]


# OpenAI multiplies by both projections from the right, as Flax does: they stay as they are. open_clip
# keeps OpenAI's names.
OPENAI = [
    Rule("logit_scale", "logit_scale"),
    Rule("visual.proj", "visual_projection.kernel"),
    Rule("text_projection", "text_projection.kernel"),
    Rule("visual.class_embedding", f"{_VISION}.embeddings.class_embedding"),
    Rule("visual.conv1.weight", f"{_VISION}.embeddings.patch_embedding.kernel", CONV),
    Rule("visual.positional_embedding", f"{_VISION}.embeddings.position_embedding.embedding"),
    Rule("positional_embedding", f"{_TEXT}.embeddings.position_embedding.embedding"),
    Rule("token_embedding.weight", f"{_TEXT}.embeddings.token_embedding.embedding"),
    *_openai_blocks("visual.transformer", _VISION),
    *_openai_blocks("transformer", _TEXT),
    *_norm("visual.ln_pre", f"{_VISION}.pre_layrnorm"),
    *_norm("visual.ln_post", f"{_VISION}.post_layernorm"),
    *_norm("ln_final", f"{_TEXT}.final_layer_norm"),
    Rule("{extra:input_resolution|context_length|vocab_size}", None),  # of JIT archives
    Rule("{mask:attn_mask|transformer.resblocks.[0-9]+.attn_mask}", None),  # a constant
]


def load_torch_directory(
    directory: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], list[Match]]:
    """Reads a Hugging Face directory with PyTorch weights.

    Args:
      directory: holds config.json and model.safetensors or pytorch_model.bin.

    Returns:
      Arrays by flat path of FlaxCLIPModel, in the type of the file, and each key's way.

    Raises:
      UserError: a file is missing or damaged, or the arrays do not fit the config.
    """
    directory = Path(directory)
    expected = param_shapes(read_json(directory / "config.json"))
    whole, pickled = directory / "model.safetensors", directory / "pytorch_model.bin"
    if whole.is_file():
        arrays, metadata = files.read_safetensors(whole)
        if metadata.get("format") == "flax":
            raise UserError(
                f"{whole} is in the native (Flax) layout already; there is nothing to convert"
            )
    elif pickled.is_file():
        arrays = _flat(reader.read(pickled), pickled)
    else:
        raise UserError(f"{directory} holds neither {whole.name} nor {pickled.name}")
    params, matches = rules.apply(HUGGINGFACE, arrays, what=str(directory))
    rules.check(params, expected, what=str(directory))
    return params, matches


def from_openai(
    official: rules.Arrays, what: str = "checkpoint", activation: str = ACTIVATIONS[0]
) -> tuple[dict[str, np.ndarray], dict[str, Any], list[Match]]:
    """Converts a state dict of a ViT by OpenAI, or by open_clip.

    Args:
      official: key -> array, as in OpenAI's `clip`.
      what: how messages call it.
      activation: one of `ACTIVATIONS`.

    Returns:
      Arrays by flat path of FlaxCLIPModel, the config.json that is read from their shapes, and each
      key's way.

    Raises:
      UserError: a ResNet, no CLIP, or keys and shapes that do not fit, all in one message.
    """
    config = _openai_config(official, what, activation)
    params, matches = rules.apply(OPENAI, _split_attention(official), what=what)
    rules.check(params, param_shapes(config), what=what)
    return params, config, matches


def convert(source: Path, destination: Path, activation: str | None = None) -> list[Match]:
    """Writes a directory that `FlaxCLIPModel.from_pretrained` and `nada_jax.load_clip` read.

    Args:
      source: a Hugging Face directory with PyTorch weights, or a file by OpenAI (TorchScript archive or
        state dict) or open_clip (state dict, training checkpoint, .safetensors).
      destination: a new or empty directory. Arrays keep their type: float16 stays float16.
      activation: one of `ACTIVATIONS`, for files; by default what an open_clip_config.json beside the
        file says, or OpenAI's.

    Returns:
      Each key's way.

    Raises:
      UserError: the source does not fit, or the destination holds something already; then nothing
        is written.
    """
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise UserError(f"{destination} exists already; give a new or an empty directory")
    with reading(source):
        if source.is_dir():
            if activation:
                raise UserError(f"--activation is for files; {source} says its own in config.json")
            params, matches = load_torch_directory(source)
            config = None
        elif source.is_file():
            params, config, matches = load_file(source, activation)
        else:
            raise UserError(f"{source} does not exist")
    try:
        _write(params, config, source, destination)
    except OSError as error:
        raise UserError(f"cannot write {destination}: {error.strerror}") from error
    return matches


def load_file(
    source: Path, activation: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any], list[Match]]:
    """Reads a file by OpenAI or open_clip; see `convert` and, for what it returns, `from_openai`.

    open_clip's training checkpoints hold the state dict as `state_dict`, with "module." before every key
    where they were trained on several devices. Their published files have an open_clip_config.json
    beside them that tells the activation.
    """
    if source.suffix == ".safetensors":
        flat = files.read_safetensors(source)[0]
    elif source.suffix in (".pt", ".pth", ".bin"):
        content = reader.read(source)
        content = content.get("state_dict", content)
        flat = _flat(content if isinstance(content, Mapping) else {}, source)
    else:
        raise UserError(
            f"{source} is neither a directory nor a .pt, .pth, .bin or .safetensors file"
        )
    if all(str(key).startswith("module.") for key in flat):
        flat = {key.removeprefix("module."): array for key, array in flat.items()}
    described = source.with_name("open_clip_config.json")
    if activation is None and described.is_file():
        model = read_json(described).get("model_cfg", {})
        activation = ACTIVATIONS[0] if model.get("quick_gelu") else ACTIVATIONS[1]
    return from_openai(flat, str(source), activation or ACTIVATIONS[0])


def _write(
    params: rules.Arrays, config: Mapping[str, Any] | None, source: Path, destination: Path
) -> None:
    """Writes beside the destination and renames. Without a config, all but weights are copied."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".clip-", dir=destination.parent) as temporary:
        staged = Path(temporary) / "clip"
        staged.mkdir()
        files.write_safetensors(staged / "model.safetensors", params, {"format": "flax"})
        if config is None:
            for name in COPIED:
                if (source / name).is_file():
                    shutil.copyfile(source / name, staged / name)
        else:
            size = config["vision_config"]["image_size"]
            for name, content in (("config", config), ("preprocessor_config", _preprocessor(size))):
                (staged / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        staged.replace(destination)


def _flat(content: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    """Arrays of a state dict; numbers count as arrays, anything else shows that it is not one."""
    wrong = [
        key
        for key, x in content.items()
        if not isinstance(x, np.ndarray | np.generic | int | float)
    ]
    if wrong or not content:
        raise UserError(
            f"{path} is not a plain state dict: expected tensors alone, it has "
            + (", ".join(map(str, wrong[:8])) or "nothing")
        )
    return {key: np.asarray(x) for key, x in content.items()}


def _split_attention(official: rules.Arrays) -> dict[str, np.ndarray]:
    """attn.in_proj_{weight,bias} [3 o, ...] -> attn.{q,k,v}_proj.{weight,bias} [o, ...]."""
    split = {}
    for key, array in official.items():
        block, found, kind = key.partition("in_proj_")
        if found and np.ndim(array):
            thirds = np.array_split(array, 3)
            parts = {f"{block}{p}_proj.{kind}": x for p, x in zip("qkv", thirds, strict=True)}
            if twice := parts.keys() & official.keys():
                raise UserError(f"{key} holds what {min(twice)} holds as well")
            split |= parts
        else:
            split[key] = array
    return split


def _openai_config(official: rules.Arrays, what: str, activation: str) -> dict[str, Any]:
    """config.json from the shapes; the heads of every published ViT are 64 wide."""
    if any(key.startswith("visual.layer1.") for key in official):
        raise UserError(
            f"{what} is a CLIP with a ResNet (RN50, RN101, ...), which is not supported; use one "
            "with a vision transformer: ViT-B/32, ViT-B/16 or ViT-L/14"
        )
    needed = {
        "visual.conv1.weight": 4, "visual.positional_embedding": 2, "visual.proj": 2,
        "positional_embedding": 2, "token_embedding.weight": 2,
    }  # fmt: skip
    wrong = [key for key, axes in needed.items() if np.ndim(official.get(key)) != axes]
    if wrong:
        raise UserError(f"{what} is not an OpenAI CLIP: no fitting {', '.join(wrong)}")
    width, _, patch, _ = official["visual.conv1.weight"].shape
    patches = len(official["visual.positional_embedding"]) - 1
    vocabulary, text_width = official["token_embedding.weight"].shape
    dim = official["visual.proj"].shape[1]

    def tower(prefix: str, width: int) -> dict[str, Any]:
        norms = [k for k in official if k.startswith(f"{prefix}.") and k.endswith(".ln_1.weight")]
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "projection_dim": dim,
            "num_hidden_layers": len(norms),
            "num_attention_heads": max(width // 64, 1),
            "hidden_act": activation,
        }

    text = {
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "max_position_embeddings": len(official["positional_embedding"]),
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }
    vision = {
        "model_type": "clip_vision_model",
        "image_size": math.isqrt(patches) * patch,
        "patch_size": patch,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": dim,
        "text_config": text | tower("transformer", text_width),
        "vision_config": vision | tower("visual.transformer", width),
    }


def _preprocessor(size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "do_convert_rgb": True,
    }
