"""Photographs -> aligned faces."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image

from nada_jax import files, images
from nada_jax.errors import UserError, reading
from nada_jax.photos import landmarks as detector
from nada_jax.photos import quads
from nada_jax.settings import Rule, Section, need, one_of

SIZE = 1024  # of FFHQ; smaller generators see it reduced
MOST = 4096  # of a result: its quad is sampled four times as fine, which takes 1 GB here
Size = Annotated[int, Rule(lambda x: 1 <= x <= MOST, f"a whole number in 1..{MOST:,}")]
# Generators draw somewhat beyond [-1, 1], which is clipped; an array that reaches farther has another range, as 0..255.
OVERSHOOT = 4
PIXELS = 2**25  # a larger photograph is read reduced: 100 megapixels at half their size
# A square image whose face lies where alignment would put it is taken as it is: cutting it out again would blur it.
# Faces that generators of FFHQ drew lie up to 2.2 % of the side away by the landmarks of dlib, and 4.1 % by these.
STILL = 0.05
WAY_ON = (
    "take its centre by --config.align.mode=none, a part of it by --config.align.mode=crop and "
    '--config.align.crop="(left,top,right,bottom)", or give --config.align.landmarks'
)


@dataclasses.dataclass(frozen=True)
class Aligned:
    """A face, cut out of a photograph.

    Attributes:
      image: float32 [size, size, 3] in [-1, 1].
      quad: [4, 2], where it lies: x and y of the corners top left, bottom left, bottom right, top right, in pixels of
        the upright photograph, (0, 0) the centre of the first.
      landmarks: [5, 2] or [68, 2] in the same pixels; None where the image was taken without a look for faces.
      found: how many faces the photograph has, this one among them; 0 where the image was taken without a look for
        faces.
    """

    image: np.ndarray
    quad: np.ndarray
    landmarks: np.ndarray | None = None
    found: int = 0


def _is_choice(faces: str) -> bool:
    return faces in ("largest", "all") or (faces.isdecimal() and int(faces) >= 1)


class _Side(Section):
    """What the function `align` checks of its arguments."""

    size: Size


class Align(Section, name="align"):
    """How faces are cut out of photographs; `config.align`."""

    mode: Annotated[str, one_of(("face", "none", "crop"))]
    faces: Annotated[str, Rule(_is_choice, '"largest", "all", or a number, 1 for the largest')]
    crop: tuple[int, ...]
    landmarks: str

    def check(self) -> None:
        if self.mode == "crop":
            good = (
                len(self.crop) == 4 and self.crop[0] < self.crop[2] and self.crop[1] < self.crop[3]
            )
            self.need(good, "crop", "(left, top, right, bottom) in pixels, such as (0,0,512,512)")
        else:
            self.need(not self.crop, "mode", "crop, as align.crop is given")
        if self.landmarks:
            self.need(self.mode == "face", "mode", "face, as align.landmarks is given")


def align(
    image: str | os.PathLike | Image.Image | np.ndarray,
    size: int = SIZE,
    landmarks: np.ndarray | Sequence[Sequence[float]] | None = None,
) -> Aligned:
    """Aligns the largest face of a photograph as those of FFHQ are.

    Args:
      image: a file, an image of Pillow of any mode, which is read as a file is (turned by EXIF, on white), or an array
        [h, w, 3], uint8 or floats in [-1, 1].
      size: side of the result in pixels, in 1..4096.
      landmarks: of the face, [5, 2] (left eye, right eye, nose, left and right corner of the mouth) or [68, 2], in pixels
        of the upright photograph; by default they are found.

    Returns:
      The aligned face. A square image that is aligned already keeps its pixels.

    Raises:
      UserError: the image cannot be read, no face is found, or an argument is out of its range.
    """
    _Side(size)
    given = []
    if landmarks is not None:
        points = _numbers(landmarks)
        need(points is not None, "landmarks", landmarks, "numbers of the shape [5, 2] or [68, 2]")
        given = [points]
    return _faces(_opened(image), Align("face", "largest", (), ""), int(size), given)[0]


def align_photo(path: str | os.PathLike, settings: Align, size: int) -> list[Aligned]:
    """Cuts out of a photograph what `config.align` says.

    Args:
      path: the photograph; one of more than 33 megapixels is read at a half, a third, ... of its size.
      settings: which faces, or which part.
      size: side of the results in pixels.

    Returns:
      One or more, the largest face first.

    Raises:
      UserError: the photograph cannot be read, its name is not UTF-8, no face is found or not so many, or the crop or
        the landmarks lie outside.
    """
    try:
        Path(path).name.encode()
    except UnicodeEncodeError as error:  # pages and messages could not name it
        raise UserError(f"{os.fspath(path)}: its name is not UTF-8; rename it") from error
    photo = images.upright(path, PIXELS)
    try:
        if settings.mode == "none":
            return [_straight(photo, size)]
        if settings.mode == "crop":
            left, top, right, bottom = settings.crop
            width, height = photo.size
            settings.need(
                min(left, top) >= 0 and right <= width and bottom <= height,
                "crop",
                f"a box within its {width} x {height} pixels",
            )
            return [_boxed(photo, quads.from_box(*settings.crop), size)]
        points = _given(settings.landmarks, Path(path)) if settings.landmarks else []
        return _faces(photo, settings, size, points)
    except UserError as error:
        raise UserError(f"{os.fspath(path)}: {error}") from error


def _opened(image: Any) -> images.Upright:
    if isinstance(image, str | os.PathLike):
        return images.upright(files.expand(image), PIXELS)
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise UserError(f"image is an array of the shape {array.shape}; expected [h, w, 3]")
        if array.dtype != np.uint8:
            known = array.dtype.name.startswith(("float", "bfloat"))
            if not known or np.abs(array.astype(np.float32)).max() > OVERSHOOT:
                within = f" in {array.min():g}..{array.max():g}" if known else ""
                raise UserError(
                    f"image is an array of {array.dtype.name}{within}; expected uint8, or floats in [-1, 1]"
                )
            array = images.to_uint8(array)
        image = Image.fromarray(array)
    with reading("the image"):
        image = images.from_pillow(image)
    return images.Upright(image, image.size)


def _faces(
    photo: images.Upright, settings: Align, size: int, points: Sequence[np.ndarray]
) -> list[Aligned]:
    """The faces that are chosen, of given landmarks or of those that are found."""
    if points:
        # As faces that are found: the largest first.
        extents = [_extent(each, photo.size) for each in points]
        points = [points[i] for i in np.argsort(extents, stable=True)[::-1]]
    else:
        scale = np.divide(photo.size, photo.image.size)
        faces = detector.find(photo.image)
        points = [(face.landmarks + 0.5) * scale - 0.5 for face in faces]
    if not points:
        raise UserError(f"no face is found; {WAY_ON}")
    found = len(points)
    if settings.faces == "largest":
        points = points[:1]
    elif settings.faces != "all":
        number = int(settings.faces)
        settings.need(number <= found, "faces", f"at most {found}, as so many are found")
        points = points[number - 1 : number]
    return [dataclasses.replace(_face(photo, each, size), found=found) for each in points]


def _extent(points: np.ndarray, size: tuple[int, int]) -> float:
    """Side of the quad of given landmarks; UserError where they are far outside of the photograph, or no face's."""
    if np.isfinite(points).all() and ((points < -max(size)) | (points > 2 * max(size))).any():
        raise UserError(quads.OUTSIDE)  # numbers without limit would need memory without limit
    quad = quads.from_landmarks(points)
    return float(np.hypot(*(quad[3] - quad[0])))


def _face(photo: images.Upright, points: np.ndarray, size: int) -> Aligned:
    quad = quads.from_landmarks(points)
    whole = quads.middle(photo.size)
    width, height = photo.size
    if width == height and np.abs(quad - whole).max() <= STILL * width:
        straight = _straight(photo, size)
        return Aligned(straight.image, straight.quad, points)
    return Aligned(_cut(photo, quad, size).image, quad, points)


def _straight(photo: images.Upright, size: int) -> Aligned:
    """The middle of a photograph, as `images.read` takes it."""
    return Aligned(images.square(photo.image, size), quads.middle(photo.size))


def _boxed(photo: images.Upright, quad: np.ndarray, size: int) -> Aligned:
    """An upright quad; only where it reaches beyond the photograph does it need what continues that."""
    if (quad < -0.5).any() or (quad > np.array(photo.size) - 0.5).any():
        return _cut(photo, quad, size)
    box = (quad[[0, 2]] + 0.5) * np.divide(photo.image.size, photo.size)
    image = photo.image.resize((size, size), Image.Resampling.BICUBIC, tuple(box.flatten()))
    return Aligned(images.from_uint8(image), quad)


def _cut(photo: images.Upright, quad: np.ndarray, size: int) -> Aligned:
    scale = np.divide(photo.image.size, photo.size)
    image = quads.cut(photo.image, (quad + 0.5) * scale - 0.5, size)
    return Aligned(images.from_uint8(image), quad)


def _given(source: str, path: Path) -> list[np.ndarray]:
    """Landmarks that a file has for a photograph, [5, 2] or [68, 2] a face; none where it does not name it.

    The file is JSON: name of a photograph, with or without its ending -> points of its face, or a list of such.
    """
    content = files.read_json(files.expand(source))
    value = content.get(path.name, content.get(path.stem))
    if value is None:
        return []
    array = _numbers(value)
    array = np.zeros(0) if array is None else array
    faces = array[None] if array.ndim == 2 else array
    if faces.ndim != 3 or faces.shape[1:] not in ((5, 2), (68, 2)):
        raise UserError(
            f"align.landmarks={source!r} has points of the shape {array.shape} for {path.name}; expected 5 or 68 of x and "
            "y, or a list of such"
        )
    return list(faces)


def _numbers(value: Any) -> np.ndarray | None:
    """An array of what may be none."""
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
