"""The style of images: statistics of a VGG's features over all positions, layer by layer; kinds of `losses.style`."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from nada_jax.losses.style import KINDS, Statistics
from nada_jax.models.vgg import Vgg

Style = dict[str, Statistics]  # layer -> statistics, a row for each image


def describe(
    vgg: Vgg, images: jax.Array, layers: Sequence[str], kind: str, pooling: str = "max"
) -> Style:
    """The style of each of some images, of features in units of pixel values in 0..255.

    Args:
      vgg: the network.
      images: [b, h, w, 3] in [-1, 1].
      layers: names out of `vgg.architecture.layers()`.
      kind: a row of `losses.style.KINDS`.
      pooling: see `Vgg.features`.

    Returns:
      Layer -> statistics, each [b, ...].

    Raises:
      UserError: unknown layers or pooling, or images too small for a layer.
    """
    row, unit = KINDS[kind], vgg.architecture.unit
    everywhere = jnp.ones((1, 1, 1))
    return {
        layer: row.statistics(row.sums(x * unit, everywhere))
        for layer, x in vgg.features(images, layers, pooling).items()
    }


def distances(x: Mapping[str, Statistics], y: Mapping[str, Statistics], kind: str) -> Statistics:
    """Distances of styles, layer by layer.

    Args:
      x: styles of images, as `describe` gives them.
      y: the target, a row for each image or one for all.
      kind: of both.

    Returns:
      Layer -> distance of each image [b]; its scale is that of the layer's features.
    """
    return {layer: KINDS[kind].distance(x[layer], y[layer]) for layer in y}
