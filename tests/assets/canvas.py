"""What the drawings share. An image is float32 [h, w, 3] of sRGB in [0, 1]; points are (x, y) in pixels."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FINE = 4  # samples a pixel and side, where edges are drawn
BYTES = 98_000  # of a file at most


def grid(h, w):
    """Centres of the pixels, x and y [h, w]."""
    y, x = np.mgrid[:h, :w].astype(np.float32) + np.float32(0.5)
    return x, y


def colour(text):
    """Of "2b4a8f", [3]."""
    return np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


def ramp(t, *stops):
    """Colours [..., 3] for t in [0, 1]: evenly spaced stops, straight between them."""
    colours = np.stack([colour(x) for x in stops])
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(t, at, colours[:, c]) for c in range(3)], -1).astype(np.float32)


def smooth(low, high, x):
    """0 below low, 1 above high, a smooth step between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blend(under, over, alpha):
    """Of two images or colours, by alpha [h, w]."""
    return under + np.asarray(alpha)[..., None] * (over - under)


def noise(rng, h, w, cell, octaves=4, gain=0.5):
    """Fractal noise [h, w] of deviation about 0.5; `cell` is the largest feature, one size or (down, across)."""
    down, across = np.broadcast_to(cell, 2).astype(float)
    total, strength = np.zeros((h, w), np.float32), 1.0
    for _ in range(octaves):
        shape = (math.ceil(h / down) + 4, math.ceil(w / across) + 4)
        values = Image.fromarray(rng.standard_normal(shape).astype(np.float32))
        box = (1.5, 1.5, 1.5 + w / across, 1.5 + h / down)
        total += strength * np.asarray(values.resize((w, h), Image.Resampling.BICUBIC, box=box))
        strength, down, across = strength * gain, max(down / 2, 1), max(across / 2, 1)
    return total * np.float32(0.65 * math.sqrt(1 - gain**2))


def blur(x, sigma):
    """Gaussian blur of [h, w] or [h, w, c], mirrored at the edges."""
    if x.ndim == 3:
        return np.stack([blur(x[..., c], sigma) for c in range(x.shape[-1])], -1)
    pad = min(int(3 * sigma) + 1, *x.shape)
    wide = np.pad(x, pad, mode="symmetric")
    fy, fx = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[1])
    response = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    result = np.fft.irfft2(np.fft.rfft2(wide) * response, wide.shape)
    return result[pad:-pad, pad:-pad].astype(np.float32)


def sample(field, x, y):
    """Values of a field [h, w, ...] at the nearest pixel."""
    h, w = field.shape[:2]
    return field[np.clip(y, 0, h - 1).astype(int), np.clip(x, 0, w - 1).astype(int)]


def relief(height, strength=1.0, angle=-2.2):
    """Light [h, w] on a surface, about 1 where it is flat; `angle` says where the light comes from."""
    dy, dx = np.gradient(height.astype(np.float32))
    slope = strength * (dx * math.cos(angle) + dy * math.sin(angle))
    return 1 - slope / np.sqrt(1 + slope**2 + (strength * (dx - dy)) ** 2 * 0.25)


def _paint(image, points, margin, draw, paint, alpha):
    """Paints what `draw` puts on a mask, which is as large as the points and a margin."""
    points, limit = np.asarray(points, float), (image.shape[1], image.shape[0])
    x0, y0 = np.clip(np.floor(points.min(0) - margin), 0, limit).astype(int)
    x1, y1 = np.clip(np.ceil(points.max(0) + margin), 0, limit).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    mask = Image.new("L", ((x1 - x0) * FINE, (y1 - y0) * FINE))
    draw(ImageDraw.Draw(mask), [tuple(p) for p in ((points - (x0, y0)) * FINE).tolist()])
    part = slice(y0, y1), slice(x0, x1)
    paint, alpha = (x[part] if np.ndim(x) >= 2 else x for x in (paint, alpha))
    cover = np.asarray(mask.reduce(FINE), np.float32) / 255 * alpha
    cover = cover[..., None] if image.ndim == 3 else cover
    image[part] += cover * (paint - image[part])


def fill(image, points, paint, alpha=1.0):
    """Paints a polygon onto an image or a mask in place.

    Args:
      image: [h, w, 3] or [h, w].
      points: corners [n, 2].
      paint: a colour or an image of the same size.
      alpha: a number or [h, w].
    """
    _paint(image, points, 1, lambda pen, p: pen.polygon(p, fill=255), paint, alpha)


def line(image, points, paint, width=1.0, alpha=1.0):
    """Draws a line through points in place, with round joints and ends; see `fill`."""

    def draw(pen, p):
        size = max(round(width * FINE), 1)
        pen.line(p, fill=255, width=size, joint="curve")
        for x, y in (p[0], p[-1]):
            pen.ellipse((x - size / 2, y - size / 2, x + size / 2, y + size / 2), fill=255)

    _paint(image, points, width + 1, draw, paint, alpha)


def box(x0, y0, x1, y1):
    """Corners of an upright rectangle."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def oval(x, y, rx, ry, turn=0.0, start=0.0, end=2 * math.pi, n=64):
    """Points of an ellipse or of an arc of it."""
    t = np.linspace(start, end, n)
    a, b = rx * np.cos(t), ry * np.sin(t)
    c, s = math.cos(turn), math.sin(turn)
    return np.stack([x + a * c - b * s, y + a * s + b * c], -1)


def curve(points, n=16, closed=False):
    """A smooth line (Catmull-Rom) through points, n to a piece."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    t = np.linspace(0, 1, n, endpoint=False)[:, None]
    pieces = [
        0.5
        * (
            2 * b
            + (c - a) * t
            + (2 * a - 5 * b + 4 * c - d) * t**2
            + (3 * b - a - 3 * c + d) * t**3
        )
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return np.concatenate(pieces if closed else [*pieces, p[-1:]])


def save(path: Path, image):
    """Writes a JPEG of the best quality up to 92 that fits into `BYTES`."""
    pixels = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    for quality in range(92, 40, -2):
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= BYTES:
            break
    path.write_bytes(buffer.getvalue())
    return quality
