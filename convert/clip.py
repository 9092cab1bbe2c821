"""CLIP: Hugging Face (PyTorch) directories, OpenAI's files, open_clip's -> native directories.

What no shape of an array shows (heads, activation, preprocessing) is OpenAI's, or stands in the configuration
of open_clip beside the file.

A native directory is what `FlaxCLIPModel.save_pretrained` writes, with the tokenizer beside it.
"""

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert import clip_config, directories, open_clip, rules
from convert.clip_config import ACTIVATIONS
from convert.clip_tables import HUGGINGFACE, OPENAI
from convert.rules import Match
from convert.unpickle import reader
from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.models import preprocessing
from nada_jax.models.clip_network import param_shapes

# Files of a Hugging Face directory that are copied, if they exist: config, tokenizer, preprocessor.
COPIED = (
    "config.json", *preprocessing.FILES, "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
HUGGINGFACE_FILES = ("model.safetensors", "pytorch_model.bin")
# Only OpenAI's archives have these among their arrays.
OPENAI_MARKS = {"input_resolution", "context_length", "vocab_size"}


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
    expected = param_shapes(files.read_json(directory / "config.json"))
    whole, pickled = (directory / name for name in HUGGINGFACE_FILES)
    if whole.is_file():
        arrays, metadata = files.read_safetensors(whole)
        if metadata.get("format") == "flax":
            raise UserError(
                f"{whole} is in the native (Flax) layout already; there is nothing to convert"
            )
    elif pickled.is_file():
        arrays = _flat(reader.read(pickled), pickled)
    else:
        parts = sorted(path.name for path in directory.glob("*.index.json"))
        split = f" (it is split into parts, see {parts[0]}: save it as one file)" if parts else ""
        raise UserError(f"{directory} holds neither {whole.name} nor {pickled.name}{split}")
    arrays = reader.unwrapped(arrays, directory)
    return rules.apply(HUGGINGFACE, arrays, what=str(directory), expected=lambda _: expected)


class Official(NamedTuple):
    """A CLIP out of one file.

    Attributes:
      params: arrays by flat path of FlaxCLIPModel.
      config, preprocessor: contents of config.json and preprocessor_config.json.
      matches: each key's way.
    """

    params: dict[str, np.ndarray]
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    matches: list[Match]


def from_openai(
    official: rules.Arrays,
    what: str = "checkpoint",
    activation: str | None = None,
    described: Path | None = None,
) -> Official:
    """Converts a state dict of a ViT by OpenAI, or by open_clip.

    Args:
      official: key -> array, as in OpenAI's `clip`.
      what: how messages call it.
      activation: one of `ACTIVATIONS`; by default that of the configuration, or OpenAI's.
      described: the configuration of open_clip; without one, all that shapes do not show is OpenAI's.

    Returns:
      The CLIP.

    Raises:
      UserError: a ResNet, no CLIP, a configuration of another network, or keys and shapes that do not
        fit, all in one message.
    """
    config = clip_config.from_arrays(official, what, activation or ACTIVATIONS[0])
    preprocessor = clip_config.preprocessor(config["vision_config"]["image_size"])
    if described:
        config, preprocessor = open_clip.describe(described, config, preprocessor, activation)
    else:
        clip_config.check_heads(config, what)
    expected = param_shapes(config)
    params, matches = rules.apply(
        OPENAI, _split_attention(official), what=what, expected=lambda _: expected
    )
    return Official(params, config, preprocessor, matches)


def convert(
    source: Path, destination: Path, activation: str | None = None, config: Path | None = None
) -> list[Match]:
    """Writes a directory that `FlaxCLIPModel.from_pretrained` and `nada_jax.load_clip` read.

    Args:
      source: a Hugging Face directory with PyTorch weights, or a file by OpenAI (TorchScript archive or
        state dict) or open_clip (state dict, training checkpoint, .safetensors).
      destination: a new or empty directory. Arrays keep their type: float16 stays float16.
      activation: see `load_file`.
      config: see `load_file`.

    Returns:
      Each key's way.

    Raises:
      UserError: the source does not fit, or the destination holds something already; then nothing
        is written.
    """
    directories.check_new(destination)
    if not source.exists():
        raise UserError(f"{source} does not exist")
    if source.is_dir() and (activation or config):
        option = "--activation" if activation else "--config"
        raise UserError(f"{option} is for files; {source} has its own config.json")
    contents = None  # those of a directory are copied
    with reading(source):
        if source.is_dir():
            params, matches = load_torch_directory(source)
        else:
            params, *contents, matches = load_file(source, activation, config)
    with directories.staged(destination) as directory:
        _write(params, contents, source, directory)
    return matches


def load_file(source: Path, activation: str | None = None, config: Path | None = None) -> Official:
    """Reads a file by OpenAI or open_clip; warns where it may be either.

    Args:
      source: see `convert`.
      activation: one of `ACTIVATIONS`; by default that of the configuration, or OpenAI's.
      config: a configuration of open_clip; by default what `open_clip.beside` finds, unless the file is an
        archive of OpenAI.

    Returns:
      The CLIP.

    Raises:
      UserError: the file is damaged, or holds no such CLIP; its configuration describes another, or what
        is not built; there is none, and the number of heads cannot be told.
    """
    if source.name in HUGGINGFACE_FILES and (source.parent / "config.json").is_file():
        raise UserError(f"{source} is part of a Hugging Face directory; give the directory")
    suffix = source.suffix.lower()
    if suffix == ".safetensors":
        flat = reader.unwrapped(files.read_safetensors(source)[0], source)
    elif suffix in (".pt", ".pth", ".bin"):
        content = reader.read(source)
        flat = _flat(content.get("state_dict", content), source)  # open_clip's checkpoints have one
    else:
        raise UserError(
            f"{source} is neither a directory nor a .pt, .pth, .bin or .safetensors file"
        )
    openai = flat.keys() >= OPENAI_MARKS
    if config is None and not openai:
        config = open_clip.beside(source)
    found = from_openai(flat, str(source), activation, config)
    if config is None and not openai:
        tower = found.config["vision_config"]
        warnings.warn(
            f"{source} does not say how its network is built, and is taken for OpenAI's: heads of "
            f"{clip_config.HEAD}, {tower['hidden_act']}, OpenAI's mean and standard deviation; if it is by "
            f"open_clip, {open_clip.ADVICE}",
            stacklevel=2,
        )
    return found


def _write(
    params: rules.Arrays,
    contents: Sequence[Mapping[str, Any]] | None,
    source: Path,
    directory: Path,
) -> None:
    """Fills the directory; without contents of its files, all but the weights are copied."""
    files.write_safetensors(directory / "model.safetensors", params, {"format": "flax"})
    if contents is None:
        for name in COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, directory / name)
    else:
        for name, content in zip(("config.json", preprocessing.FILES[0]), contents, strict=True):
            (directory / name).write_text(json.dumps(content, indent=1) + "\n")


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
