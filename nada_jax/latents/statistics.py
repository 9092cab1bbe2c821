"""Global directions of StyleCLIP: what each channel of StyleSpace changes in an image, as a CLIP sees it.

Patashnik et al. 2021 (arXiv 2103.17249), section 6. Each channel is moved alone, and the mean change of the feature of
the image is kept. A direction in CLIP's space then moves every channel by as much as its change is in line with it. The
layers to RGB are left out, as in the official code.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax import batches, trees
from nada_jax.errors import UserError
from nada_jax.latents.directions import Direction, DirectionArchitecture
from nada_jax.models.clip import Clip, unit
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.models.stylegan2_networks import Styles
from nada_jax.settings import Count, Section, Seed
from nada_jax.weights import native, registry

MOVED = 5.0  # standard deviations by which a channel is moved, down and up; as in the official code
SPREAD = 4096  # latents behind the standard deviations, for which only styles are computed
VERSION = 1  # of these computations; cached files of an older one are passed over

Report = Callable[[int, int], None]  # of progress: (finished, all)


class StatisticsSettings(Section, name="statistics"):
    """Of what the statistics are; `config.statistics`."""

    samples: Count
    seed: Seed


@dataclasses.dataclass(frozen=True)
class StatisticsArchitecture:
    """The numbers that fix the shapes of statistics.

    Attributes:
      widths: of the styles of conv_0, conv_1, ...
      dim: length d of a feature of the CLIP.
    """

    widths: tuple[int, ...]
    dim: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of the file."""
        convs = {f"conv_{i}": width for i, width in enumerate(self.widths)}
        effects = {name: (width, self.dim) for name, width in convs.items()}
        return effects | {f"spreads.{name}": (width,) for name, width in convs.items()}


@flax.struct.dataclass
class Statistics:
    """What each channel of the styles of convolutions does to images.

    Attributes:
      effects: by convolution, unit mean changes of the image's feature, [i, d].
      spreads: by convolution, standard deviations over latents, [i].
      architecture: static sizes.
    """

    KIND: ClassVar[str] = "style statistics"
    ARCHITECTURE: ClassVar[type] = StatisticsArchitecture

    effects: Styles
    spreads: Styles
    architecture: StatisticsArchitecture = flax.struct.field(pytree_node=False)

    def toward(
        self, direction: jax.Array, beta: float, *, field: str = "beta"
    ) -> tuple[Direction, dict[str, float]]:
        """The global direction of a direction in CLIP's space, Patashnik et al. 2021, section 6.

        Strength 1 moves the most relevant channel by one of its standard deviations: it is the alpha of the paper.

        Args:
          direction: unit [d], from the feature of a neutral text to that of a target.
          beta: channels whose relevance, the cosine of their change with the direction, is smaller stay.
          field: how messages call beta.

        Returns:
          The direction, in StyleSpace; and `channels` that it moves, and their largest `relevance`.

        Raises:
          UserError: no channel is as relevant.
        """
        relevance = {name: effect @ direction for name, effect in self.effects.items()}
        largest = float(max(jnp.abs(x).max() for x in relevance.values()))
        if not largest >= beta or not largest:
            raise UserError(
                f"{field} is {beta:g}; expected at most {largest:.3g}, the relevance of the channel whose change is "
                "most in line with the texts"
            )
        kept = {name: jnp.where(jnp.abs(x) >= beta, x, 0) for name, x in relevance.items()}
        steps = {name: x / largest * self.spreads[name] for name, x in kept.items()}
        figures = {
            "channels": float(sum(jnp.count_nonzero(x) for x in kept.values())),
            "relevance": largest,
        }
        return Direction(steps, DirectionArchitecture("style", self.architecture.widths)), figures


def load(
    generator: Generator,
    clip: Clip,
    settings: StatisticsSettings,
    *,
    batch_size: int,
    report: Report | None = None,
) -> Statistics:
    """The statistics of a generator and a CLIP, from the user's cache; computed where they are not there.

    Args:
      generator, clip: as they were loaded. Their contents, and not their names, decide what is found.
      settings: of what they are.
      batch_size: images at once.
      report: is called after each batch.

    Returns:
      The statistics.
    """
    path = file(generator, clip, settings)
    if path.is_file():
        try:
            return native.read(Statistics, path)
        except UserError as error:
            print(f"{error}; the statistics are computed anew", flush=True)
    found = measure(generator, clip, settings, batch_size=batch_size, report=report)
    try:
        native.save_model(found, path, clip=clip.name, samples=str(settings.samples))
        # Before anything of theirs is refused, such as a beta: trying again costs nothing.
        print(f"the statistics are kept for further runs: {path}", flush=True)
    except (
        UserError
    ) as error:  # a cache that cannot be written costs the next run minutes, and not this one
        print(f"the statistics are not kept: {error}", flush=True)
    return found


def file(generator: Generator, clip: Clip, settings: StatisticsSettings) -> Path:
    """Where the statistics are kept, under a digest of everything that they follow from."""
    facts = dataclasses.asdict(settings) | {
        "version": VERSION,
        "generator": [dataclasses.asdict(generator.architecture), generator.precision],
        "clip": [clip.config, clip.mean, clip.std, clip.squash, clip.precision],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    image = {name: clip.params[name] for name in ("vision_model", "visual_projection")}
    for arrays in (native.model_to_arrays(generator), trees.flatten(image)):
        for name in sorted(arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(arrays[name]).data)
    return registry.cache() / "statistics" / f"{digest.hexdigest()[:32]}{native.SUFFIX}"


def measure(
    generator: Generator,
    clip: Clip,
    settings: StatisticsSettings,
    *,
    batch_size: int,
    report: Report | None = None,
) -> Statistics:
    """Computes the statistics; see `load`."""
    clip, key = clip.without_texts(), jax.random.key(settings.seed)
    many = draw_latents(generator, key, SPREAD)[:, 0]
    found = _spreads(generator, many)
    spreads = {f"conv_{i}": found[f"conv_{i}"] for i in range(len(found))}
    widths = [len(x) for x in spreads.values()]
    # Two rows for each channel: moved down, moved up.
    rows = np.arange(2 * sum(widths))
    change = np.zeros((sum(widths), clip.dim), np.float32)
    for i in range(settings.samples):
        one = generator.styles(many[i % SPREAD][None])
        function = functools.partial(_features, generator, clip, one, spreads)

        def progress(done: int, _: int, before: int = i * len(rows)) -> None:
            if report is not None:
                report(before + done, settings.samples * len(rows))

        down, up = (
            batches.apply(function, batch_size, rows, report=progress)
            .reshape(-1, 2, clip.dim)
            .swapaxes(0, 1)
        )
        # Of unit length for each image, as in the official code: no image counts more than another.
        change += np.asarray(unit(up - down))
    effects = np.split(np.asarray(unit(change)), np.cumsum(widths)[:-1])
    return Statistics(
        dict(zip(spreads, effects, strict=True)),
        spreads,
        StatisticsArchitecture(tuple(widths), clip.dim),
    )


@jax.jit
def _spreads(generator: Generator, ws: jax.Array) -> Styles:
    """Standard deviations of the styles of convolutions, [i] each."""
    styles = generator.styles(ws)
    return {
        f"conv_{i}": jnp.std(styles[f"conv_{i}"], axis=0) for i in range(generator.num_layers - 1)
    }


@jax.jit
def _features(
    generator: Generator, clip: Clip, styles: Styles, spreads: Styles, rows: jax.Array
) -> jax.Array:
    """Features [b, d] of one image, of which row 2c moves channel c down and row 2c + 1 up."""
    moved, first = dict(styles), 0
    sign = jnp.where(rows % 2 == 1, MOVED, -MOVED)
    for i in range(len(spreads)):  # by number: jit sorts names by letters
        name = f"conv_{i}"
        width = len(spreads[name])
        # A channel of another layer has no place in this one, and gives a row of zeros.
        step = jax.nn.one_hot(rows // 2 - first, width) * sign[:, None] * spreads[name]
        moved[name] = styles[name] + step
        first += width
    moved = {name: jnp.broadcast_to(x, (len(rows), x.shape[1])) for name, x in moved.items()}
    return clip.embed_images(generator.synthesize_styles(moved), antialias=True)
