"""Latents in files: what an image was found or edited to be, for every task to read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import flax
import jax
import numpy as np

from nada_jax import files
from nada_jax.errors import UserError, reading
from nada_jax.models.stylegan2 import Generator
from nada_jax.models.stylegan2_networks import Styles

ENDINGS = (".npz", ".npy")  # of files with latents
NOISE = "noise_"  # before the name of a convolution: the buffer that an inversion has found for it
# Names under which others keep W and W+: NVIDIA's projector, StyleCLIP and the encoders' own scripts.
ELSEWHERE = ("w", "latents", "latent", "projected_w")


@flax.struct.dataclass
class Codes:
    """Latents of b images, in W+ or in StyleSpace.

    Attributes:
      ws: [b, l, w_dim], or None where `styles` are given.
      styles: of each layer [b, i], or None.
      noise: buffers of these images [b, side, side] by convolution; empty for the generator's own.
    """

    ws: jax.Array | None = None
    styles: Styles | None = None
    noise: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ws if self.styles is None else self.styles["conv_0"])

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """Some of the images."""
        return jax.tree.map(lambda x: x[rows], self)

    def all_styles(self, generator: Generator) -> Styles:
        """The styles of all layers [b, i]."""
        return generator.styles(self.ws) if self.styles is None else self.styles

    def draw(self, generator: Generator) -> jax.Array:
        """Images [b, size, size, 3] of any generator with these layers: the source, a tuned or an adapted one."""
        return generator.synthesize_styles(self.all_styles(generator), self.noise or "const")


def write(path: str | os.PathLike, codes: Codes) -> None:
    """Writes the latents of one image atomically as `.npz`.

    Args:
      path: the file.
      codes: of b = 1. `ws` [l, w_dim] is written, or `styles`, the styles of all layers in one vector,
        in the order of `Generator.styles`; and noise buffers [side, side], where there are any.
    """
    one = jax.device_get(jax.tree.map(lambda x: x[0], codes))
    arrays = {NOISE + name: x for name, x in one.noise.items()}
    if one.styles is None:
        arrays["ws"] = one.ws
    else:
        arrays["styles"] = np.concatenate(
            [one.styles[name] for name in sorted(one.styles, key=_place)]
        )
    with files.atomic(path) as temporary:
        np.savez(temporary, **{name: np.asarray(x, np.float32) for name, x in arrays.items()})


def read(path: str | os.PathLike, generator: Generator, field: str) -> Codes:
    """Reads latents.

    Args:
      path: a `.npz` or `.npy` file: of `write`; or with W or W+, of any number of images, under the names of
        other programs.
      generator: which shall draw them; its sizes are held against the file.
      field: how messages call the file.

    Returns:
      The latents, float32.

    Raises:
      UserError: it cannot be read, holds no latents, or those of another generator.
    """
    said = f"{field}={files.spelled(path, field)!r}"
    files.check_local(path, said)
    path = files.expand(path)
    if not path.is_file():
        raise UserError(f"{said} is no file; expected .npz with latents")
    with reading(path):
        loaded = np.load(path, allow_pickle=False)
        arrays = {"ws": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        if wrong := [k for k, x in arrays.items() if x.dtype.kind not in "fiu"]:
            raise UserError(f"{wrong[0]} does not consist of numbers")
        arrays = {name: np.asarray(x, np.float32) for name, x in arrays.items()}
        if wrong := [name for name, x in arrays.items() if not np.isfinite(x).all()]:
            raise UserError(f"{wrong[0]} is not finite")
        return _parse(arrays, generator)


def _parse(arrays: Mapping[str, np.ndarray], generator: Generator) -> Codes:
    """Arrays of a file -> latents of this generator."""
    name = next((name for name in ("ws", "styles", *ELSEWHERE) if name in arrays), None)
    if name is None:
        raise UserError(f"it has {', '.join(arrays) or 'nothing'}; expected an array ws or styles")
    x = arrays[name]
    if not x.size:
        raise UserError(f"{name} has the shape {x.shape}, which holds no latents")
    sizes = generator.architecture.noise_sizes()
    noise = {k: arrays[NOISE + k][None] for k in sizes if NOISE + k in arrays}
    for layer, map_ in noise.items():
        if map_.shape != (1, sizes[layer], sizes[layer]):
            raise UserError(
                f"{NOISE}{layer} has the shape {map_.shape[1:]}; expected {sizes[layer]} pixels"
            )
    if name == "styles":
        widths = style_widths(generator)
        if x.shape != (sum(widths.values()),):
            raise UserError(
                f"styles has the shape {x.shape}; the generator expects ({sum(widths.values())},)"
            )
        parts = np.split(x[None], np.cumsum(list(widths.values()))[:-1], axis=1)
        return Codes(styles=dict(zip(widths, parts, strict=True)), noise=noise)
    layers, w_dim = generator.num_layers, generator.architecture.w_dim
    x = x.reshape(-1, *x.shape[-2:]) if x.ndim > 2 else x[None]  # [1, n, l, w_dim] is e4e's
    if x.ndim != 3 or x.shape[-1] != w_dim or x.shape[1] not in (1, layers):
        raise UserError(
            f"{name} has the shape {arrays[name].shape}; the generator expects [{layers}, {w_dim}]"
        )
    if noise and len(x) > 1:
        raise UserError(
            f"{NOISE}{next(iter(noise))} is of one image, and {name} has {len(x)}; expected one image in a file"
        )
    return Codes(ws=np.broadcast_to(x, (len(x), layers, w_dim)), noise=noise)


def style_widths(generator: Generator) -> dict[str, int]:
    """Length of the style of each layer, in the order in which files have them."""
    ws = jax.ShapeDtypeStruct((1, generator.num_layers, generator.architecture.w_dim), np.float32)
    shapes = jax.eval_shape(generator.styles, ws)
    return {name: shapes[name].shape[1] for name in sorted(shapes, key=_place)}


def _place(name: str) -> tuple[str, int]:
    """Convolutions before layers to RGB, each by number: jit sorts dictionaries by letters."""
    kind, _, number = name.rpartition("_")
    return kind, int(number)


def stems(path: Path, count: int) -> list[str]:
    """Names of the images in a file of latents: that of the file, numbered where it has several."""
    return [path.stem] if count == 1 else [f"{path.stem}_{i}" for i in range(count)]
