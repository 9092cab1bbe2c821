"""Images: arrays in [-1, 1] <-> files."""

import os
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageOps

from nada_jax import files
from nada_jax.errors import UserError

BATCH = 32  # images of a folder read at once: a folder may be larger than the memory


def to_uint8(images: np.ndarray) -> np.ndarray:
    """[..., h, w, 3] in [-1, 1] (clipped) -> the same shape in 0..255."""
    scaled = (np.asarray(images, np.float32) + 1) * 127.5
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """Lays images out in rows, from left to right, with white gaps.

    Args:
      images: [n, h, w, 3] in [-1, 1].
      columns: images per row; what is missing in the last row stays white.
      gap: pixels between images.

    Returns:
      uint8 [height, width, 3].
    """
    images = to_uint8(images)
    n, h, w, c = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet


def save(pixels: np.ndarray, path: str | os.PathLike, enlarge: int = 1) -> None:
    """Writes uint8 [h, w, 3] atomically as PNG, each pixel `enlarge` times as large."""
    image = Image.fromarray(pixels)
    # By whole pixels: smoothing would hide artefacts of the generator.
    image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
    with files.atomic(path) as temporary:
        image.save(temporary, format="PNG")


def save_grid(images: np.ndarray, columns: int, path: str | os.PathLike) -> None:
    """Writes images [n, h, w, 3] in [-1, 1] as one grid, in which small ones are large enough to be looked at."""
    save(grid(images, columns), path, max(1, 128 // images.shape[1]))


def read(path: str | os.PathLike, size: int) -> np.ndarray:
    """Reads an image as a square: turned as its camera says, the middle cut out, resized.

    Args:
      path: a file of any format that Pillow knows. What is transparent becomes white.
      size: side in pixels.

    Returns:
      float32 [size, size, 3] in [-1, 1].

    Raises:
      UserError: it cannot be read, or is not an image.
    """
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file).convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            image = Image.alpha_composite(white, upright).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = getattr(error, "strerror", None) or "it is not an image, or damaged"
        raise UserError(f"cannot read {os.fspath(path)}: {why}") from error
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square, np.float32) / 127.5 - 1


def stream(
    directory: str | os.PathLike,
    size: int,
    *,
    field: str,
    say: Callable[[str], None] = print,
    batch: int = BATCH,
) -> Iterator[np.ndarray]:
    """Reads all images of a folder and of those within it, in the order of their names, few at a time.

    Args:
      directory: the folder; hidden files are passed over.
      size: see `read`.
      field: how messages call `directory`.
      say: is called with a line on each file that cannot be read, which is skipped.
      batch: images at a time.

    Yields:
      float32 [batch, size, size, 3] in [-1, 1]; the last may be smaller.

    Raises:
      UserError: there is no such folder, or no image in it.
    """
    said = f"{field}={os.fspath(directory)!r}"
    files.check_local(directory, said, "download the images, and give their folder")
    directory = files.expand(directory)
    if not directory.is_dir():
        raise UserError(f"{field}={os.fspath(directory)!r} is no directory; expected one of images")
    found, waiting = 0, []
    for path in sorted(directory.rglob("*")):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            waiting.append(read(path, size))
        except UserError as error:
            say(f"skipped: {error}")
            continue
        found += 1
        if len(waiting) == batch:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)
    if not found:
        raise UserError(f"{field}={os.fspath(directory)!r} holds no image that can be read")
