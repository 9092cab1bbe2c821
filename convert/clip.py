"""CLIP: Hugging Face (PyTorch) directories, OpenAI's files, open_clip's -> native directories.

A native directory is what `FlaxCLIPModel.save_pretrained` writes, with the tokenizer beside it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert import clip_config, rules
from convert.clip_config import ACTIVATIONS
from convert.rules import CONV, DENSE, Match, Rule
from convert.unpickle import reader
from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.models.clip import param_shapes, read_json

# Files of a Hugging Face directory that are copied, if they exist: config, tokenizer, preprocessor.
COPIED = (
    "config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


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
    Rule(f"{_TOWER}.embeddings.position_ids", None),  # a constant 0, 1, 2, ... of older files
    *rules.layer(*[f"{_LAYER}.self_attn.{{part:q|k|v|out}}_proj"] * 2, DENSE),
    *rules.layer(*[f"{_LAYER}.mlp.fc{{n}}"] * 2, DENSE),
    *rules.layer(*[f"{_LAYER}.layer_norm{{n}}"] * 2, weight="scale"),
    *rules.layer(*[f"{_TEXT}.final_layer_norm"] * 2, weight="scale"),
    *rules.layer(*[f"{_VISION}.pre_layrnorm"] * 2, weight="scale"),
    *rules.layer(*[f"{_VISION}.post_layernorm"] * 2, weight="scale"),
]


def _openai_blocks(official: str, tower: str) -> list[Rule]:
    block, layer = f"{official}.resblocks.{{i}}", f"{tower}.encoder.layers.{{i}}"
    part = "{part:q|k|v|out}"
    return [
        *rules.layer(f"{block}.attn.{part}_proj", f"{layer}.self_attn.{part}_proj", DENSE),
        *rules.layer(f"{block}.mlp.c_fc", f"{layer}.mlp.fc1", DENSE),
        *rules.layer(f"{block}.mlp.c_proj", f"{layer}.mlp.fc2", DENSE),
        *rules.layer(f"{block}.ln_{{n}}", f"{layer}.layer_norm{{n}}", weight="scale"),
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
    *rules.layer("visual.ln_pre", f"{_VISION}.pre_layrnorm", weight="scale"),
    *rules.layer("visual.ln_post", f"{_VISION}.post_layernorm", weight="scale"),
    *rules.layer("ln_final", f"{_TEXT}.final_layer_norm", weight="scale"),
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
    return rules.apply(HUGGINGFACE, arrays, what=str(directory), expected=lambda _: expected)


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
    config = clip_config.from_arrays(official, what, activation)
    expected = param_shapes(config)
    params, matches = rules.apply(
        OPENAI, _split_attention(official), what=what, expected=lambda _: expected
    )
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
    if not source.exists():
        raise UserError(f"{source} does not exist")
    if source.is_dir() and activation:
        raise UserError(f"--activation is for files; {source} says its own in config.json")
    config = None  # that of a directory is copied
    with reading(source):
        if source.is_dir():
            params, matches = load_torch_directory(source)
        else:
            params, config, matches = load_file(source, activation)
    try:
        _write(params, config, source, destination)
    except OSError as error:
        raise UserError(f"cannot write {destination}: {error.strerror}") from error
    return matches


def load_file(
    source: Path, activation: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any], list[Match]]:
    """Reads a file by OpenAI or open_clip.

    Args:
      source: see `convert`.
      activation: see `convert`.

    Returns:
      See `from_openai`.

    Raises:
      UserError: the file is damaged, or holds no such CLIP.
    """
    if source.suffix == ".safetensors":
        flat = files.read_safetensors(source)[0]
    elif source.suffix in (".pt", ".pth", ".bin"):
        content = reader.read(source)
        flat = _flat(content.get("state_dict", content), source)  # open_clip's checkpoints have one
    else:
        raise UserError(
            f"{source} is neither a directory nor a .pt, .pth, .bin or .safetensors file"
        )
    # So PyTorch names what was trained on several devices.
    if all(key.startswith("module.") for key in flat):
        flat = {key.removeprefix("module."): array for key, array in flat.items()}
    # Arrays do not show the activation; open_clip publishes this file beside them.
    described = source.with_name("open_clip_config.json")
    if activation is None and described.is_file():
        model = read_json(described).get("model_cfg", {})
        activation = ACTIVATIONS[0] if model.get("quick_gelu") else ACTIVATIONS[1]
    return from_openai(flat, str(source), activation or ACTIVATIONS[0])


def _write(
    params: rules.Arrays, config: Mapping[str, Any] | None, source: Path, destination: Path
) -> None:
    """Writes the directory; without a config, all files but the weights are copied."""
    # Written beside the destination and renamed, so that a failure leaves no half of a directory.
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
            preprocessor = clip_config.preprocessor(size)
            for name, content in (("config", config), ("preprocessor_config", preprocessor)):
                (staged / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        staged.replace(destination)


def _flat(content: Any, path: Path) -> dict[str, np.ndarray]:
    """Arrays of a state dict, in which OpenAI keeps a few plain numbers."""
    if isinstance(content, Mapping):
        numbers = np.generic | int | float
        content = {k: np.asarray(x) if isinstance(x, numbers) else x for k, x in content.items()}
    return reader.state_dict(content, path, "CLIP")


def _split_attention(official: rules.Arrays) -> dict[str, np.ndarray]:
    """attn.in_proj_{weight,bias} [3 o, ...] -> attn.{q,k,v}_proj.{weight,bias} [o, ...]."""
    split = {}
    for key, array in official.items():
        block, found, kind = key.partition("in_proj_")
        if found and np.ndim(array):
            # PyTorch's attention keeps the three matrices as one; Flax's has a layer for each.
            thirds = np.array_split(array, 3)
            parts = {f"{block}{p}_proj.{kind}": x for p, x in zip("qkv", thirds, strict=True)}
            if twice := parts.keys() & official.keys():
                raise UserError(f"{key} holds what {min(twice)} holds as well")
            split |= parts
        else:
            split[key] = array
    return split
