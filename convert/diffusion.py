"""Stable Diffusion 1 in a single file, and PyTorch directories in diffusers' layout -> directories of safetensors.

Arrays keep their type, and the names of diffusers' classes in PyTorch. That they are all that the networks need, in the
right shapes, is checked against the classes in Flax, which will read them.
"""

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert import diffusion_config, diffusion_tables, directories, openai_vocabulary, rules
from convert.rules import Match
from convert.unpickle import reader
from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.models import diffusion
from nada_jax.models.tokenizer import OPENAI_VOCABULARY
from nada_jax.weights import diffusers

# Part -> the name of its weights where they are pickled.
PICKLED = {
    "unet": Path("diffusion_pytorch_model.bin"),
    "vae": Path("diffusion_pytorch_model.bin"),
    "text_encoder": Path("pytorch_model.bin"),
}
# Of a directory, what is copied beside the configuration files.
TOKENIZER = (*diffusers.TOKENIZER, "added_tokens.json", "tokenizer.json")


class Official(NamedTuple):
    """A diffusion model out of files of PyTorch.

    Attributes:
      arrays: by part and PyTorch's name: unet/conv_in.weight.
      configs: part -> content of its configuration file.
      matches: each key's way.
    """

    arrays: dict[str, np.ndarray]
    configs: dict[str, dict[str, Any]]
    matches: list[Match]


def convert(source: Path, destination: Path) -> list[Match]:
    """Writes a directory that `nada_jax.load_diffusion` and diffusers read.

    Args:
      source: a Stable Diffusion 1 as .safetensors or .ckpt, or a directory in diffusers' layout.
      destination: a new or empty directory.

    Returns:
      Each key's way.

    Raises:
      UserError: the source does not fit, or the destination holds something already; then nothing is
        written.
    """
    directories.check_new(destination)
    if not source.exists():
        raise UserError(f"{source} does not exist")
    found = (read_directory if source.is_dir() else read_file)(source)
    with directories.staged(destination) as staged:
        _write(found, staged)
        if source.is_dir():
            for name in TOKENIZER:
                if (source / "tokenizer" / name).is_file():
                    shutil.copyfile(source / "tokenizer" / name, staged / "tokenizer" / name)
        else:
            openai_vocabulary.write(staged / "tokenizer")
    return found.matches


def read_file(path: Path) -> Official:
    """Reads a single file with the names of its authors' code; averages over the training, where it has them.

    Args:
      path: .safetensors, .ckpt or another checkpoint of PyTorch.

    Returns:
      The model.

    Raises:
      UserError: the file is damaged or another model, or arrays do not fit; all that do not are named.
    """
    with reading(path):
        official = _averaged(_read_arrays(path))
        configs = diffusion_config.from_arrays(official, str(path))
        if (tokens := configs["text_encoder"]["vocab_size"]) != OPENAI_VOCABULARY:
            raise UserError(
                f"{path} has no tokenizer, and its text encoder knows {tokens} tokens; expected the "
                f"{OPENAI_VOCABULARY} of OpenAI's vocabulary"
            )
        text = diffusion_config.text_start(official)
        table = diffusion_tables.single_file(configs["unet"], configs["vae"], text)
    return _fitted(table, official, configs, path)


def read_directory(path: Path) -> Official:
    """Reads a directory in diffusers' layout with weights of any version of diffusers.

    Args:
      path: with the folders unet, vae, text_encoder, tokenizer and scheduler.

    Returns:
      The model.

    Raises:
      UserError: a file is missing or damaged, or arrays do not fit; all that do not are named.
    """
    configs, official = {}, {}
    for part, file in diffusers.CONFIGS.items():
        if not (path / file).is_file():
            raise UserError(
                f"{path} has no {file}; expected a directory in diffusers' layout, or a single file"
            )
        configs[part] = files.read_json(path / file)
    for part in diffusers.WEIGHTS:
        for file in _weights(path, part):
            with reading(file):
                for key, array in _read_arrays(file).items():
                    if official.setdefault(f"{part}/{key}", array) is not array:
                        raise UserError(f"{file} has {key}, which another file of {part} has, too")
    found = _fitted(diffusion_tables.DIRECTORY, official, configs, path)
    tokens = json.loads(diffusion.canonical(configs))["text_encoder"]["vocab_size"]
    with reading(path):  # without one that fits, nobody could load what is written
        diffusers.read_tokenizer(path / "tokenizer", tokens)
    return found


def _weights(directory: Path, part: str) -> list[Path]:
    """The files of a part's weights, of the first kind that is there: whole, or in pieces that an index names."""
    whole, pickled = Path(diffusers.WEIGHTS[part][0]), PICKLED[part]
    kinds = [
        (f"{name.stem}{variant}{name.suffix}", f"{name.name}.index{variant}.json")
        for name in (whole, pickled)
        for variant in ("", ".fp16")
    ]
    for name, index in kinds:
        if (directory / part / name).is_file():
            return [directory / part / name]
        if (directory / part / index).is_file():
            return _pieces(directory / part / index)
    raise UserError(f"{directory} has neither {part}/{whole} nor {part}/{pickled}")


def _pieces(index: Path) -> list[Path]:
    """The files that an index names, all of them beside it."""
    placed = files.read_json(index).get("weight_map")
    named = list(placed.values()) if isinstance(placed, dict) else []
    # Of at most as many letters as file systems take.
    if not named or not all(
        isinstance(x, str) and x == Path(x).name and len(x) < 256 for x in named
    ):
        raise UserError(f"{index} has no weight_map from names of arrays to files beside it")
    pieces = [index.parent / name for name in sorted(set(named))]
    if missing := [piece.name for piece in pieces if not piece.is_file()]:
        raise UserError(f"{index} names {missing[0]}, which is missing; download it again")
    return pieces


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    safe = path.suffix.lower() == ".safetensors"
    content = files.read_safetensors(path)[0] if safe else reader.read(path)
    return reader.state_dict(content.get("state_dict", content), path, "diffusion model")


def _averaged(official: rules.Arrays) -> dict[str, np.ndarray]:
    """Puts averages over the training of the UNet in its place, where a file has all of them."""
    averages = {
        # model.diffusion_model.out.2.bias -> model_ema.diffusion_modelout2bias
        key: f"{diffusion_tables.EMA}.{key.partition('.')[2].replace('.', '')}"
        for key in official
        if key.startswith(f"{diffusion_tables.UNET}.")
    }
    if not official.keys() >= set(averages.values()):
        return dict(official)
    return dict(official) | {key: official[average] for key, average in averages.items()}


def _fitted(
    table: list[rules.Rule],
    official: rules.Arrays,
    configs: Mapping[str, Mapping[str, Any]],
    path: Path,
) -> Official:
    """Applies a table; what comes out has to be what the configurations describe."""
    with reading(path):
        config = diffusion.canonical(configs)
    expected = expected_shapes(config)
    arrays, matches = rules.apply(table, official, what=str(path), expected=lambda _: expected)
    return Official(arrays, dict(configs), matches)


@functools.cache  # of networks that are traced
def expected_shapes(config: str) -> dict[str, tuple[int, ...]]:
    """Shapes of PyTorch by part and name, of a canonical configuration; see `models.diffusion`."""
    return {
        # An array of any shape, without the memory, takes the way that others take.
        f"{part}/{diffusers.torch_name(part, flax)}": diffusers.to_torch(
            np.broadcast_to(np.float32(0), shape), flax
        ).shape
        for part, shapes in diffusion.param_shapes(config).items()
        for flax, shape in shapes.items()
    }


def _write(found: Official, directory: Path) -> None:
    for part, file in diffusers.CONFIGS.items():
        (directory / part).mkdir()
        files.write_text(directory / file, files.to_json(found.configs[part], indent=2))
    for part, (name, *_) in diffusers.WEIGHTS.items():
        own = f"{part}/"
        arrays = {
            key.removeprefix(own): x for key, x in found.arrays.items() if key.startswith(own)
        }
        files.write_safetensors(directory / part / name, arrays, {"format": "pt"})
    (directory / "tokenizer").mkdir()
    scheduler = found.configs["scheduler"].get("_class_name", diffusers.INDEX["scheduler"][1])
    index = diffusers.INDEX | {"scheduler": ["diffusers", scheduler]}
    files.write_text(directory / "model_index.json", files.to_json(index, indent=2))
