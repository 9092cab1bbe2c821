"""The kinds of checkpoints: what is read and written of each, and its part of the command line.

A new kind is a module with its table, a row of `KINDS`, and a test. The module of a kind has

    read(path, **options) -> model, matches          official file -> native model
    write(model, path) -> matches                    the inverse, where the row has `writes`
    MODEL                                            class of the model, where the row has `writes`
    read_companion(path) -> (model, matches) | None  where other rows name it as a companion

A row whose models are no native files gives its own `convert` instead.
"""

import contextlib
import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from convert.rules import Match
from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.weights import native
from nada_jax.weights.native import NativeModel


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of the command line, for one kind alone.

    Attributes:
      name: without the dashes, and as a keyword of the kind's functions.
      help: what it is for.
      metavar: how the help calls its value.
      choices: all values that it may have; any if empty.
      type: what makes the value of a string.
    """

    name: str
    help: str
    metavar: str
    type: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of checkpoints.

    Attributes:
      name: on the command line, and of the module with its table, convert.NAME.
      native: `KIND` of its models; "" where they are no native files.
      reads: endings of official files.
      writes: endings of official files that are written from native ones.
      options: its own options of the command line.
      companions: names of kinds whose models the same official file may hold.
      examples: lines of the help: arguments, and what they do.
      convert: converts a source to a destination; see `convert`.
    """

    name: str
    native: str
    reads: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    writes: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    companions: tuple[str, ...] = ()
    convert: Callable[..., list[Match]] | None = None

    def load(self) -> ModuleType:
        """Imports the module with the table, late, because the help needs none of their libraries."""
        return importlib.import_module(f"convert.{self.name}")


def read(native_kind: str, path: Path, **options: Any) -> tuple[NativeModel, list[Match]]:
    """Reads an official file into a native model.

    Args:
      native_kind: `KIND` of the model.
      path: the file.
      **options: of the kind; see `KINDS`.

    Returns:
      The model, and each key's way.

    Raises:
      UserError: there are no official files of this kind, or the file does not fit.
    """
    kind = next((kind for kind in KINDS.values() if kind.native == native_kind), None)
    if kind is None:
        raise UserError(
            f"{path} is no {native_kind}: expected a {native.SUFFIX} file; there are no official files "
            "of this kind"
        )
    if path.suffix.lower() not in kind.reads:
        raise UserError(
            f"{path} does not end in {_listed((native.SUFFIX, *kind.reads))}; expected a native or an "
            f"official {native_kind}"
        )
    # Before the block: a missing package is no damage of the file.
    module = kind.load()
    with reading(path):
        return module.read(path, **options)


def convert(name: str, source: Path, destination: Path, **options: Any) -> list[Match]:
    """Converts a file or directory; the endings say in which direction.

    A file may hold models of other kinds, which are written beside the first: NAME.safetensors and
    NAME-generator.safetensors.

    Args:
      name: of the kind, a key of `KINDS`.
      source: what to read.
      destination: where to write.
      **options: of the kind; see `KINDS`.

    Returns:
      Each key's way.

    Raises:
      UserError: the endings name no direction, the source does not fit, or the destination cannot be
        written; then nothing is.
    """
    kind = KINDS[name]
    # Rows without native files have endings of their own, or directories.
    if kind.convert is not None:
        return kind.convert(kind, source, destination, **options)
    ends, becomes = source.suffix.lower(), destination.suffix.lower()
    if ends in kind.reads and becomes == native.SUFFIX:
        return _to_native(kind, source, destination, **options)
    if ends == native.SUFFIX and becomes in kind.writes:
        if options:
            raise UserError(f"--{min(options)} is for official files; {source} is a native one")
        return _to_official(kind, source, destination)
    back = f", or {native.SUFFIX} to {_listed(kind.writes)}" if kind.writes else ""
    raise UserError(
        f"cannot convert {source} to {destination}: expected an official file "
        f"({', '.join(kind.reads)}) to {native.SUFFIX}{back}"
    )


def _to_native(kind: Kind, source: Path, destination: Path, **options: Any) -> list[Match]:
    model, matches = read(kind.native, source, **options)
    models, matches = {destination: model}, list(matches)
    for companion in (KINDS[name] for name in kind.companions):
        module = companion.load()
        with reading(source):
            found = module.read_companion(source)
        if found:
            models[destination.with_stem(f"{destination.stem}-{companion.native}")] = found[0]
            matches += found[1]
    with contextlib.ExitStack() as stack:  # renames all of them or none
        for path, model in models.items():
            staged = stack.enter_context(files.atomic(path))
            native.save_model(model, staged, source=source.name)
    return matches


def _to_official(kind: Kind, source: Path, destination: Path) -> list[Match]:
    if not source.is_file():
        raise UserError(f"{source} is not a file; expected a native {kind.native}")
    module = kind.load()
    return module.write(native.read(module.MODEL, source), destination)


def _directory(kind: Kind, source: Path, destination: Path, **options: Any) -> list[Match]:
    """Converts to a directory, which only the module of the kind knows how to write."""
    return kind.load().convert(source, destination, **options)


def _listed(endings: tuple[str, ...]) -> str:
    *first, last = endings
    return f"{', '.join(first)} or {last}" if first else last


# In the order of the help.
ROWS = (
    Kind(
        name="stylegan2",
        native="generator",
        reads=(".pt", ".pth", ".pkl"),
        writes=(".pt", ".pth"),
        options=(
            Option(
                "clamp",
                "bound of the output of every layer, which a state dict does not say; 256 where NVIDIA's "
                "code trained in mixed precision, as by default",
                metavar="NUMBER",
                type=float,
            ),
        ),
        examples=(
            ("stylegan2-ffhq-config-f.pkl ffhq.safetensors", "NVIDIA -> native"),
            ("ffhq.pt ffhq.safetensors", "rosinality, StyleGAN-NADA -> native"),
            ("sketch.safetensors sketch.pt", "native -> rosinality"),
        ),
    ),
    Kind(
        name="clip",
        native="",
        reads=(".pt", ".pth", ".bin", ".safetensors"),
        options=(
            Option(
                "activation",
                "quick_gelu (OpenAI's) or gelu, instead of what the configuration says",
                metavar="NAME",
                choices=("quick_gelu", "gelu"),
            ),
            Option(
                "config",
                "the configuration of a file by open_clip, of its model_configs or an open_clip_config.json; by "
                "default one beside the file",
                metavar="FILE",
                type=Path,
            ),
        ),
        convert=_directory,
        examples=(
            ("clip-vit-base-patch32 my-clip", "Hugging Face directory -> native directory"),
            ("ViT-B-32.pt my-clip", "OpenAI or open_clip -> native directory"),
        ),
    ),
    Kind(
        name="diffusion",
        native="",
        reads=(".safetensors", ".ckpt"),
        convert=_directory,
        examples=(
            ("v1-5-pruned-emaonly.safetensors sd15", "Stable Diffusion 1 -> diffusers' layout"),
            ("stable-diffusion-v1-4 sd14", "diffusers' directory with .bin files -> safetensors"),
        ),
    ),
    Kind(
        name="encoder",
        native="encoder",
        reads=(".pt", ".pth"),
        companions=("stylegan2",),
        examples=(
            (
                "e4e_ffhq_encode.pt e4e.safetensors",
                "and the generator in it -> e4e-generator.safetensors",
            ),
        ),
    ),
    Kind(
        name="irse50",
        native="irse50",
        reads=(".pt", ".pth"),
        examples=(("model_ir_se50.pth irse50.safetensors", "face identity"),),
    ),
    Kind(
        name="mapper",
        native="mapper",
        reads=(".pt", ".pth"),
        examples=(("afro.pt afro.safetensors", "StyleCLIP"),),
    ),
    Kind(
        name="vgg",
        native="vgg",
        reads=(".pt", ".pth", ".h5", ".ckpt"),
        options=(
            Option("lpips", "linear layers that make it LPIPS-VGG", metavar="FILE", type=Path),
            Option(
                "preprocessing",
                "of the images that it was trained on: torchvision or caffe; by default what the weights themselves "
                "say, which networks trained by others may not",
                metavar="NAME",
                choices=("torchvision", "caffe"),
            ),
        ),
        examples=(
            (
                "vgg19-dcbb9e9d.pth vgg19.safetensors",
                "torchvision; original weights by their numbers",
            ),
            ("vgg16-397923af.pth vgg16.safetensors --lpips vgg.pth", "torchvision and LPIPS"),
        ),
    ),
)
KINDS = {kind.name: kind for kind in ROWS}
