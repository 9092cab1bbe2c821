"""Scenes: what each tile of a moving image shows at each of its stops; between stops, all of it changes evenly.

A stop is a generator and latents. A walk changes the latents alone, the way through domains the weights alone, and both
may change at once, as between two images that have generators of their own. See `drawing.frames`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax
import jax
import numpy as np

from nada_jax.errors import UserError
from nada_jax.latents import directions
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction
from nada_jax.models.blending import restyle, transfer
from nada_jax.models.stylegan2 import Generator

SOURCE = "source"  # the label of the generator that was not adapted


@flax.struct.dataclass
class Normal:
    """Latents before the mapping, between which the way is spherical: z [b, z_dim], as `latents` draws them."""

    z: jax.Array


class Stop(NamedTuple):
    """What a tile shows at one time: latents of b = 1, and what draws them."""

    generator: Generator
    codes: Codes | Normal


@dataclasses.dataclass(frozen=True)
class Scene:
    """A moving image before its frames.

    Attributes:
      tiles: the stops of each tile, as many for all; with a loop, the way leads back from the last to the first.
      labels: below each tile; "" for none.
      captions: of each stop, below all tiles; or none.
      mapping: the generator that maps `Normal` latents, whichever draws them: the identity of all tiles is one.
      truncation: of these latents.
    """

    tiles: Sequence[Sequence[Stop]]
    labels: Sequence[str]
    captions: Sequence[str] = ()
    mapping: Generator | None = None
    truncation: float = 1.0

    @property
    def size(self) -> int:
        """Side of the images of all tiles in pixels."""
        return self.tiles[0][0].generator.size

    def legs(self, loop: bool) -> int:
        """Ways between stops."""
        return len(self.tiles[0]) - (not loop)


class Identity(NamedTuple):
    """Who is shown: latents of b = 1, and the generator that was tuned for this image alone, or None."""

    codes: Codes
    tuned: Generator | None = None


@jax.jit
def _normal(seed: jax.Array, like: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), like.shape)


@jax.jit
def _map(generator: Generator, z: jax.Array, truncation: jax.Array) -> jax.Array:
    return generator.broadcast(generator.truncate(generator.map(z), truncation))


def identity(generator: Generator, seed: int, truncation: float) -> Identity:
    """Who a seed is: the image that `configs/sample.py` draws of it."""
    return Identity(Codes(ws=_map(generator, normal(generator, seed).z, truncation)))


def normal(generator: Generator, seed: int) -> Normal:
    """The latent of a seed before the mapping."""
    return Normal(_normal(np.uint32(seed), np.empty((1, generator.architecture.z_dim), np.float32)))


def walk(source: Generator, identities: Sequence[Identity]) -> Scene:
    """From image to image, evenly in W, in W+, or in StyleSpace where the latents of one are there.

    Args:
      source: draws those that have no generator of their own.
      identities: at least two.
    """
    _refuse_single(identities, "identities")
    return Scene([_alike([Stop(who.tuned or source, who.codes) for who in identities])], [""])


def spherical_walk(source: Generator, seeds: Sequence[int], truncation: float) -> Scene:
    """From seed to seed on the sphere on which normal latents lie."""
    _refuse_single(seeds, "seeds")
    stops = [Stop(source, normal(source, seed)) for seed in seeds]
    return Scene([stops], [""], mapping=source, truncation=truncation)


def through_domains(
    source: Generator, domains: Mapping[str, Generator], identities: Sequence[Identity]
) -> Scene:
    """The weights from the source through adapted generators; each identity is a tile.

    Args:
      source: what all were adapted from.
      domains: name -> adapted generator, at least one.
      identities: at least one.
    """
    _refuse_none(domains)
    names = [SOURCE, *domains]
    tiles = [
        [_in_domain(source, adapted, who, who.codes) for adapted in (source, *domains.values())]
        for who in identities
    ]
    return Scene(tiles, [""] * len(tiles), [_words(name) for name in names])


def side_by_side(scene: Scene, source: Generator, domains: Mapping[str, Generator]) -> Scene:
    """A walk of the source, drawn by several generators at once, a tile each.

    Args:
      scene: of `walk` or `spherical_walk`.
      source: its generator.
      domains: name -> generator; the source itself may be one of them.
    """
    _refuse_none(domains)
    (stops,) = scene.tiles

    def tile(adapted: Generator) -> list[Stop]:
        found = []
        for generator, codes in stops:
            who = Identity(codes, None if generator is source else generator)
            found.append(_in_domain(source, adapted, who, codes))
        return found

    tiles = [tile(adapted) for adapted in domains.values()]
    return dataclasses.replace(scene, tiles=tiles, labels=[_words(name) for name in domains])


def along(
    source: Generator,
    direction: Direction,
    strengths: Sequence[float],
    identities: Sequence[Identity],
    domains: Mapping[str, Generator] | None = None,
) -> Scene:
    """An edit that grows and shrinks: along a direction, through several strengths.

    Args:
      source: whose latents the direction moves.
      direction: of any space.
      strengths: at each stop, at least two.
      identities: a tile each; with `domains`, one.
      domains: name -> generator that draws the edit; by default the source alone.
    """
    _refuse_single(strengths, "strengths")
    if domains and len(identities) > 1:
        raise UserError(
            f"an edit in {len(domains)} domains shows one identity, and there are {len(identities)}; expected one of them"
        )
    drawn_by = domains or {"": source}
    tiles, labels = [], []
    for who in identities:
        own = who.tuned or source
        edits = [directions.move(who.codes, own, [direction], [x]) for x in strengths]
        for name, adapted in drawn_by.items():
            drawer, _ = _in_domain(source, adapted, who, who.codes)
            tiles.append(
                [
                    Stop(
                        drawer,
                        edit if drawer is own else directions.carry(edit, who.codes, own, drawer),
                    )
                    for edit in edits
                ]
            )
            labels.append(_words(name))
    return Scene(tiles, labels, [f"{x:+g}" if x else "0" for x in strengths])


def _in_domain(source: Generator, adapted: Generator, who: Identity, codes: Codes | Normal) -> Stop:
    """An identity in a domain, as `configs/stylize.py` draws it."""
    own = source if who.tuned is None else who.tuned
    if adapted is source:
        generator = own
    elif own is source:
        generator = adapted
    else:
        generator = transfer(adapted, source, own)
    if isinstance(codes, Codes) and codes.styles is not None and generator is not own:
        codes = codes.replace(styles=restyle(codes.styles, own, generator))
    return Stop(generator, codes)


def _alike(stops: Sequence[Stop]) -> list[Stop]:
    """Stops between whose latents there is a way: in one space, and with noise buffers all or none."""
    if any(stop.codes.styles is not None for stop in stops):
        stops = [
            Stop(x.generator, x.codes.replace(ws=None, styles=x.codes.all_styles(x.generator)))
            for x in stops
        ]
    if any(stop.codes.noise for stop in stops):
        stops = [
            Stop(
                x.generator,
                x.codes.replace(
                    noise={name: buffer[None] for name, buffer in x.generator.noise.items()}
                    | dict(x.codes.noise)
                ),
            )
            for x in stops
        ]
    return list(stops)


def _words(name: str) -> str:
    """A name of a file as people read it."""
    return name.replace("_", " ")


def _refuse_single(stops: Sequence, what: str) -> None:
    if len(stops) < 2:
        raise UserError(
            f"there are {len(stops)} {what}; expected at least two, from one to the next"
        )


def _refuse_none(domains: Mapping[str, Generator]) -> None:
    if not domains:
        raise UserError(
            "generators is empty; expected adapted generators, such as ('preset:sketch',)"
        )
