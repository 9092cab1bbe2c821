"""Images: arrays in [-1, 1] <-> files."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nada_jax import files
from nada_jax.errors import UserError, reading

MOST = 2**16  # images of a grid: all of them are held at once
BATCH = 32  # images of a folder read at once: a folder may be larger than the memory
# What may be white where a file does not say it; which of them it is, its numbers tell.
WHITES_OF_FLOATS = (1, 2**8 - 1, 2**16 - 1)
WHITES_OF_INTEGERS = (2**8 - 1, 2**16 - 1)  # and the largest number of the type
DARK = 64  # of 255, what 14 of 16 bits give at most
# Tags of TIFF that describe a number, and the values that make it other than an unsigned one.
BITS, KIND, SIGNED, PHOTOMETRY, WHITE_IS_ZERO = 258, 339, 2, 262, 0
# The brands by which such files begin.
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def check_finite(images: np.ndarray, what: str = "the images") -> None:
    """Refuses images with NaN or infinity, of which files would hold arbitrary colours.

    Args:
      images: numbers of any shape, or features of images.
      what: how the message calls them.

    Raises:
      UserError: some are not finite.
    """
    if wrong := np.count_nonzero(~np.isfinite(images)):
        raise UserError(
            f"{what} are not finite: {wrong:,} of {np.size(images):,} numbers are NaN or infinite; expected none, as "
            "sound weights and a moderate truncation give"
        )


def to_uint8(images: np.ndarray) -> np.ndarray:
    """[..., h, w, 3] in [-1, 1] (clipped) -> the same shape in 0..255; UserError where a number is not finite."""
    check_finite(images)
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


def save(pixels: np.ndarray | Image.Image, path: str | os.PathLike, enlarge: int = 1) -> None:
    """Writes uint8 [h, w, 3] atomically as PNG, each pixel `enlarge` times as large."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    # By whole pixels: smoothing would hide artefacts of the generator.
    image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
    with files.atomic(path) as temporary:
        image.save(temporary, format="PNG")


def save_grid(images: np.ndarray, columns: int, path: str | os.PathLike) -> None:
    """Writes images [n, h, w, 3] in [-1, 1] as one grid, in which small ones are large enough to be looked at."""
    save(grid(images, columns), path, max(1, 128 // images.shape[1]))


class Upright(NamedTuple):
    """A photograph: RGB, turned as its camera says, and its size in pixels where `image` is a smaller copy."""

    image: Image.Image
    size: tuple[int, int]


def upright(path: str | os.PathLike, most: int | None = None) -> Upright:
    """Reads a whole image, turned as its camera says.

    Args:
      path: a file of any format that Pillow knows; the first image of one that moves. What is transparent becomes
        white. Grey values of 16 bits are scaled by their range; those of 32 bits and floats by the smallest of a
        few ranges that holds them. Where the highest two of 16 bits are empty in all of a PNG or TIFF, a warning says
        that it is read as dark.
      most: pixels; a larger image is reduced by a whole factor, or two in turn, as it is read, which bounds the memory.

    Returns:
      The image and its size, width first.

    Raises:
      UserError: it cannot be read, is not an image, or does not say which of its numbers is white.
    """
    with reading(path), warnings.catch_warnings():
        # Pillow warns of damaged EXIF data, which cost a turn at most, and of 100 megapixels, which cameras have.
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as file:
                # Loading empties `tile`. Other formats say which number is white.
                deep = file.format in ("PNG", "TIFF") and ";16" in str(file.tile)
                size, factor = file.size, 1
                while most and size[0] * size[1] > most * factor**2:
                    factor += 1
                if factor > 1:  # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size
                    file.draft(None, (size[0] // factor, size[1] // factor))
                drafted = round(size[0] / file.size[0])
                ImageOps.exif_transpose(
                    file, in_place=True
                )  # without a copy, as some are of 500 MB
                file.load()
                turned = (file.width > file.height) != (size[0] > size[1])
                image = _on_white(file)
                factor = -(-factor // drafted)
                image = image.reduce(factor) if factor > 1 else image.copy()
        except UnidentifiedImageError as error:
            what = _kind(path)
            raise UserError(f"it is {what}; expected PNG or JPEG") from error
        except Image.DecompressionBombError as error:
            raise UserError(f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels") from error
    # Cameras and microscopes often put 12 or 14 bits into 16, which no field of the file says. It is no error: in both
    # formats the largest number is white, so that a dark photograph looks the same.
    brightest = max(high for _, high in image.getextrema())
    if deep and brightest <= DARK:
        warnings.warn(
            f"{os.fspath(path)}: read as dark, as its numbers have 16 bits of which the highest two are empty; where "
            "white is 4095 or 16383, scale it to 65535, or save 8 bits",
            stacklevel=3,
        )
    return Upright(image, size[::-1] if turned else size)


def from_pillow(image: Image.Image) -> Image.Image:
    """An image of Pillow as `upright` reads it from a file: RGB, turned as its camera says, on white.

    Raises:
      UserError: it does not say which of its numbers is white.
    """
    return _on_white(ImageOps.exif_transpose(image))


def read(path: str | os.PathLike, size: int) -> np.ndarray:
    """Reads an image as a square: turned as its camera says, the middle cut out, resized.

    Args:
      path: see `upright`.
      size: side in pixels.

    Returns:
      float32 [size, size, 3] in [-1, 1].

    Raises:
      UserError: see `upright`.
    """
    return square(upright(path).image, size)


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle of an RGB image, resized: float32 [size, size, 3] in [-1, 1]."""
    return from_uint8(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def from_uint8(pixels: Image.Image | np.ndarray) -> np.ndarray:
    """Pixels of any shape in 0..255 -> float32 of the same shape in [-1, 1]."""
    return np.asarray(pixels, np.float32) / 127.5 - 1


def _kind(path: str | os.PathLike) -> str:
    """What a file is that Pillow does not know."""
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC:
        return "HEIC, as phones write it, which is not read: save or export it in another format"
    return "no image that Pillow knows" if head else "empty"


def _on_white(file: Image.Image) -> Image.Image:
    """An image of any mode as RGB, itself where it is that; what is transparent becomes white."""
    if file.mode == "RGB" and "transparency" not in file.info:
        return file
    rgba = _with_alpha(file)
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _with_alpha(file: Image.Image) -> Image.Image:
    """An image of any mode, as it was read from a file, as RGBA."""
    if file.mode.startswith("I") or file.mode == "F":
        # Pillow would cut these off at 255, whatever their range.
        grey = Image.fromarray(_eight_bits(file))
        clear = file.info.get("transparency")  # of PNG: the value that is none
        if isinstance(clear, int):
            grey.putalpha(Image.fromarray(np.uint8(255) * (np.asarray(file) != clear)))
        return grey.convert("RGBA")
    # Pillow makes RGBA of these by way of another mode alone.
    between = {"LAB": "RGB", "La": "LA"}.get(file.mode, file.mode)
    return file.convert(between).convert("RGBA")


def _eight_bits(file: Image.Image) -> np.ndarray:
    """Grey values of 16 or 32 bits, or floats, as uint8 of the same shape."""
    grey = np.asarray(file)
    tags = getattr(file, "tag_v2", {})  # of TIFF alone
    integers = file.mode == "I"
    # Pillow keeps the 16 bits of some formats in 32.
    bits = 32 if integers and file.format not in ("PNG", "PPM") else 16
    bits = tags[BITS][0] if BITS in tags else bits
    signed = integers and tags.get(KIND, (1,))[0] == SIGNED
    if file.mode == "F":
        whites: Sequence[int] = WHITES_OF_FLOATS
    elif bits == 32:
        grey = grey.view(np.uint32) if tags and not signed else grey  # Pillow has signed ones only
        whites = (*WHITES_OF_INTEGERS, np.iinfo(grey.dtype).max)
    else:
        whites = (2 ** (bits - signed) - 1,)
    low, high = grey.min(), grey.max()
    white = next((white for white in whites if high <= white), None)
    # A larger range whose two highest bits are empty is none: numbers of 12 or 14 bits within 16 would be dark.
    if not low >= 0 or white is None or (white > whites[0] and high <= white // 4):
        ranges = " or ".join(f"0..{white}" for white in whites)
        raise UserError(
            f"its numbers lie in {low:g}..{high:g}, which does not say what is white; expected all of "
            f"{ranges}, or an image of 8 bits"
        )
    scaled = np.round(grey * (255 / white)).astype(np.uint8)
    return 255 - scaled if tags.get(PHOTOMETRY) == WHITE_IS_ZERO else scaled


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
    said = f"{field}={files.spelled(directory, field)!r}"
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
