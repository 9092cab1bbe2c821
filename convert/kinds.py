"""What can be converted, and how each file becomes the other."""

import contextlib
import importlib
from pathlib import Path

from convert import clip, stylegan2
from convert.rules import Match
from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.models.stylegan2 import Generator
from nada_jax.weights import loading as weights
from nada_jax.weights.loading import NativeModel

# Native kind -> the module with its table, whose name is the KIND of the command line; `read` takes
# an official file. CLIPs are directories, and on their own.
MODULES = {
    "generator": "stylegan2",
    "encoder": "encoder",
    "irse50": "irse50",
    "mapper": "mapper",
    "vgg": "vgg",
}
KINDS = ("clip", *MODULES.values())


def read(kind: str, path: Path, **options: Path) -> tuple[NativeModel, list[Match]]:
    """Reads an official file into a native model.

    Args:
      kind: one of `MODULES`.
      path: the file.
      **options: `lpips`, for "vgg".

    Returns:
      The model, and where every key of the file went.

    Raises:
      UserError: the file does not fit.
    """
    module = importlib.import_module(f"convert.{MODULES[kind]}")
    with reading(path):
        return module.read(path, **options)


def convert(kind: str, source: Path, destination: Path, **options: str | Path) -> list[Match]:
    """Converts a file or directory; the endings say in which direction.

    The file of an encoder mostly holds a generator as well, which is written beside it:
    NAME.safetensors and NAME-generator.safetensors.

    Args:
      kind: one of `KINDS`.
      source: what to read.
      destination: where to write.
      **options: `activation`, for "clip"; `lpips`, for "vgg".

    Returns:
      Where every key of the source went.

    Raises:
      UserError: the endings name no direction, the source does not fit, or the destination cannot be
        written; then nothing is.
    """
    if kind == "clip":
        return clip.convert(source, destination, **options)
    ends = (source.suffix, destination.suffix)
    if ends[0] in weights.OFFICIAL and ends[1] == ".safetensors":
        native = next(name for name, module in MODULES.items() if module == kind)
        model, matches = read(native, source, **options)
        models = {destination: model}
        with reading(source):
            decoder = stylegan2.read_decoder(source) if kind == "encoder" else None
        if decoder:
            models[destination.with_stem(f"{destination.stem}-generator")] = decoder[0]
            matches = matches + decoder[1]
        with contextlib.ExitStack() as stack:  # all of them or none
            for path, model in models.items():
                staged = stack.enter_context(files.atomic(path))
                weights.save_model(model, staged, source=source.name)
        return matches
    if kind == "stylegan2" and ends in ((".safetensors", ".pt"), (".safetensors", ".pth")):
        generator = weights.load_model(Generator, source, field="SOURCE")
        return stylegan2.write_official(generator, destination)
    back = ", or .safetensors to .pt" if kind == "stylegan2" else ""
    known = ", ".join(weights.OFFICIAL)
    raise UserError(
        f"cannot convert {source} to {destination}: expected an official file ({known}) to "
        f".safetensors{back}"
    )
