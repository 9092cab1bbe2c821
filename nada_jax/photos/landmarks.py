"""Where faces are in a photograph, and where their eyes and mouths are. Why by MTCNN: docs/photos.md."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nada_jax.photos import mtcnn

SIDE = 1024  # of the copy that is searched: the last network sees a face in 48 pixels in any case
SMALLEST = 1 / 40  # of a face, in the longer side
# Of the first network, as published; each level of its pyramid has half the area.
CELL, STRIDE, SHRINK = 12, 2, 0.709
PROPOSED, REFINED, CERTAIN = 0.6, 0.7, 0.8  # least probability after each network, as published
OVERLAP, OVERLAP_OF_LEVEL = 0.7, 0.5  # most of two faces, and of two proposals of one level
# A face is seen again, upright, in the middle of a square, from these places (shares of it) and mirrored: the mean of ten
# views is nearer to the truth than one, and a turned face is found as well as an upright one.
VIEWS = ((0, 0), (0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05))
ROUNDS = 2
# The side of that square by the larger of the distances eye to eye and eyes to mouth; and how far it lies above.
SQUARE, UP = 2.8, 0.06
# MTCNN sees pupils; the mean of an eye's outline, as FFHQ has it, lies lower by this share of their distance.
LOWER = 0.03
MIRRORED = (1, 0, 2, 4, 3)  # where each landmark stands in a mirror
TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180)


@dataclass(frozen=True)
class Face:
    """A face.

    Attributes:
      landmarks: [5, 2], x and y in pixels of the photograph, (0, 0) the centre of the first: left and right eye, nose,
        left and right corner of the mouth, left and right as one sees them.
      side: of a square that holds the face, in pixels.
      score: probability that it is one.
    """

    landmarks: np.ndarray
    side: float
    score: float


def find(photo: Image.Image) -> list[Face]:
    """Finds faces, largest first.

    Where there is none, it looks again with more contrast, and in the photograph turned by 90, 270 and 180 degrees, as
    that of a camera which does not say how it was held.

    Args:
      photo: RGB, of any size; faces below 1/40 of its longer side are not looked for.

    Raises:
      UserError: the weights are not installed.
    """
    scale = min(1, SIDE / max(photo.size))
    small = photo.resize(
        [max(1, round(side * scale)) for side in photo.size],
        Image.Resampling.BILINEAR,
        reducing_gap=3,
    )
    for turn in TURNS:
        turned = small if turn is None else small.transpose(turn)
        for copy in (turned, _stretched(turned)):
            seen = (_looked_at(copy, points) for points in _search(copy))
            faces = [face for face in seen if face.score > CERTAIN]
            if faces:
                factor = np.divide(photo.size, small.size)
                back = [
                    Face(
                        (_turned_back(face.landmarks, turn, small.size) + 0.5) * factor - 0.5,
                        face.side * float(factor.mean()),
                        face.score,
                    )
                    for face in faces
                ]
                return sorted(back, key=lambda face: -face.side)
    return []


def _stretched(image: Image.Image) -> Image.Image:
    """The image with its darkest and brightest hundredth at black and white."""
    pixels = np.asarray(image, np.float32)
    low, high = np.percentile(pixels, (1, 99))
    stretched = np.clip((pixels - low) * (255 / max(high - low, 8)), 0, 255)
    return Image.fromarray(stretched.astype(np.uint8))


def _turned_back(
    points: np.ndarray, turn: Image.Transpose | None, size: tuple[int, int]
) -> np.ndarray:
    """Points of the turned image -> of that of `size`."""
    x, y = points.T
    width, height = size
    if turn == Image.Transpose.ROTATE_90:
        x, y = width - 1 - y, x
    elif turn == Image.Transpose.ROTATE_180:
        x, y = width - 1 - x, height - 1 - y
    elif turn == Image.Transpose.ROTATE_270:
        x, y = y, height - 1 - x
    return np.stack([x, y], axis=1)


def _search(image: Image.Image) -> list[np.ndarray]:
    """Landmarks [5, 2] of each face, by the three networks one after the other."""
    networks = mtcnn.networks()
    boxes = _proposals(image)
    # Faces at the border reach beyond it, where the networks learned black.
    margin = max(image.size)
    padded = Image.new("RGB", (image.width + 2 * margin, image.height + 2 * margin))
    padded.paste(image, (margin, margin))
    if len(boxes):
        boxes, crops, sides = _crops(padded, margin, boxes, 24)
        shift, probability = networks.refine(crops)
        good = probability > REFINED
        boxes, probability = (boxes + shift * sides)[good], probability[good]
        boxes = boxes[_distinct(boxes, probability, OVERLAP)]
    if not len(boxes):
        return []
    boxes, crops, sides = _crops(padded, margin, boxes, 48)
    shift, points, probability = networks.output(crops)
    points = points * sides[..., None] + boxes[:, None, :2] - 0.5
    good = probability > CERTAIN
    boxes, points, probability = (boxes + shift * sides)[good], points[good], probability[good]
    return list(points[_distinct(boxes, probability, OVERLAP, within=True)])


def _proposals(image: Image.Image) -> np.ndarray:
    """Boxes [n, 4] (left, top, right, bottom) where the first network sees a face, at all sizes."""
    boxes, probabilities = [np.zeros((0, 4))], [np.zeros(0)]
    for level in _pyramid(image):
        shift, probability = mtcnn.networks().propose(_normalised(level)[None])
        y, x = np.nonzero(probability[0] > PROPOSED)
        corner = np.stack([x, y], axis=1) * STRIDE
        found = np.concatenate([corner, corner + CELL], axis=1) + shift[0, y, x] * CELL
        kept = _distinct(found, probability[0, y, x], OVERLAP_OF_LEVEL)
        boxes.append(found[kept] * np.tile(np.divide(image.size, level.size), 2))
        probabilities.append(probability[0, y, x][kept])
    every = np.concatenate(boxes)
    return every[_distinct(every, np.concatenate(probabilities), OVERLAP)]


def _pyramid(image: Image.Image) -> Iterator[Image.Image]:
    """Smaller and smaller copies, in each of which a face of another size fills a cell of the first network."""
    scale = CELL / max(CELL, SMALLEST * max(image.size))
    while min(image.size) * scale >= CELL:
        size = [round(side * scale) for side in image.size]
        yield image.resize(size, Image.Resampling.BILINEAR)
        scale *= SHRINK


def _crops(
    padded: Image.Image, margin: int, boxes: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes made square, what is in them [n, side, side, 3], and their sides [n, 1]."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True)
    squares = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    inside = np.clip(squares + margin, 0, np.tile(padded.size, 2))
    crops = [
        _normalised(padded.resize((side, side), Image.Resampling.BILINEAR, tuple(box)))
        for box in inside
    ]
    return squares, np.stack(crops), sides


def _distinct(
    boxes: np.ndarray, scores: np.ndarray, most: float, within: bool = False
) -> np.ndarray:
    """Which boxes are the most probable of those that overlap them, as a share of the union, or of the smaller box."""
    order, kept = np.argsort(-scores), []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        common = np.prod(np.maximum(high - low, 0), axis=1)
        union = areas[best] + areas[order] - common
        whole = np.minimum(areas[best], areas[order]) if within else union
        order = order[common <= most * whole]
    return np.array(kept, int)


def _looked_at(image: Image.Image, points: np.ndarray) -> Face:
    """A face seen again, upright, from several places."""
    for _ in range(ROUNDS):
        eyes, mouth = points[:2].mean(0), points[3:].mean(0)
        right, down = points[1] - points[0], mouth - eyes
        x = right + [down[1], -down[0]]  # eyes and mouth both say what is level
        x = x / max(np.hypot(*x), 1e-6)
        y = np.array([-x[1], x[0]])
        side = SQUARE * max(np.hypot(*right), np.hypot(*down), 1)
        corners, crops = [], []
        for dx, dy in VIEWS:
            corner = (eyes + mouth) / 2 + side * ((dx - 0.5) * x + (dy - 0.5 - UP) * y)
            crop = _normalised(_stretched(_upright(image, corner, x, y, side)))
            corners.append(corner)
            crops += [crop, crop[:, ::-1]]
        _, seen, probability = mtcnn.networks().output(np.stack(crops))
        mirrored = seen[1::2, MIRRORED] * [-1, 1] + [1, 0]
        mean = (seen[::2] + mirrored) / 2 * side  # [views, 5, 2], in the square
        points = np.median(np.stack(corners)[:, None] + mean @ np.stack([x, y]), axis=0)
    points[:2] += LOWER * np.hypot(*(points[1] - points[0])) * y
    return Face(points, float(side), float(probability.mean()))


def _upright(
    image: Image.Image, corner: np.ndarray, x: np.ndarray, y: np.ndarray, side: float
) -> Image.Image:
    """A square of 48 pixels out of an image, given its corner, directions and side; black beyond the border."""
    fine = 96  # Pillow samples points: two by two for each pixel are averaged
    step = side / fine
    matrix = (x[0] * step, y[0] * step, corner[0] + 0.5, x[1] * step, y[1] * step, corner[1] + 0.5)
    crop = image.transform((fine, fine), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return crop.reduce(2)


def _normalised(image: Image.Image) -> np.ndarray:
    """As the networks see it: [h, w, 3] around 0."""
    return (np.asarray(image, np.float32) - 127.5) / 128
