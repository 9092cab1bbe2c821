"""Style transfer, as arrays: one image painted in the style of another."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from nada_jax import images
from nada_jax.demo.drawing import Report
from nada_jax.style.painting import style_transfer
from nada_jax.style.settings import Network
from nada_jax.transfers import sources

SMALLEST = 128  # longer side of the first scale in pixels


def paint(
    network: Network,
    content: Path,
    style: Path,
    *,
    size: int,
    style_weight: float,
    strength: float,
    colors: str,
    first_steps: int,
    steps: int,
    report: Report,
) -> dict[str, np.ndarray]:
    """Paints a content in a style, coarse to fine.

    Args:
      network: the VGG whose features count.
      content, style: files of images.
      size: longer side of the result in pixels.
      style_weight, strength, colors: see `style_transfer`.
      first_steps, steps: of the first scale and of each further one.
      report: is called every few steps.

    Returns:
      "content" and "style", no larger than the result, and "result": uint8 [h, w, 3].

    Raises:
      UserError: an image cannot be read, is too small for the layers, or the loss is not finite.
    """
    report(0.0, "reads the images")
    given = {"content": sources.read(content, size), "style": sources.read(style, size)}
    # The pixels double from scale to scale.
    total = first_steps + steps * max(0, round(2 * math.log2(size / SMALLEST)))
    done = 0

    def advance(number: int, loss: float, _: float) -> None:
        nonlocal done
        done += number
        report(done / total, f"paints: step {done} of {total}")

    result = style_transfer(
        given["content"],
        given["style"],
        size=size,
        style_weight=style_weight,
        strength=strength,
        colors=colors,
        smallest=SMALLEST,
        first_steps=first_steps,
        steps=steps,
        weights=network.weights,
        pooling=network.pooling,
        report=advance,
    )
    shown = {name: np.asarray(_within(image, size)) for name, image in given.items()}
    return shown | {"result": images.to_uint8(result)}


def _within(image: Image.Image, side: int) -> Image.Image:
    """A copy whose longer side has at most so many pixels."""
    image = image.copy()
    image.thumbnail((side, side))
    return image
