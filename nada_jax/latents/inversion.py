"""Inversion: from given images to the latents from which a generator draws them, by a table of methods."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.errors import UserError
from nada_jax.latents.codes import Codes
from nada_jax.latents.descent import EVERY
from nada_jax.latents.projection import (
    Networks,
    Report,
    Target,
    differences,
    project,
    see,
    spread,
)
from nada_jax.latents.tuning import tune
from nada_jax.losses import identity
from nada_jax.models.encoder import refine
from nada_jax.models.stylegan2 import Generator
from nada_jax.settings import Count, NonNegative, Positive, Section, one_of

SMALLEST = 16  # pixels that LPIPS needs: it halves them four times


@dataclasses.dataclass(frozen=True)
class Inverted:
    """What images were found to be.

    Attributes:
      codes: latents of b images.
      drawn: what the generator draws from them, [b, size, size, 3].
      tuned: a generator for each image, where the method makes them.
      drawn_tuned: what these draw, or None.
      figures: by name [b]: `mse` on [-1, 1], and `lpips`, `identity` and `clip` (cosines) by the networks that
        are given, all of the best drawing; with tuned generators `pivot_mse` and `pivot_lpips` of `drawn`.
    """

    codes: Codes
    drawn: np.ndarray
    tuned: tuple[Generator, ...] | None
    drawn_tuned: np.ndarray | None
    figures: dict[str, np.ndarray]

    @property
    def best(self) -> np.ndarray:
        """The reconstructions [b, size, size, 3]: of the tuned generators, where there are any."""
        return self.drawn if self.drawn_tuned is None else self.drawn_tuned

    def measured(self, **figures: float) -> "Inverted":
        """The same with further figures, each of all images."""
        more = {name: np.full(len(self.drawn), x) for name, x in figures.items()}
        return dataclasses.replace(self, figures=self.figures | more)

    def one(self, i: int) -> "Inverted":
        """Image i alone, with b = 1."""
        rows = slice(i, i + 1)
        return Inverted(
            self.codes[rows],
            self.drawn[rows],
            self.tuned and self.tuned[rows],
            None if self.drawn_tuned is None else self.drawn_tuned[rows],
            {name: x[rows] for name, x in self.figures.items()},
        )


def _optimise(
    space: str,
    networks: Networks,
    target: Target,
    settings: "Invert",
    keys: jax.Array,
    every: int,
    report: Report | None,
    steps: int | None = None,
) -> Codes:
    """Latents by the projector."""
    return project(
        networks,
        target,
        START[settings.start](networks, target.images),
        space,
        steps=settings.steps if steps is None else steps,
        lr=settings.lr,
        w_noise=settings.w_noise,
        l2=settings.l2,
        noise=settings.noise,
        keys=keys,
        every=every,
        report=report,
    )


def _encoded(
    networks: Networks,
    target: Target,
    settings: "Invert",
    keys: jax.Array,
    every: int,
    report: Report | None,
) -> Codes:
    """Latents by an encoder."""
    return Codes(ws=encode(networks, target.images))


def _pivot(
    networks: Networks,
    target: Target,
    settings: "Invert",
    keys: jax.Array,
    every: int,
    report: Report | None,
) -> Codes:
    """Latents in W, around which the weights are tuned."""
    return _optimise("w", networks, target, settings, keys, every, report, settings.pivot_steps)


@jax.jit
def encode(networks: Networks, images: jax.Array) -> jax.Array:
    """Images [b, size, size, 3] -> ws [b, l, w_dim], by the encoder; ReStyle's draw their attempts."""
    if networks.encoder.iterative:
        draw = networks.generator.synthesize
        return refine(networks.encoder, images, draw, networks.refinements)
    return networks.encoder.encode(images)


def _mean(networks: Networks, images: jax.Array) -> jax.Array:
    layers = networks.generator.num_layers
    mean = spread(networks.generator)[0]
    return jnp.broadcast_to(mean, (len(images), layers, len(mean)))


# Where an optimisation starts -> (networks, images) -> ws [b, l, w_dim].
START = {"mean": _mean, "encoder": encode}


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to invert images.

    Attributes:
      find: (networks, target, settings, keys [b], every, report) -> latents; see `Descent.run` for the last two.
      steps: settings -> steps of the optimisation, at most.
      starts: whether it starts from `invert.start`, or needs the encoder in any case.
      tunes: whether it tunes weights around the latents that it has found.
    """

    find: Callable[..., Codes]
    steps: Callable[["Invert"], int]
    starts: bool = True
    tunes: bool = False


METHODS = {
    name: Method(functools.partial(_optimise, name), lambda settings: settings.steps)
    for name in ("w", "w+", "style")
} | {
    "encoder": Method(_encoded, lambda settings: 0, starts=False),
    "pti": Method(
        _pivot, lambda settings: settings.pivot_steps + settings.tuning_steps, tunes=True
    ),
}


class Invert(Section, name="invert"):
    """How images are inverted; `config.invert`."""

    method: Annotated[str, one_of(METHODS)]
    start: Annotated[str, one_of(START)]
    steps: Count
    lr: Positive
    w_noise: NonNegative
    noise: bool
    l2: NonNegative
    pivot_steps: Count
    tuning_steps: Count
    tuning_lr: Positive
    enough: NonNegative
    locality: NonNegative
    radius: NonNegative

    @property
    def total_steps(self) -> int:
        """Of one batch, for showing progress; tuning may end before."""
        return METHODS[self.method].steps(self)

    @property
    def needs_encoder(self) -> bool:
        """Whether the networks have to have one."""
        return not METHODS[self.method].starts or self.start == "encoder"

    def check_networks(self, networks: Networks) -> None:
        """Makes sure that the networks can do it, before anything is computed.

        Raises:
          UserError: one is missing, does not fit the generator, or cannot see its images.
        """
        generator, lpips = networks.generator, networks.lpips
        if lpips is not None and generator.size < SMALLEST:
            raise UserError(
                f"lpips.weights is given and generator.weights draws images of {generator.size} pixels; expected "
                f"{SMALLEST} at least for LPIPS, or lpips.weights='' and invert.l2 above 0"
            )
        if lpips is None and not self.l2 and METHODS[self.method].starts:
            raise UserError(
                "lpips.weights is '' and invert.l2 is 0, which leaves nothing to compare images by; expected one of them"
            )
        if not self.needs_encoder:
            return
        if networks.encoder is None:
            field = "start" if METHODS[self.method].starts else "method"
            raise UserError(
                f"encoder.weights is '' and invert.{field} is 'encoder'; expected the name or file of an encoder"
            )
        images = jax.ShapeDtypeStruct((1, generator.size, generator.size, 3), np.float32)
        given = networks.encoder.latent_avg.shape
        expected = generator.num_layers, generator.architecture.w_dim
        if given != expected:
            raise UserError(
                f"encoder.weights finds {given[0]} latents of {given[1]} numbers, and generator.weights takes "
                f"{expected[0]} of {expected[1]}; expected an encoder that was trained for this generator"
            )
        jax.eval_shape(encode, networks, images)


def invert(
    networks: Networks,
    images: jax.Array,
    settings: Invert,
    keys: jax.Array,
    report: Report | None = None,
    every: int = EVERY,
) -> Inverted:
    """Finds the latents of images.

    Rows are independent: an image is found to be the same in any company, up to rounding.

    Args:
      networks: see `Networks`; those that the settings need.
      images: [b, size, size, 3] in [-1, 1], aligned as the generator draws.
      settings: the method and its numbers.
      keys: PRNG keys [b].
      report: is called with steps done, loss and milliseconds of a step, as `Descent.run` does.
      every: steps between reports.

    Returns:
      Latents, reconstructions and figures.

    Raises:
      UserError: the networks do not fit the settings or each other.
    """
    settings.check_networks(networks)
    images = jnp.asarray(images)
    target = see(networks, images)
    codes = METHODS[settings.method].find(networks, target, settings, keys, every, report)
    drawn = _draw(networks.generator, codes)
    if not METHODS[settings.method].tunes:
        return Inverted(codes, np.asarray(drawn), None, None, _figures(networks, target, drawn))
    tuned = tune(
        networks,
        target,
        codes,
        steps=settings.tuning_steps,
        lr=settings.tuning_lr,
        enough=settings.enough,
        locality=settings.locality,
        radius=settings.radius,
        keys=keys,
        every=every,
        report=report,
    )
    redrawn = jnp.concatenate([_draw(g, codes[i : i + 1]) for i, g in enumerate(tuned)])
    before = jax.device_get(_compare(networks, target, drawn))
    figures = _figures(networks, target, redrawn)
    figures |= {f"pivot_{name}": before[name] for name in ("mse", "lpips") if name in before}
    return Inverted(codes, np.asarray(drawn), tuned, np.asarray(redrawn), figures)


@jax.jit
def _draw(generator: Generator, codes: Codes) -> jax.Array:
    return codes.draw(generator)


def _figures(networks: Networks, target: Target, drawn: jax.Array) -> dict[str, np.ndarray]:
    return jax.device_get(_compare(networks, target, drawn))


@jax.jit
def _compare(networks: Networks, target: Target, drawn: jax.Array) -> dict[str, jax.Array]:
    """The figures of `Inverted`."""
    found = differences(networks, target, drawn)
    if networks.identity is not None:
        faces = (networks.identity.embed_images(x) for x in (target.images, drawn))
        found["identity"] = 1 - identity.identity(*faces)
    if networks.judge is not None:
        # With antialiasing, as CLIPs were trained.
        seen = (networks.judge.embed_images(x, antialias=True) for x in (target.images, drawn))
        found["clip"] = 1 - identity.identity(*seen)
    return found
