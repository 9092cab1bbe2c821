"""What an image loses by its content and its style, over the whole of it or over tiles.

Gatys, Ecker & Bethge 2016: the content of an image is the features of a VGG, its style are statistics of them.
"""

import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp

from nada_jax.errors import UserError
from nada_jax.losses import style as losses
from nada_jax.losses.style import KINDS, Statistics
from nada_jax.models.vgg import Vgg
from nada_jax.style import tiles
from nada_jax.style.tiles import Tiles

PIXEL = 127.5  # pixel values in 0..255 for one unit of images in [-1, 1]
Style = dict[str, Statistics]  # layer -> statistics


@flax.struct.dataclass
class Targets:
    """What images [b, h, w, 3] are compared with.

    Attributes:
      content: layer -> features of the contents [b, tiles, h', w', c].
      style: layer -> statistics of k styles [b, k, ...].
      masks: layer -> where in the image each style belongs [b, k, h', w'], in [0, 1]; None: everywhere.
    """

    content: dict[str, jax.Array]
    style: Style
    masks: dict[str, jax.Array] | None = None


@flax.struct.dataclass
class Weights:
    """Factors of the terms.

    Attributes:
      content: of each content layer [b, layers].
      style: of each style layer [b, layers].
      blend: of each style [b, k].
      total_variation: [b].
    """

    content: jax.Array
    style: jax.Array
    blend: jax.Array
    total_variation: jax.Array


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of images by a VGG; static choices, so that it may be an argument of `jit`.

    Features are in units of pixel values in 0..255 whatever the VGG, so that weights mean the same for all: those of
    Gatys et al. and of neural-style hold.

    Attributes:
      content_layers, style_layers: names of layers of the VGG.
      kind: of the statistics; a row of `losses.style.KINDS`.
      pooling: "max" or "average".
      wrap: images continue at their opposite sides, as those that are laid beside each other.
      tile: side in pixels above which images are looked at in tiles.
    """

    content_layers: tuple[str, ...] = ()
    style_layers: tuple[str, ...] = ()
    kind: str = "gram"
    pooling: str = "max"
    wrap: bool = False
    tile: int = 1024

    def describe(self, vgg: Vgg, images: jax.Array, as_target: bool = False) -> Style:
        """The style of images.

        Args:
          vgg: the network.
          images: [b, h, w, 3] in [-1, 1].
          as_target: with what `distance` and `Targets` need besides.

        Returns:
          Layer -> statistics, a row for each image.
        """
        kind = KINDS[self.kind]
        _, sums = self._look(vgg, images, Targets({}, {}))
        found = {name: kind.statistics(x[0]) for name, x in sums.items()}
        return {name: kind.target(x) for name, x in found.items()} if as_target else found

    def remember(self, vgg: Vgg, images: jax.Array) -> dict[str, jax.Array]:
        """The features that `Targets.content` needs, of contents [b, h, w, 3]."""
        plan, layers = self._plan(vgg, images), self.content_layers
        if not layers:
            return {}

        def features(span: jax.Array) -> dict[str, jax.Array]:
            return self._features(vgg, self._cut(images, plan, span), layers, len(plan.spans) == 1)

        found = jax.lax.map(features, jnp.asarray(plan.array()))
        return {name: jnp.moveaxis(x, 0, 1) for name, x in found.items()}

    def resample(self, vgg: Vgg, masks: jax.Array) -> dict[str, jax.Array]:
        """Masks [..., h, w] of an image -> layer -> their means over the pixels of each feature [..., h', w']."""
        found = {}
        for name in self.style_layers:
            stride, _ = vgg.architecture.reach(name)
            h, w = (side // stride for side in masks.shape[-2:])
            x = masks[..., : h * stride, : w * stride]
            x = x.reshape(*masks.shape[:-2], h, stride, w, stride)
            found[name] = jnp.mean(x, axis=(-3, -1))
        return found

    def loss(
        self, vgg: Vgg, images: jax.Array, targets: Targets, weights: Weights
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of each image.

        Args:
          vgg: the network.
          images: [b, h, w, 3] in [-1, 1].
          targets, weights: what they are compared with.

        Returns:
          Losses [b]; and without their weights `content`, `style` and `total_variation` [b], where there are such, and
          `content_LAYER` [b] where content has several layers.
        """
        content, sums = self._look(vgg, images, targets)
        variation = losses.total_variation(images * PIXEL, self.wrap)
        total = weights.total_variation * variation
        figures = {"total_variation": variation}
        if content:
            figures["content"] = sum(content.values()) / len(content)
            # By name: JAX sorts the keys of a dictionary that it passes on.
            for i, name in enumerate(self.content_layers):
                total += weights.content[:, i] * content[name]
                if len(content) > 1:
                    figures[f"content_{name}"] = content[name]
        if sums:
            distances = self._distances(sums, targets, weights.blend)
            figures["style"] = sum(distances.values())
            for i, name in enumerate(self.style_layers):
                total += weights.style[:, i] * distances[name]
        return total, figures

    def __call__(
        self, images: jax.Array, vgg: Vgg, rows: tuple[Targets, Weights]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """`loss`, as `minimize.Loss` has it."""
        return self.loss(vgg, images, *rows)

    def distance(self, found: Style, target: Style) -> dict[str, jax.Array]:
        """Layer -> distance [b] of two styles; `target` as `describe` gives it with `as_target`."""
        return {name: KINDS[self.kind].distance(found[name], target[name]) for name in found}

    def _distances(
        self, sums: dict[str, list[Statistics]], targets: Targets, blend: jax.Array
    ) -> dict[str, jax.Array]:
        """Layer -> distances to the styles, summed over these by their shares [b]."""
        kind, found = KINDS[self.kind], {}
        for name, regions in sums.items():
            known = [kind.statistics(x) for x in regions]
            found[name] = jnp.zeros(len(blend))
            for k in range(blend.shape[1]):
                target = jax.tree.map(lambda x, k=k: x[:, k], targets.style[name])
                found[name] += blend[:, k] * kind.distance(known[k % len(known)], target)
        return found

    def _plan(self, vgg: Vgg, images: jax.Array) -> Tiles:
        layers = (*self.content_layers, *self.style_layers)
        known = vgg.architecture.layers()
        if unknown := [name for name in layers if name not in known]:
            raise UserError(
                f"this VGG-{vgg.architecture.depth} has no layer {unknown[0]!r}; it has {', '.join(known)}"
            )
        reaches = [vgg.architecture.reach(name) for name in layers]
        stride, beyond = max(x for x, _ in reaches), max(x for _, x in reaches)
        h, w = images.shape[1:3]
        if self.wrap and (h % stride or w % stride):
            raise UserError(
                f"an image of {h} x {w} pixels cannot be tileable by these layers; expected multiples of {stride}"
            )
        return tiles.plan(h, w, self.tile, stride, beyond, self.wrap)

    def _cut(self, images: jax.Array, plan: Tiles, span: jax.Array) -> jax.Array:
        """The tile of images at a span [2, 3]."""
        if len(plan.spans) == 1:
            return images
        if not self.wrap:
            b, _, _, c = images.shape
            sizes = (b, plan.height, plan.width, c)
            return jax.lax.dynamic_slice(images, (0, span[0, 0], span[1, 0], 0), sizes)
        rows = (span[0, 0] + jnp.arange(plan.height)) % images.shape[1]
        columns = (span[1, 0] + jnp.arange(plan.width)) % images.shape[2]
        return images[:, rows][:, :, columns]

    def _features(
        self, vgg: Vgg, images: jax.Array, layers: tuple[str, ...], whole: bool
    ) -> dict[str, jax.Array]:
        # Tiles of an image that wraps have the pixels beyond their borders already.
        found = vgg.features(images, layers, self.pooling, wrap=self.wrap and whole)
        return {name: found[name] * vgg.architecture.unit for name in layers}

    def _look(
        self, vgg: Vgg, images: jax.Array, targets: Targets
    ) -> tuple[dict[str, jax.Array], dict[str, list[Statistics]]]:
        """Content losses [b] by layer, and by layer the sums of each region, or of all where there are no masks."""
        plan, architecture = self._plan(vgg, images), vgg.architecture
        whole = len(plan.spans) == 1
        layers = tuple(dict.fromkeys((*targets.content, *self.style_layers)))
        masks = [None]
        if targets.masks is not None:
            regions = range(next(iter(targets.masks.values())).shape[1])
            masks = [{name: x[:, k] for name, x in targets.masks.items()} for k in regions]

        def part(span: jax.Array, wanted: dict[str, jax.Array]) -> dict[str, Any]:
            found = self._features(vgg, self._cut(images, plan, span), layers, whole)
            contents, styles = {}, {}
            for name, x in found.items():
                stride, _ = architecture.reach(name)
                # Positions of the tile along both axes, and which of them are its own.
                at = [span[i, 0] // stride + jnp.arange(x.shape[1 + i]) for i in range(2)]
                own = [
                    (span[i, 1] <= at[i] * stride) & (at[i] * stride < span[i, 2]) for i in range(2)
                ]
                counted = jnp.float32(own[0][:, None] & own[1])[None]
                if name in wanted:
                    squares = counted[..., None] * (x - wanted[name]) ** 2
                    contents[name] = jnp.sum(squares, axis=(1, 2, 3)) / x.shape[3]
                if name in self.style_layers:
                    styles[name] = [
                        KINDS[self.kind].sums(x, counted * _at(mask, name, at)) for mask in masks
                    ]
            return {"content": contents, "style": styles}

        spans = jnp.asarray(plan.array())
        wanted = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), targets.content)
        if whole:
            sums = part(spans[0], jax.tree.map(lambda x: x[0], wanted))
        else:
            # Features of one tile at a time are held, and computed again for the gradient.
            once = jax.checkpoint(part)
            shapes = jax.eval_shape(once, spans[0], jax.tree.map(lambda x: x[0], wanted))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            sums, _ = jax.lax.scan(
                lambda carried, at: (jax.tree.map(jnp.add, carried, once(*at)), None),
                zeros,
                (spans, wanted),
            )
        content = {}
        for name, x in sums["content"].items():
            stride, _ = architecture.reach(name)
            content[name] = x / ((images.shape[1] // stride) * (images.shape[2] // stride))
        return content, sums["style"]


def _at(mask: dict[str, jax.Array] | None, name: str, at: list[jax.Array]) -> jax.Array | float:
    """A mask at the positions of a tile; those beyond the image count for nothing, and may be of any value."""
    if mask is None:
        return 1.0
    x = mask[name]
    return x[:, at[0] % x.shape[1]][:, :, at[1] % x.shape[2]]
