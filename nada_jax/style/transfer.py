"""Images of given content and style, found from coarse to fine, several at once."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from nada_jax import images, trees
from nada_jax.errors import UserError
from nada_jax.models.vgg import Vgg
from nada_jax.style import snapshots
from nada_jax.style.minimize import Minimizer, State
from nada_jax.style.objective import Objective, Style, Targets, Weights
from nada_jax.style.snapshots import Scale

STEP = 2**0.5  # between sides of neighbouring scales: twice the pixels
# Of noise that an image starts from, around grey; images span 2. Nearly all of it lies within the range.
SPREAD = 0.25
REPORTS = 10  # steps between reports
# Sides of images over that of the result at which they are read: enough for styles four times as large as the result.
SHARPEST = 4


@dataclasses.dataclass(frozen=True)
class Row:
    """What one image is to become.

    Attributes:
      content: its content; None where only a style is asked for.
      styles: the styles, each resized as the scale demands.
      start: what it starts from; None for noise.
      seed: of that noise.
      content_weights, style_weights: of each layer of the objective.
      blend: share of each style.
      masks: where each style belongs, grey images; none: everywhere.
      total_variation: its weight.
    """

    content: Image.Image | None
    styles: tuple[Image.Image, ...]
    start: Image.Image | None
    seed: int
    content_weights: tuple[float, ...]
    style_weights: tuple[float, ...]
    blend: tuple[float, ...]
    masks: tuple[Image.Image, ...]
    total_variation: float


@dataclasses.dataclass(frozen=True)
class Transferred:
    """What a transfer found.

    Attributes:
      scales: the images of each scale, the last of the full size, float32 [b, h, w, 3] in [-1, 1].
      figures: `loss` and its parts for the last ones, [b] each.
      history: steps, counted over all scales, and the losses after them [n, 1 + b].
    """

    scales: list[np.ndarray]
    figures: dict[str, np.ndarray]
    history: np.ndarray


def scales(
    height: int,
    width: int,
    *,
    smallest: int,
    first_steps: int,
    steps: int,
    least: int,
    multiple: int = 1,
) -> list[Scale]:
    """The sizes from coarse to fine, as in Crowson's style transfer: the pixels double from one to the next.

    Args:
      height, width: of the last.
      smallest: longer side of the first, about.
      first_steps, steps: of the first scale and of each further one.
      least: pixels of the shorter side in every scale.
      multiple: sides are multiples of it, but for those of the last, which are as asked for.

    Returns:
      The scales; one, where the last is no larger than `smallest`.

    Raises:
      UserError: the shorter side of the last is less than `least`.
    """
    if min(height, width) < least:
        raise UserError(
            f"an image of {width} x {height} pixels is too small for these layers of the VGG; expected at least {least} "
            "pixels on the shorter side: raise size, or leave out deep layers"
        )
    found = []
    for number in itertools.count():
        h, w = (
            round(side / STEP**number / multiple) * multiple if number else side
            for side in (height, width)
        )
        if found and (max(h, w) < smallest or min(h, w) < least):
            break
        found.insert(0, (h, w))
    return [Scale(h, w, steps if i else first_steps) for i, (h, w) in enumerate(found)]


def check_style(style: Image.Image, longer: float, least: int) -> None:
    """Raises UserError where a style of so many pixels on its longer side has fewer than `least` on the other."""
    factor = longer / max(style.size)
    height, width = (max(1, round(side * factor)) for side in (style.height, style.width))
    if min(height, width) < least:
        raise UserError(
            f"at the smallest scale, a style of {style.width} x {style.height} pixels would have {width} x {height}; "
            f"expected at least {least} on the shorter side for these layers: raise style_scale or scales.smallest, or "
            "leave out deep layers"
        )


def transfer(
    vgg: Vgg,
    objective: Objective,
    minimizer: Minimizer,
    rows: Sequence[Row],
    sizes: Sequence[Scale],
    *,
    style_scale: float = 1.0,
    snapshot: dict[str, np.ndarray] | None = None,
    keep: Callable[[Callable[[], dict[str, np.ndarray]]], None] | None = None,
    report: Callable[[int, float, float], None] | None = None,
) -> Transferred:
    """Finds images, coarse to fine, all in one program.

    Args:
      vgg: the network.
      objective: the loss.
      minimizer: of this loss.
      rows: the images; all have as many styles and masks as the first.
      sizes: see `scales`.
      style_scale: longer side of a style over that of the image.
      snapshot: what `keep` was given in an earlier run of the same arguments, which is continued.
      keep: is called after every few steps with a function that makes a snapshot, arrays by name.
      report: is called then with the number of steps, the mean loss and the milliseconds of a step.

    Returns:
      The images.

    Raises:
      UserError: an image is too small for the layers, or the loss is not finite.
    """
    found: list[np.ndarray] = []
    figures: dict[str, np.ndarray] = {}
    history: list[np.ndarray] = []
    at, snapshot = 0, dict(snapshot or {})
    if not snapshots.fits(snapshot, minimizer, len(rows), sizes):
        snapshot = {}
    if snapshot:
        at = int(snapshot.pop("scale"))
        found = [snapshot.pop(f"found_{i}") for i in range(at)]
        history = list(snapshot.pop("history"))
    for number, size in enumerate(sizes):
        if number < at:
            continue
        last = found[-1] if found else None
        state = minimizer.begin(_starts(rows, size, last, objective.wrap))
        if snapshot:
            state, snapshot = trees.restored(state, snapshot), {}
        context = _context(vgg, objective, rows, size, style_scale)
        # At least once: figures of a scale whose steps are all done are needed, too.
        first = True
        while first or int(state.step) < size.steps:
            before = int(state.step)
            stop = min(before + REPORTS, size.steps)
            state, result, figures, ms = minimizer.advance(state, vgg, context, stop)
            first = False
            if not np.isfinite(figures["loss"]).all():
                raise UserError(
                    "the loss is not finite; lower the weights of the loss, or optimizer.lr"
                )
            if stop > before:
                done = sum(x.steps for x in sizes[:number]) + stop
                history.append(np.append(done, figures["loss"]))
            if report is not None and stop > before:
                report(stop - before, float(np.mean(figures["loss"])), ms)
            if keep is not None:

                def make(number: int = number, state: State = state) -> dict[str, np.ndarray]:
                    arrays = {f"found_{i}": x for i, x in enumerate(found)}
                    arrays |= {"scale": np.asarray(number), "history": np.stack(history)}
                    return arrays | jax.device_get(trees.enumerated(state))

                keep(make)
        found.append(np.asarray(result))
    return Transferred(found, figures, np.stack(history))


def _starts(rows: Sequence[Row], size: Scale, before: np.ndarray | None, wrap: bool) -> jax.Array:
    """What the images of a scale start from [b, h, w, 3]: the last scale's, or what the rows say."""
    shape = (size.height, size.width, 3)
    if before is not None:
        h, w, _ = shape
        if wrap:  # the middle of nine copies continues at its opposite sides
            nine = np.tile(before, (1, 3, 3, 1))
            larger = jax.image.resize(nine, (len(rows), 3 * h, 3 * w, 3), "cubic")
            larger = larger[:, h : 2 * h, w : 2 * w]
        else:
            larger = jax.image.resize(before, (len(rows), *shape), "cubic")
        return jnp.clip(larger, -1, 1)
    return jnp.stack(
        [
            noise(row.seed, shape[:2])
            if row.start is None
            else jnp.asarray(resized(row.start, size.height, size.width))
            for row in rows
        ]
    )


def _context(
    vgg: Vgg, objective: Objective, rows: Sequence[Row], size: Scale, style_scale: float
) -> tuple[Targets, Weights]:
    """The targets of all rows at a scale; each content and style is looked at once."""
    contents: dict[int, dict[str, jax.Array]] = {}
    styles: dict[int, Style] = {}
    longer = max(size.height, size.width) * style_scale
    for row in rows:
        if row.content is not None and objective.content_layers and id(row.content) not in contents:
            pixels = resized(row.content, size.height, size.width)[None]
            contents[id(row.content)] = _remember(objective, vgg, pixels)
        for style in row.styles:
            if id(style) not in styles:
                styles[id(style)] = _describe(objective, vgg, scaled(style, longer)[None])
    content = _stacked([contents[id(row.content)] for row in rows]) if contents else {}
    style = _stacked([_stacked([styles[id(x)] for x in row.styles]) for row in rows], new=True)
    masks = None
    if rows[0].masks:
        drawn = [
            [(resized(x, size.height, size.width)[..., 0] + 1) / 2 for x in row.masks]
            for row in rows
        ]
        masks = objective.resample(vgg, jnp.asarray(drawn))
    weights = Weights(
        content=jnp.asarray([row.content_weights for row in rows], jnp.float32),
        style=jnp.asarray([row.style_weights for row in rows], jnp.float32),
        blend=jnp.asarray([row.blend for row in rows], jnp.float32),
        total_variation=jnp.asarray([row.total_variation for row in rows], jnp.float32),
    )
    return Targets(content, style, masks), weights


def _stacked(trees: Sequence[Any], new: bool = False) -> Any:
    """Trees of arrays [1, ...] (or with `new` [...]) as one of arrays [n, ...]; {} for none."""
    if not trees or not jax.tree.leaves(trees[0]):
        return {}
    join = jnp.stack if new else jnp.concatenate
    return jax.tree.map(lambda *x: join(x), *trees)


@functools.partial(jax.jit, static_argnums=0)
def _remember(objective: Objective, vgg: Vgg, pixels: jax.Array) -> dict[str, jax.Array]:
    return objective.remember(vgg, pixels)


@functools.partial(jax.jit, static_argnums=0)
def _describe(objective: Objective, vgg: Vgg, pixels: jax.Array) -> Style:
    # A style is no image that continues at its other side, even where the result is to do so.
    return dataclasses.replace(objective, wrap=False).describe(vgg, pixels, as_target=True)


def noise(seed: int, shape: tuple[int, int]) -> jax.Array:
    """What an image of a height and width starts from where nothing is given, [h, w, 3]."""
    return SPREAD * jax.random.normal(jax.random.key(seed), (*shape, 3))


def scaled(image: Image.Image, longer: float) -> np.ndarray:
    """An image whose longer side has about so many pixels, float32 [h, w, 3] in [-1, 1]."""
    factor = longer / max(image.size)
    height, width = (max(1, round(side * factor)) for side in (image.height, image.width))
    return resized(image, height, width)


def resized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """An image at another size, float32 [h, w, 3] in [-1, 1]."""
    return images.from_uint8(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
