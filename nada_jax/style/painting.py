"""Contents in the style of other images: one result from its images and settings."""

import os
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from nada_jax import files, images
from nada_jax.models.vgg import Vgg
from nada_jax.settings import need
from nada_jax.style import colors
from nada_jax.style.minimize import Minimizer
from nada_jax.style.objective import Objective
from nada_jax.style.settings import Loss, Network, Optimizer, Painting, Scales
from nada_jax.style.transfer import Row, Scale, check_style, scales, transfer
from nada_jax.weights import loading
from nada_jax.weights.registry import shipped

STARTS = ("content", "noise")  # or an image
Source = str | os.PathLike | Image.Image | np.ndarray


def style_transfer(
    content: Source,
    style: Source | Sequence[Source],
    *,
    size: int = 256,
    content_weight: float = 5.0,
    style_weight: float = 100.0,
    total_variation: float = 0.0,
    kind: str = "gram",
    content_layers: Sequence[str] = ("relu4_2",),
    style_layers: Sequence[str] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    style_layer_weights: Sequence[float] = (),
    blend: Sequence[float] = (),
    masks: Sequence[Source] = (),
    style_scale: float = 1.0,
    colors: str = "style",
    strength: float = 1.0,
    start: Source = "content",
    seed: int = 0,
    smallest: int = 128,
    first_steps: int = 150,
    steps: int = 60,
    method: str = "adam",
    lr: float = 0.04,
    averaging: float = 0.9,
    weights: str | os.PathLike = "lpips",
    pooling: str = "max",
    tile: int = 1024,
    report: Callable[[int, float, float], None] | None = None,
) -> np.ndarray:
    """Paints the content of one image in the style of another (Gatys, Ecker & Bethge 2016), coarse to fine.

    Args:
      content: a file, the name of an image that ships, an image of Pillow, or an array [h, w, 3] in [-1, 1] or of
        uint8.
      style: the same; or several, which are blended.
      size: longer side of the result in pixels.
      content_weight, style_weight, total_variation: of the terms, as in neural-style.
      kind: "gram", "mean_variance" or "wasserstein".
      content_layers, style_layers, style_layer_weights: of the VGG.
      blend: share of each style; by default equal ones.
      masks: where each style belongs, in white; none: everywhere.
      style_scale: longer side of the style over that of the result.
      colors: "style"; "luminance" keeps the content's hues; "match" recolours the style like the content.
      strength: of the result over the content, 0 to 1.
      start: "content", "noise", or an image.
      seed: of the noise.
      smallest, first_steps, steps: longer side of the first scale, steps at it, and at each further scale.
      method, lr, averaging: "adam" or "lbfgs"; Adam's learning rate, where images span 2; of iterates, in [0, 1).
      weights, pooling: the VGG (a name or a file), and "max" or "average".
      tile: side in pixels above which the image is looked at in tiles.
      report: is called every few steps with their number, the loss, and the milliseconds of a step.

    Returns:
      float32 [h, w, 3] in [-1, 1].

    Raises:
      UserError: an image or a setting cannot be used.
    """
    several = isinstance(style, Sequence) and not isinstance(style, str)
    styles = [opened(x, "style") for x in (style if several else [style])]
    need(bool(styles), "style", style, "at least one image")
    settings = Painting(
        size=size,
        seed=seed,
        tile=tile,
        blend=tuple(blend) or (1.0,) * len(styles),
        style_scale=style_scale,
        colors=colors,
        strength=strength,
        vgg=Network(weights=files.spelled(weights, "weights"), pooling=pooling),
        loss=Loss(
            kind=kind,
            content=content_weight,
            style=(style_weight,),
            total_variation=total_variation,
            content_layers=tuple(content_layers),
            style_layers=tuple(style_layers),
            style_layer_weights=tuple(style_layer_weights),
        ),
        scales=Scales(smallest=smallest, first_steps=first_steps, steps=steps),
        optimizer=Optimizer(method=method, lr=lr, averaging=averaging),
    )
    vgg = loading.load_vgg(weights, field="weights")
    begin = start if isinstance(start, str) and start in STARTS else opened(start, "start")
    row, sizes = prepare(
        vgg,
        opened(content, "content"),
        styles,
        settings,
        style_weight=style_weight,
        masks=[opened(x, "masks") for x in ([masks] if isinstance(masks, str) else masks)],
        start=begin,
    )
    objective, minimizer = make(settings)
    found = transfer(
        vgg, objective, minimizer, [row], sizes, style_scale=style_scale, report=report
    )
    return images.from_uint8(finished(found.scales[-1][0], row, settings))


def make(settings: Painting) -> tuple[Objective, Minimizer]:
    """The loss and its optimiser."""
    loss = settings.loss
    objective = Objective(
        loss.content_layers if loss.content else (),
        loss.style_layers,
        loss.kind,
        settings.vgg.pooling,
        tile=settings.tile,
    )
    return objective, settings.optimizer.of(objective)


def prepare(
    vgg: Vgg,
    content: Image.Image,
    styles: Sequence[Image.Image],
    settings: Painting,
    *,
    style_weight: float,
    masks: Sequence[Image.Image],
    start: str | Image.Image,
) -> tuple[Row, tuple[Scale, ...]]:
    """What a result is to become, and its sizes.

    Args:
      vgg: the network, which bounds how small an image can be.
      content, styles, masks: RGB images; with masks, style k belongs where mask k is white.
      settings: of the result.
      style_weight: one of `settings.loss.style`.
      start: one of `STARTS`, or an image.

    Raises:
      UserError: layers or numbers do not go together, or the result is too small for the layers.
    """
    loss, layers = settings.loss, settings.loss.content_layers
    settings.vgg.check_layers(vgg, "loss.content_layers", layers)
    settings.vgg.check_layers(vgg, "loss.style_layers", loss.style_layers)
    blend = settings.blend or (1.0,) * len(styles)
    each = f"a share for each of the {len(styles)} styles"
    need(len(blend) == len(styles), "blend", blend, each)
    several = f"none, or one for each of the {len(styles)} styles"
    need(len(masks) in (0, len(styles)), "masks", f"{len(masks)} images", several)
    # In regions of their own, styles have no need to share.
    shares = blend if masks else tuple(x / sum(blend) for x in blend)
    if settings.colors == "match":
        styles = [colors.matched(x, content) for x in styles]
    factor = settings.size / max(content.size)
    height, width = (max(1, round(side * factor)) for side in (content.height, content.width))
    least = max(vgg.architecture.reach(x)[0] for x in (*layers, *loss.style_layers))
    sizes = scales(
        height,
        width,
        smallest=settings.scales.smallest,
        first_steps=settings.scales.first_steps,
        steps=settings.scales.steps,
        least=least,
    )
    for style in styles:
        check_style(style, max(sizes[0].height, sizes[0].width) * settings.style_scale, least)
    row = Row(
        content=content,
        styles=tuple(styles),
        start={"content": content, "noise": None}[start] if isinstance(start, str) else start,
        seed=settings.seed,
        content_weights=(loss.content / max(1, len(layers)),) * len(layers) if loss.content else (),
        style_weights=tuple(style_weight * x for x in loss.layer_weights),
        blend=shares,
        masks=tuple(masks),
        total_variation=loss.total_variation,
    )
    return row, tuple(sizes)


def finished(image: np.ndarray, row: Row, settings: Painting) -> Image.Image:
    """A result [h, w, 3] in [-1, 1] with the colours and the strength that are asked for."""
    result = Image.fromarray(images.to_uint8(image))
    if settings.colors == "luminance":
        result = colors.with_colors(result, row.content)
    if settings.strength == 1:
        return result
    below = images.from_uint8(row.content.resize(result.size, Image.Resampling.LANCZOS))
    mixed = below + settings.strength * (images.from_uint8(result) - below)
    return Image.fromarray(images.to_uint8(mixed))


def opened(source: Source, what: str) -> Image.Image:
    """An image of any kind as RGB; `what` is how messages call it.

    Raises:
      UserError: it is no image.
    """
    if isinstance(source, Image.Image):
        return images.from_pillow(source)
    if isinstance(source, str | os.PathLike):
        named = {name: path for name, path in shipped().items() if path.is_file()}
        path = named.get(os.fspath(source)) or files.expand(source)
        need(path.is_file(), what, source, f"a file, or one of {', '.join(sorted(named))}")
        return images.upright(path).image
    array = np.asarray(source)
    right = "[height, width, 3], in [-1, 1] or uint8"
    good = array.ndim == 3 and array.shape[2] == 3 and array.size > 0
    need(good, what, f"an array {list(array.shape)}", right)
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    # What a generator draws reaches a little beyond.
    need(np.abs(array).max() <= 2, what, f"an array up to {np.abs(array).max():g}", right)
    return Image.fromarray(images.to_uint8(array))
