"""Images with captions, as diffusion models train on them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from nada_jax import files, images
from nada_jax.errors import UserError, reading

LAYOUTS = (
    "a folder of images with metadata.jsonl (lines with file_name and text or captions) or with a .txt of captions "
    "beside each image, one a line; or a .npz with `images` and a .json of the same name beside it, a list of objects "
    "with captions"
)


class Captioned(NamedTuple):
    """Images and their captions.

    Attributes:
      images: uint8 [n, size, size, 3].
      captions: of each image, at least one.
    """

    images: np.ndarray
    captions: list[list[str]]


def read(source: str, size: int, *, field: str, say: Callable[[str], None] = print) -> Captioned:
    """Reads a data set.

    Args:
      source: a folder or a file; see `LAYOUTS`.
      size: side in pixels that images are brought to.
      field: how messages call `source`.
      say: is called with a line on each image that cannot be read, which is skipped.

    Returns:
      The images and their captions.

    Raises:
      UserError: there is no such folder or file, or no image with a caption in it.
    """
    said = f"{field}={files.spelled(source, field)!r}"
    if not source:
        raise UserError(f"{field} is empty; expected {LAYOUTS}")
    files.check_local(source, said)
    path = files.expand(source)
    with reading(path):  # OSError: a name that is too long
        folder, file = path.is_dir(), path.suffix == ".npz" and path.is_file()
    if folder:
        found = _folder(path, size, say)
    elif file:
        found = _arrays(path, size)
    else:
        raise UserError(f"{said} does not exist; expected {LAYOUTS}")
    if not found.captions:
        raise UserError(f"{said} holds no image with a caption; expected {LAYOUTS}")
    return found


def _folder(folder: Path, size: int, say: Callable[[str], None]) -> Captioned:
    pixels, captions = [], []
    for path, texts in _listed(folder):
        try:
            pixels.append(images.to_uint8(images.read(path, size)))
        except UserError as error:
            say(f"skipped: {error}")
            continue
        captions.append(texts)
    return Captioned(np.stack(pixels) if pixels else np.zeros((0, size, size, 3)), captions)


def _listed(folder: Path) -> list[tuple[Path, list[str]]]:
    listed = folder / "metadata.jsonl"
    if not listed.is_file():
        pairs = []
        for text in sorted(folder.rglob("*.txt")):
            if text.name.startswith(".") or not text.is_file():
                continue
            beside = [x for x in text.parent.iterdir() if x.stem == text.stem and _is_image(x)]
            captions = [line.strip() for line in files.read_text(text).splitlines() if line.strip()]
            pairs += [(sorted(beside)[0], captions)] if beside and captions else []
        return pairs
    pairs = []
    for number, line in enumerate(files.read_text(listed).splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of {listed}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON: {error}") from error
        name = row.get("file_name") if isinstance(row, Mapping) else None
        within = (
            isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts
        )
        if not name or not within:
            raise UserError(f"{where} has no file_name; expected a file of the folder")
        texts = _texts(row, where)
        if texts:
            pairs.append((folder / name, texts))
    return pairs


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions() and path.is_file()


def _texts(row: Mapping[str, Any], where: str) -> list[str]:
    found = row.get("captions", row.get("text"))
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, Sequence) or not all(isinstance(text, str) for text in found):
        raise UserError(f"{where} has captions {found!r}; expected a text, or a list of texts")
    return [text for text in found if text.strip()]


def _arrays(path: Path, size: int) -> Captioned:
    with reading(path), np.load(path, allow_pickle=False) as arrays:
        if "images" not in arrays:
            raise UserError(f"{path} holds no array `images`; expected uint8 [n, h, w, 3]")
        pixels = arrays["images"]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or not pixels.size:
        raise UserError(
            f"`images` of {path} is {pixels.dtype} {pixels.shape}; expected uint8 [n, h, w, 3]"
        )
    if pixels.shape[1:3] != (size, size):
        # Through Pillow, as images of files.
        pixels = np.stack(
            [images.to_uint8(images.square(Image.fromarray(x), size)) for x in pixels]
        )
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise UserError(
            f"{beside} does not exist; expected a list of objects with captions, one an image"
        )
    text = files.read_text(beside)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{beside} is not JSON: {error}") from error
    if not isinstance(rows, list) or len(rows) != len(pixels):
        count = len(rows) if isinstance(rows, list) else "no"
        raise UserError(f"{beside} lists {count} objects; expected {len(pixels)}, one an image")
    captions = []
    for i, row in enumerate(rows):
        where = f"object {i} of {beside}"
        if not isinstance(row, Mapping):
            raise UserError(f"{where} is {row!r}; expected an object with captions")
        captions.append(_texts(row, where))
    kept = np.array([bool(texts) for texts in captions], bool)
    return Captioned(pixels[kept], [texts for texts in captions if texts])
