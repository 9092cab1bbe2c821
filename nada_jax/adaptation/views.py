"""What the CLIPs see of pictures: random windows, turned and moved, the same of a picture and its twin.

A generator can please a CLIP by specks that no eye reads; they have to survive every view. Liu et al. 2021,
"FuseDream" (arXiv 2112.01573), show it for such guidance.
"""

import flax
import jax
import jax.numpy as jnp

BACKGROUNDS = ("edge", "random")


@flax.struct.dataclass
class Views:
    """One view of each of b pictures.

    Attributes:
      scale: how much it enlarges, [b].
      angle: how far it turns, in radians, [b].
      centre: what it shows in its middle, row and column as shares of the sides, [b, 2].
      color: what stands where the picture ends, in -1..1, [b, 3]; None repeats its edge.
    """

    scale: jax.Array
    angle: jax.Array
    centre: jax.Array
    color: jax.Array | None


def draw(
    key: jax.Array, b: int, zoom: float, rotate: float, shift: float, background: str
) -> Views:
    """Draws views, all uniformly.

    Args:
      b: how many.
      zoom: scales are 1..zoom, the window anywhere within the picture.
      rotate: angles are up to so many degrees to either side.
      shift: the window then moves up to so much of a side, up or down and to the left or right.
      background: one of `BACKGROUNDS`; "random" draws a colour a view.
    """
    keys = jax.random.split(key, 5)
    scale = jax.random.uniform(keys[0], (b,), minval=1.0, maxval=zoom)
    spread = jnp.deg2rad(rotate) * jnp.array([-1, 1])
    angle = jax.random.uniform(keys[1], (b,), minval=spread[0], maxval=spread[1])
    room = (1 - 1 / scale[:, None]) / 2
    centre = 0.5 + room * jax.random.uniform(keys[2], (b, 2), minval=-1.0, maxval=1.0)
    centre += shift * jax.random.uniform(keys[3], (b, 2), minval=-1.0, maxval=1.0)
    color = None
    if background == "random":
        color = jax.random.uniform(keys[4], (b, 3), minval=-1.0, maxval=1.0)
    return Views(scale, angle, centre, color)


def show(images: jax.Array, views: Views) -> jax.Array:
    """The views of pictures [b, h, w, c], of the same shape, by linear interpolation."""
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
        background = 0 if view.color is None else view.color
        return jax.vmap(sample, -1, -1)(image - background) + background

    return jax.vmap(one)(images, views)
