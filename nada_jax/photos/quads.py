"""FFHQ's alignment (Karras et al. 2019, arXiv:1812.04948, appendix C): landmarks -> quad -> square image.

A quad [4, 2] holds x and y of the corners of an oriented square: top left, bottom left, bottom right, top right. Points
are pixels of the photograph, (0, 0) the centre of the first, so that the whole of a square photograph of side s is the
quad from -0.5 to s - 0.5.
"""

import numpy as np
from PIL import Image, ImageFilter

from nada_jax.errors import UserError

OUTSIDE = "the face lies outside the photograph; expected landmarks in pixels of it"
# Of FFHQ's script.
EYES, FACE, BELOW = (
    2.0,
    1.8,
    0.1,
)  # half a side: so many eye distances, or eyes to mouth; the centre lies below the eyes
SUPERSAMPLING = 4
BORDER, PADDING, BLUR = 0.1, 0.3, 0.02  # shares of the quad's side
# Of the 68 points of iBUG: six around each eye, and the corners of the mouth.
LEFT_EYE, RIGHT_EYE, MOUTH = slice(36, 42), slice(42, 48), [48, 54]


def from_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """The quad of a face.

    Args:
      landmarks: [5, 2]: left eye, right eye, nose, left and right corner of the mouth; or [68, 2] as dlib has them. Left
        and right are those of the image.

    Returns:
      [4, 2].

    Raises:
      UserError: they are not finite, of another number, or those of no face.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape not in ((5, 2), (68, 2)) or not np.isfinite(points).all():
        raise UserError(
            f"landmarks are numbers of the shape {points.shape}; expected finite [5, 2] or [68, 2]"
        )
    if len(points) == 5:
        left, right, _, *corners = points
    else:
        left, right, corners = points[LEFT_EYE].mean(0), points[RIGHT_EYE].mean(0), points[MOUTH]
    eyes, across = (left + right) / 2, right - left
    down = np.mean(corners, axis=0) - eyes
    turned = np.array([down[1], -down[0]])  # a quarter: across a face that is not mirrored
    x = across + turned
    if not across @ turned > 0:
        raise UserError(
            "landmarks are those of no face; expected the eyes above the mouth, and the left eye, as one sees it, first"
        )
    x *= max(np.hypot(*across) * EYES, np.hypot(*down) * FACE) / np.hypot(*x)
    return _square(eyes + BELOW * down, x)


def from_box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The smallest upright quad [4, 2] around a box; its numbers are edges of pixels, as those of a crop are."""
    centre = np.array([left + right, top + bottom]) / 2 - 0.5
    return _square(centre, np.array([max(right - left, bottom - top) / 2, 0]))


def middle(size: tuple[int, int]) -> np.ndarray:
    """The quad of the middle of an image, width first."""
    (w, h), side = size, min(size)
    return _square(np.array([w - 1, h - 1]) / 2, np.array([side / 2, 0]))


def _square(centre: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The quad around a centre; `x` leads from there to the middle of its right side."""
    y = np.array([-x[1], x[0]])
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def cut(photo: Image.Image, quad: np.ndarray, size: int) -> Image.Image:
    """The square image within a quad, as FFHQ's script makes it.

    Shrinks a photograph that is much larger than the result, crops it, continues it beyond its borders by a reflection
    that blurs and fades to the median colour, and samples the quad four times as fine as the result. Two steps are not
    the script's: the margin is blurred at a lower resolution (a fifth of the time; a few grey levels apart there), and
    shrinking keeps the places of pixels, which the script shifts by up to half a pixel of the smaller copy.

    Args:
      photo: RGB.
      quad: [4, 2].
      size: side of the result.

    Returns:
      RGB, size x size.
    """
    quad = np.array(quad, np.float64)
    side = float(np.hypot(*(quad[3] - quad[0])))
    shrink = int(side / size / 2)
    if shrink > 1:
        smaller = tuple(max(1, round(length / shrink)) for length in photo.size)
        quad = (quad + 0.5) * np.divide(smaller, photo.size) - 0.5
        photo = photo.resize(smaller, Image.Resampling.LANCZOS, reducing_gap=3)
        side /= shrink
    border = max(round(side * BORDER), 3)
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    inside = np.clip([low - border, high + border], 0, photo.size)
    if not (inside[1] > inside[0]).all():
        raise UserError(OUTSIDE)
    photo = photo.crop(tuple(inside.flatten()))
    quad, low, high = quad - inside[0], low - inside[0], high - inside[0]
    before = np.maximum(border - low, 0)
    after = np.maximum(high - photo.size + border, 0)
    if max(*before, *after) > border - 4:
        least = round(side * PADDING)
        before, after = np.maximum(before, least), np.maximum(after, least)
        photo = _continued(photo, before, after, side * BLUR)
        quad = quad + before
    fine = (size * SUPERSAMPLING,) * 2
    corners = tuple((quad + 0.5).flatten())
    image = photo.transform(fine, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _continued(
    photo: Image.Image, before: np.ndarray, after: np.ndarray, blur: float
) -> Image.Image:
    """A photograph with margins, left and top `before`, right and bottom `after`.

    They reflect it; towards the border, the blur sets in, and beyond it, the median colour.
    """
    widths = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    image = Image.fromarray(np.pad(np.asarray(photo), widths, "reflect"))
    w, h = image.size
    x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)
    # 0 on the border of the photograph, 1 on that of the margin.
    beyond_x = 1 - np.minimum(x / before[0], x[::-1] / after[0])
    beyond_y = 1 - np.minimum(y / before[1], y[::-1] / after[1])
    beyond = np.maximum(beyond_x[None], beyond_y[:, None])

    def mask(share: np.ndarray) -> Image.Image:
        return Image.fromarray(np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8))

    factor = max(1, int(blur / 4))  # a blurred image has no detail to lose
    blurred = image.reduce(factor).filter(ImageFilter.GaussianBlur(blur / factor))
    blurred = blurred.resize((w, h), Image.Resampling.BILINEAR)
    image.paste(blurred, mask=mask(3 * beyond + 1))
    colour = np.median(np.asarray(image.reduce(max(1, min(w, h) // 256))), axis=(0, 1))
    image.paste(tuple(map(round, colour.tolist())), (0, 0, w, h), mask(beyond))
    return image
