"""Diffusion models in diffusers' layout: a directory with unet/, vae/, text_encoder/, tokenizer/ and scheduler/.

Weights are safetensors files with PyTorch's names and layouts, which both libraries read; no PyTorch is needed.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nada_jax import files, trees
from nada_jax.errors import UserError, reading, some
from nada_jax.models import diffusion
from nada_jax.models.diffusion import Diffusion
from nada_jax.models.tokenizer import END, Tokenizer, load_tokenizer
from nada_jax.settings import PRECISIONS, need

CONFIGS = {  # part -> its configuration file
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
# Part -> names of its weights; published models have several, of which the first that is there is read.
WEIGHTS = {
    "unet": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"),
    "vae": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"),
    "text_encoder": ("model.safetensors", "model.fp16.safetensors"),
}
TOKENIZER = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")
INDEX = {  # model_index.json, by which diffusers makes a pipeline
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
UNUSED = "text_model.embeddings.position_ids"  # 0, 1, 2, ..., which older files hold
# Names of diffusers before 0.18, of the attention of VAEs.
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
# Flax's names of the same.
FLAX_ATTENTION = {flax: torch for torch, flax in OLD_ATTENTION.items()}
NUMBERED = re.compile(r"(?<=[a-z])_(\d+)(?=\.)")  # of a list: "resnets_0." is "resnets.0."
NOT_NUMBERED = ("linear_1.", "linear_2.")  # names of layers


def torch_name(part: str, path: str) -> str:
    """PyTorch's name of a parameter of a Flax class.

    Args:
      part: "unet", "vae" or "text_encoder".
      path: such as "down_blocks_0.resnets_1.conv1.kernel".

    Returns:
      Such as "down_blocks.0.resnets.1.conv1.weight".
    """
    *modules, leaf = path.split(".")
    if leaf in ("kernel", "scale", "embedding"):
        leaf = "weight"
    if part == "vae" and len(modules) > 1 and modules[-2].startswith("attentions_"):
        modules[-1] = FLAX_ATTENTION.get(modules[-1], modules[-1])
    name = ".".join([*modules, leaf])
    return NUMBERED.sub(
        lambda found: (
            found[0] if name[: found.end() + 1].endswith(NOT_NUMBERED) else f".{found[1]}"
        ),
        name,
    )


def old_name(name: str) -> str:
    """What a file by an older diffusers calls a parameter of the attention of a VAE."""
    if ".attentions." not in name:
        return name
    for new, old in OLD_ATTENTION.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def to_flax(array: np.ndarray, path: str, rank: int) -> np.ndarray:
    """An array of PyTorch in the layout of Flax; a convolution of one tap may stand for a matrix, and the reverse."""
    if not path.endswith(".kernel"):
        return array
    if array.ndim == 4 and rank == 2 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    if array.ndim == 2 and rank == 4:
        array = array[:, :, None, None]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_torch(array: np.ndarray, path: str) -> np.ndarray:
    """The inverse of `to_flax`."""
    if not path.endswith(".kernel"):
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def read(directory: Path, *, name: str, precision: str = "float32") -> Diffusion:
    """Reads a model.

    Args:
      directory: in diffusers' layout.
      name: how messages call it.
      precision: see `Diffusion`.

    Returns:
      The model, parameters in float32.

    Raises:
      UserError: a file is missing or damaged, or arrays and configuration do not fit; all that do not are named.
    """
    need(precision in PRECISIONS, "precision", precision, f"one of {', '.join(PRECISIONS)}")
    with reading(name):
        configs = {part: _read_config(directory, file) for part, file in CONFIGS.items()}
        config = diffusion.canonical(configs)
        tokens = json.loads(config)["text_encoder"]["vocab_size"]
        tokenizer, padding = read_tokenizer(directory / "tokenizer", tokens)
        flat, wrong = {}, []
        for part, shapes in diffusion.param_shapes(config).items():
            flat[part], found = _read_part(directory, part, shapes)
            wrong += [f"{part}: {phrase}" for phrase in found]
        if wrong:
            raise UserError(f"the arrays do not make the networks: {some(wrong)}")
    params = {
        part: trees.unflatten({path: jnp.asarray(x, jnp.float32) for path, x in arrays.items()})
        for part, arrays in flat.items()
    }
    return Diffusion(params, config, tokenizer, padding, name, precision)


def read_tokenizer(directory: Path, tokens: int) -> tuple[Tokenizer, int]:
    """Reads a tokenizer, and the token behind the end of a text.

    Args:
      directory: with its files.
      tokens: that the text encoder knows.

    Raises:
      UserError: a file is missing or damaged, or it gives numbers that the text encoder does not know.
    """
    tokenizer = load_tokenizer(directory, tokens)
    padding, highest = _padding(directory, tokenizer.end), max(tokenizer.start, tokenizer.end)
    if (directory / "vocab.json").is_file():
        known = files.read_json(directory / "vocab.json").values()
        highest = max([highest, *(x for x in known if isinstance(x, int))])
    if (highest := max(highest, padding)) >= tokens:
        raise UserError(
            f"the text encoder knows {tokens} tokens, but {directory.name}/ has number {highest}"
        )
    return tokenizer, padding


def _read_config(directory: Path, file: str) -> dict[str, Any]:
    if not (directory / file).is_file():
        raise UserError(
            f"there is no {file}; expected a directory in diffusers' layout, with {', '.join(CONFIGS.values())}"
        )
    return files.read_json(directory / file)


def _read_part(
    directory: Path, part: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Flat arrays of Flax, and what is wrong with them."""
    path = next((x for n in WEIGHTS[part] if (x := directory / part / n).is_file()), None)
    if path is None:
        raise UserError(
            f"there is no {part}/{WEIGHTS[part][0]}; files of PyTorch (.bin, .ckpt) become one by "
            "`python -m convert diffusion SOURCE DESTINATION`"
        )
    arrays, _ = files.read_safetensors(path)
    arrays.pop(UNUSED, None)
    found, names = {}, {}
    for flax, shape in shapes.items():
        name = torch_name(part, flax)
        name = name if name in arrays else old_name(name)
        if name in arrays:
            found[flax], names[flax] = to_flax(arrays.pop(name), flax, len(shape)), name
    # What is left has no place; by its own name.
    return found, trees.misfits(found | arrays, shapes, names)


def _padding(directory: Path, end: int) -> int:
    """The token behind the end of a text, as the tokenizer's files say."""
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / file).is_file():
            token = files.read_json(directory / file).get("pad_token")
            if token is not None:
                break
    else:
        return end
    token = token.get("content") if isinstance(token, dict) else token
    if token == END:
        return end
    known = files.read_json(directory / "vocab.json")
    if not isinstance(token, str) or type(known.get(token)) is not int:
        raise UserError(
            f"tokenizer/{file} says pad_token={token!r}, which tokenizer/vocab.json lacks"
        )
    return known[token]


def write(model: Diffusion, directory: Path, tokenizer: Path, *, half: bool = True) -> None:
    """Writes a model as diffusers reads it, into a directory that exists.

    Args:
      model: its parameters.
      directory: whose files are replaced one by one.
      tokenizer: a directory with the files of its tokenizer.
      half: in float16; what is beyond its range stays float32.

    Raises:
      UserError: there is no room, or no permission.
    """
    configs = model.configs
    classes = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    for part, file in CONFIGS.items():
        (directory / part).mkdir(parents=True, exist_ok=True)
        described = {"_class_name": classes[part]} if part in classes else {}
        files.write_text(directory / file, files.to_json(described | configs[part], indent=2))
    for part, params in model.params.items():
        arrays = {
            torch_name(part, path): np.ascontiguousarray(to_torch(np.asarray(x), path))
            for path, x in trees.flatten(params).items()
        }
        if half:
            arrays = {name: _halved(x) for name, x in arrays.items()}
        path = directory / part / WEIGHTS[part][0]
        files.write_safetensors(path, arrays, {"format": "pt"})
    (directory / "tokenizer").mkdir(exist_ok=True)
    for file in TOKENIZER:
        if (tokenizer / file).is_file():
            with files.atomic(directory / "tokenizer" / file) as temporary:
                shutil.copyfile(tokenizer / file, temporary)
    # Last, so that a directory with it is a whole one.
    files.write_text(directory / "model_index.json", files.to_json(INDEX, indent=2))


def _halved(array: np.ndarray) -> np.ndarray:
    fits = np.abs(array).max(initial=0) <= np.finfo(np.float16).max
    return array.astype(np.float16) if fits else array
