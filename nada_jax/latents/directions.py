"""Directions: steps that change one thing in every image, in W, W+ or StyleSpace; they are added and scaled.

A direction is found once, from texts or from two sets of images, and moves any latent of its generator. Those of W and
W+ come from here, those of StyleSpace from `latents.statistics`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax import batches, images
from nada_jax.errors import UserError
from nada_jax.latents.codes import Codes, style_widths
from nada_jax.models.blending import restyle
from nada_jax.models.clip import Clip
from nada_jax.models.stylegan2 import Generator, draw_latents

# Of the penalty of a fit, in mean variances of a latent. Fits to half of 2,048 scores correlate with the other half by 0.38
# at 0.03 and by 0.43 at 1, where directions lean on few large variances; between them, images change least for one gain.
RIDGE = 0.3
SPACES = ("w", "w+", "style")


@dataclasses.dataclass(frozen=True)
class DirectionArchitecture:
    """The numbers that fix a direction's shapes.

    Attributes:
      space: "w", "w+", or "style", that of the convolutions.
      sizes: (w_dim,) in W, (latents, w_dim) in W+, the widths of the styles of conv_0, conv_1, ... in StyleSpace.
    """

    space: str
    sizes: tuple[int, ...]

    def __post_init__(self):
        lengths = {"w": 1, "w+": 2, "style": len(self.sizes)}
        if len(self.sizes) != lengths.get(self.space) or not self.sizes or min(self.sizes) < 1:
            raise UserError(
                f"not a direction: it would have the sizes {self.sizes} in the space {self.space!r}; expected one of "
                + ", ".join(SPACES)
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of the file."""
        if self.space == "style":
            return {f"conv_{i}": (width,) for i, width in enumerate(self.sizes)}
        return {self.space: self.sizes}

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Reads the architecture from the shapes of the arrays; UserError where they are no direction's."""
        for space in ("w", "w+"):
            if set(shapes) == {space}:
                return cls(space, tuple(shapes[space]))
        names = [f"conv_{i}" for i in range(len(shapes))]
        if not names or set(shapes) != set(names):
            raise UserError(f"not a direction: it has {', '.join(shapes) or 'nothing'}")
        return cls("style", tuple(int(shapes[name][0]) for name in names))

    @classmethod
    def of(cls, generator: Generator, space: str) -> Self:
        """That of all directions in a space of a generator."""
        w_dim = generator.architecture.w_dim
        sizes = {"w": (w_dim,), "w+": (generator.num_layers, w_dim)}
        convolutions = (
            width for name, width in style_widths(generator).items() if name.startswith("conv")
        )
        return cls(space, sizes.get(space) or tuple(convolutions))


@flax.struct.dataclass
class Direction:
    """A step in a space of latents; those of one space are added, and multiplied by numbers.

    Attributes:
      steps: {"w": [w_dim]}, {"w+": [l, w_dim]}, or [i] by convolution; float32.
      architecture: its space, and static sizes.
    """

    KIND: ClassVar[str] = "direction"
    ARCHITECTURE: ClassVar[type] = DirectionArchitecture

    steps: dict[str, jax.Array]
    architecture: DirectionArchitecture = flax.struct.field(pytree_node=False)

    def __add__(self, other: "Direction") -> "Direction":
        """Adds two directions of one space; UserError where they differ in it. `move` adds those of any spaces."""
        if self.architecture != other.architecture:
            raise UserError(f"directions of {self.architecture} and {other.architecture} differ")
        return self.replace(steps=jax.tree.map(jnp.add, self.steps, other.steps))

    def __mul__(self, strength: float | jax.Array) -> "Direction":
        """Scales the step; -1 is the opposite direction."""
        return self.replace(steps=jax.tree.map(lambda x: strength * x, self.steps))

    __rmul__ = __mul__

    def check(self, generator: Generator) -> None:
        """Makes sure that it belongs to the latents of a generator.

        Raises:
          UserError: it is for other sizes.
        """
        space = self.architecture.space
        expected = DirectionArchitecture.of(generator, space)
        if self.architecture != expected:
            raise UserError(
                f"the direction is for {space} of the sizes {self.architecture.sizes}, but the generator has "
                f"{expected.sizes}"
            )


def move(
    codes: Codes,
    generator: Generator,
    directions: Sequence[Direction],
    strengths: Sequence[float | jax.Array],
) -> Codes:
    """Moves latents along several directions at once.

    Args:
      codes: of b images.
      generator: of these latents. Where a direction is one of StyleSpace, the result holds styles of this generator;
        see `carry` for adapted ones.
      directions: of any spaces; their order does not matter.
      strengths: of each direction, for all images or for each [b].

    Returns:
      The moved latents: in W+ where the given ones and all directions are in W or W+, in StyleSpace otherwise.

    Raises:
      UserError: a direction belongs to another generator.
    """
    for direction, strength in zip(directions, strengths, strict=True):
        direction.check(generator)
        scale = jnp.reshape(jnp.asarray(strength, jnp.float32), (-1, 1))
        if direction.architecture.space != "style" and codes.styles is None:
            (step,) = direction.steps.values()
            codes = codes.replace(ws=codes.ws + scale[..., None] * step)
            continue
        steps = style_steps(direction, generator)
        styles = {
            name: style + scale * steps[name] if name in steps else style
            for name, style in codes.all_styles(generator).items()
        }
        codes = codes.replace(ws=None, styles=styles)
    return codes


def style_steps(direction: Direction, generator: Generator) -> dict[str, jax.Array]:
    """A direction of any space as one of StyleSpace, [i] by layer: styles are affine in latents."""
    if direction.architecture.space == "style":
        return direction.steps
    (step,) = direction.steps.values()
    step = jnp.broadcast_to(step, (generator.num_layers, generator.architecture.w_dim))
    moved, still = generator.styles(step[None]), generator.styles(jnp.zeros_like(step)[None])
    return {name: moved[name][0] - still[name][0] for name in moved}


def carry(edited: Codes, start: Codes, source: Generator, adapted: Generator) -> Codes:
    """An edit that one generator's styles express, for another one, which was adapted from it.

    Styles are what a generator makes of latents by layers that an adaptation may train. Drawn as they are, those of the
    source would undo that part of it: the adapted generator's own styles, moved by as much, do not.

    Args:
      edited: latents after the edit.
      start: the same before it.
      source: whose styles they hold, if any.
      adapted: shall draw the edit.

    Returns:
      What it shall draw: `edited`, where that is in W+. Where `start` is in StyleSpace, the adapted generator's own
      styles are unknown; see `restyle`.
    """
    if edited.styles is None:
        return edited
    if start.ws is None:
        return edited.replace(styles=restyle(edited.styles, source, adapted))
    before, own = source.styles(start.ws), adapted.styles(start.ws)
    return edited.replace(styles={k: own[k] + x - before[k] for k, x in edited.styles.items()})


def score(
    generator: Generator,
    clip: Clip,
    aims: jax.Array,
    *,
    seed: int,
    samples: int,
    batch_size: int,
    report: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws samples and scores them by a CLIP, for `fit`.

    Args:
      generator: draws.
      clip: sees the images.
      aims: unit directions in its space, [d] or [d, k].
      seed: of the latents.
      samples: n of them.
      batch_size: images at once.
      report: is called after each batch with the finished images and n.

    Returns:
      Latents [n, w_dim], and the cosines of their images' features with the aims, [n] or [n, k].

    Raises:
      UserError: a feature is not finite.
    """
    clip, key = clip.without_texts(), jax.random.key(seed)
    ws = np.asarray(draw_latents(generator, key, samples)[:, 0])
    function = functools.partial(_score, generator, clip, aims)
    scores = batches.apply(function, batch_size, ws, report=report)
    images.check_finite(scores, "the features of the images of generator.weights")
    return ws, scores


@jax.jit
def _score(generator: Generator, clip: Clip, aims: jax.Array, ws: jax.Array) -> jax.Array:
    """Latents [b, w_dim] -> the cosines of their images' features with directions, [b] or [b, k]."""
    return clip.embed_images(generator.synthesize(ws), antialias=True) @ aims


def fit(ws: np.ndarray, scores: np.ndarray) -> tuple[Direction, float]:
    """The direction of W along which a score rises: the gradient of its ridge regression on latents.

    Strength 1 is the shortest step that raises the fitted score by one standard deviation of the scores.

    Args:
      ws: latents [n, w_dim], as the generator draws them.
      scores: of their images, [n].

    Returns:
      The direction; and the correlation of scores with those that a fit to three quarters of the images gives the last
      quarter, 1 where the score is linear in W.

    Raises:
      UserError: all scores are alike.
    """
    ws, scores = np.asarray(ws, np.float64), np.asarray(scores, np.float64)
    if not scores.std() > 0:
        raise UserError("all images have one score; expected texts or images that tell them apart")
    x, y = ws - ws.mean(axis=0), (scores - scores.mean()) / scores.std()
    known = len(x) * 3 // 4
    correlation = np.corrcoef(x[known:] @ _gradient(x[:known], y[:known]), y[known:])[0, 1]
    gradient = _gradient(x, y)
    step = np.asarray(gradient / (gradient @ gradient), np.float32)
    return Direction({"w": step}, DirectionArchitecture("w", step.shape)), float(correlation)


def _gradient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients [w_dim] of the ridge regression of centred scores [n] on centred latents [n, w_dim]."""
    covariance = x.T @ x / len(x)
    ridge = RIDGE * np.trace(covariance) / len(covariance)
    return np.linalg.solve(covariance + ridge * np.eye(len(covariance)), x.T @ y / len(x))


def between(source: np.ndarray, target: np.ndarray) -> Direction:
    """The direction of W+ between two sets of images; strength 1 leads from the mean of one to that of the other.

    Args:
      source, target: latents of the images, [n, l, w_dim] and [m, l, w_dim].
    """
    step = np.mean(target, axis=0) - np.mean(source, axis=0)
    return Direction({"w+": step}, DirectionArchitecture("w+", step.shape))
