"""What the CLIPs see of images: random windows, rotated and shifted, the same for an image and its twin.

A generator can please a CLIP by specks that no eye notices; they have to survive every view. Liu et al. 2021,
"FuseDream" (arXiv 2112.01573), show it for such guidance.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import flax
import jax
import jax.numpy as jnp

from nada_jax.models import convolution
from nada_jax.models.clip import Clip
from nada_jax.settings import NonNegative, Rule, Section, one_of

BACKGROUNDS = ("edge", "random")
ONE_CALL = 4  # images up to which CLIPs leave an accelerator idle; measured with 2
NAMES = Rule(lambda models: models and all(models), "at least one name")
ZOOM = Rule(lambda x: 1 <= x < float("inf"), "a number from 1")


class ClipSettings(Section, name="clip"):
    """Which CLIPs guide, and what they see; `config.clip`."""

    models: Annotated[tuple[str, ...], NAMES]
    weights: tuple[float, ...]
    antialias: bool
    zoom: Annotated[float, ZOOM]
    rotate: NonNegative
    shift: NonNegative
    background: Annotated[str, one_of(BACKGROUNDS)]

    def check(self) -> None:
        """One weight for each model."""
        good = len(self.weights) == len(self.models) and sum(self.weights) > 0
        good = good and all(0 <= weight < float("inf") for weight in self.weights)
        expected = f"one number from 0 for each of the {len(self.models)} clip.models"
        self.need(good, "weights", expected)

    @property
    def moves(self) -> bool:
        """Whether views differ from the whole image."""
        return self.zoom > 1 or self.rotate > 0 or self.shift > 0


@flax.struct.dataclass
class Views:
    """One view of each of b images.

    Attributes:
      scale: magnification, [b].
      angle: rotation in radians, [b].
      centre: centre of the window, row and column as shares of the sides, [b, 2].
      color: background beyond the image, in -1..1, [b, 3]; None repeats its edge.
    """

    scale: jax.Array
    angle: jax.Array
    centre: jax.Array
    color: jax.Array | None


def draw(key: jax.Array, b: int, clip: ClipSettings) -> Views:
    """Draws views of b images, all parameters uniformly.

    Args:
      key: of the random numbers.
      b: number of views.
      clip: `zoom` bounds the scales, 1..zoom, of a window anywhere within the image; `rotate` is the maximum
        rotation in degrees, to either side; `shift` the maximum shift after that as a share of the side, in each
        direction; `background` "random" draws a colour for each view.
    """
    zoom, rotate, shift = clip.zoom, clip.rotate, clip.shift
    keys = jax.random.split(key, 5)
    scale = jax.random.uniform(keys[0], (b,), minval=1.0, maxval=zoom)
    spread = jnp.deg2rad(rotate) * jnp.array([-1, 1])
    angle = jax.random.uniform(keys[1], (b,), minval=spread[0], maxval=spread[1])
    # How far the centre of a window of this size may lie from that of the image.
    room = (1 - 1 / scale[:, None]) / 2
    centre = 0.5 + room * jax.random.uniform(keys[2], (b, 2), minval=-1.0, maxval=1.0)
    centre += shift * jax.random.uniform(keys[3], (b, 2), minval=-1.0, maxval=1.0)
    color = None
    if clip.background == "random":
        color = jax.random.uniform(keys[4], (b, 3), minval=-1.0, maxval=1.0)
    return Views(scale, angle, centre, color)


def show(images: jax.Array, views: Views) -> jax.Array:
    """Views of images [b, h, w, c], of the same shape, by linear interpolation."""
    h, w = images.shape[1:3]
    rows = (jnp.arange(h) + 0.5 - h / 2)[:, None]
    columns = (jnp.arange(w) + 0.5 - w / 2)[None]
    mode = "nearest" if views.color is None else "constant"

    def one(image, view):
        sin, cos = jnp.sin(view.angle) / view.scale, jnp.cos(view.angle) / view.scale
        places = [
            view.centre[0] * h + cos * rows - sin * columns - 0.5,
            view.centre[1] * w + sin * rows + cos * columns - 0.5,
        ]
        sample = lambda x: jax.scipy.ndimage.map_coordinates(x, places, 1, mode)  # noqa: E731
        # map_coordinates fills with 0 beyond the image: colours are measured from the background.
        background = 0 if view.color is None else view.color
        return jax.vmap(sample, -1, -1)(image - background) + background

    return jax.vmap(one)(images, views)


def crops(images: jax.Array, centers: jax.Array, size: int) -> jax.Array:
    """Cuts one square out of each image.

    Args:
      images: [b, h, w, c].
      centers: int [b, 2], (row, column) of the pixel right and below of the middle.
      size: side of the square, at most h and w.

    Returns:
      [b, size, size, c].
    """

    def crop(image, center):
        row, column = center - size // 2
        return jax.lax.dynamic_slice(image, (row, column, 0), (size, size, image.shape[2]))

    return jax.vmap(crop)(images, centers)


def crop_centers(key: jax.Array, b: int, h: int, w: int, size: int) -> jax.Array:
    """Draws b centres, int [b, 2], whose square of side `size` lies within h x w pixels."""
    room = jnp.array([h - size + 1, w - size + 1])
    return jax.random.randint(key, (b, 2), 0, room) + size // 2


def same_crops(key: jax.Array, images: Sequence[jax.Array], fraction: float) -> list[jax.Array]:
    """Cuts squares out of batches of images, at the same random places in each.

    Args:
      images: batches [b, h, w, c] of equal shape.
      fraction: side of a square as a share of the shorter side of the images, in (0, 1].

    Returns:
      For each batch [b, size, size, c].
    """
    # Of a tiny generator a small fraction would round to no pixel.
    size = max(1, round(fraction * min(images[0].shape[1:3])))
    centers = crop_centers(key, *images[0].shape[:3], size)
    return [crops(batch, centers, size) for batch in images]


def embedder(clip: Clip, antialias: bool, low_memory: bool) -> Callable[[jax.Array], jax.Array]:
    """Images [b, h, w, 3] -> unit features [b, d] as the step computes them; see `recomputed`."""
    return recomputed(functools.partial(clip.embed_images, antialias=antialias), low_memory)


def embed_pair(
    embed: Callable[[jax.Array], jax.Array], images: Sequence[jax.Array], low_memory: bool
) -> Sequence[jax.Array]:
    """Source and adapted images, each [b, h, w, 3] -> the features of both, each [b, d].

    Accelerators embed a few of both in one call: CLIPs leave them idle then, and one call compiles faster than two.
    """
    # Gradients are of the adapted images alone; in one call, activations of both are kept and gone back through.
    if convolution.on_cpu() or low_memory or len(images[0]) > ONE_CALL:
        return [embed(batch) for batch in images]
    # Alternating, so that several devices which share the batch keep their images.
    b, *shape = images[0].shape
    features = embed(jnp.stack(images, axis=1).reshape(2 * b, *shape))
    return jnp.unstack(features.reshape(b, 2, -1), axis=1)


def recomputed(network: Callable[..., Any], low_memory: bool) -> Callable[..., Any]:
    """The same network; with `low_memory` gradients keep nothing inside it and compute it again."""
    return jax.checkpoint(network) if low_memory else network
