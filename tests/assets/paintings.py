"""Styles that are painted: strokes of a brush along a field of directions."""

import math

import numpy as np

from tests.assets.canvas import (
    blend,
    blur,
    colour,
    curve,
    fill,
    grid,
    line,
    noise,
    oval,
    ramp,
    relief,
    sample,
    smooth,
)


def dab(image, height, at, angle, bend, size, paint, bristles):
    """One stroke of a brush, in place: ragged ends, and furrows of the bristles in its height.

    Args:
      image, height: what is painted on, [h, w, 3] and [h, w].
      at, angle, bend, size: its middle, direction, curvature in 1 / pixels, and (length, width).
      paint: colour [3].
      bristles: their pressure across the stroke, [n] of deviation 1.
    """
    length, width = size
    reach = int(max(length, width) / 2 + 3)
    x0, y0 = max(int(at[0]) - reach, 0), max(int(at[1]) - reach, 0)
    box = slice(y0, max(int(at[1]) + reach, 0)), slice(x0, max(int(at[0]) + reach, 0))
    under = image[box]
    if not under.size:
        return
    x, y = grid(*under.shape[:2])
    x, y = x + (x0 - at[0]), y + (y0 - at[1])
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle) - bend * along**2 / 2
    where = np.clip((across / width + 0.5) * len(bristles), 0, len(bristles) - 1).astype(int)
    pressure = bristles[where]
    rim = np.abs(across) / (width / 2)
    ends = (length / 2 - np.abs(along) + pressure * width * 0.25) / (width * 0.35)
    alpha = np.clip((1 - rim) * width / 2.4, 0, 1) * np.clip(ends, 0, 1)
    thick = 0.9 + 0.35 * pressure + 0.5 * rim**2 + 0.4 * along / length
    tint = paint + (0.035 * pressure + 0.03 * along / length)[..., None]
    image[box] = blend(under, tint, alpha)
    height[box] += alpha * (0.35 * height[box] + thick - height[box])


def brushwork(rng, target, angle, layers):
    """Paints a target [h, w, 3] with strokes that follow angles [h, w]; layers of (step, length, width, stir)."""
    h, w = angle.shape
    image, height = target * 0.8, np.zeros((h, w), np.float32)
    for step, length, width, stir in layers:
        at = np.mgrid[0 : h + step : step, 0 : w + step : step].reshape(2, -1).T[:, ::-1]
        at = rng.permutation(at + rng.uniform(-0.6, 0.6, at.shape) * step)
        for x, y in at:
            turn = sample(angle, x, y)
            far = 0.4 * length
            ahead = sample(angle, x + far * math.cos(turn), y + far * math.sin(turn))
            back = sample(angle, x - far * math.cos(turn), y - far * math.sin(turn))
            bend = math.remainder(ahead - back, 2 * math.pi) / (2 * far)
            bend = float(np.clip(bend, -1.2 / length, 1.2 / length))
            bristles = rng.standard_normal(max(int(width * 1.2), 3))
            paint = sample(target, x, y) + stir * rng.standard_normal() * np.array([1, 0.9, 0.7])
            paint = paint + 0.4 * stir * rng.standard_normal(3)
            long = length * rng.uniform(0.7, 1.2), width * rng.uniform(0.75, 1.2)
            dab(image, height, (x, y), turn + rng.normal(0, 0.06), bend, long, paint, bristles)
    light = relief(blur(height, 0.6), 0.8)
    return (
        image * (0.35 + 0.65 * light)[..., None] + 0.12 * (np.clip(light - 1.25, 0, 1))[..., None]
    )


def strokes(rng, h=480, w=640):
    """A night sky of swirling thick strokes above hills and a cypress."""
    x, y = grid(h, w)
    x, y = x * 640 / w, y * 480 / h
    u, v = np.ones_like(x), 0.35 * np.cos(x / 70)
    tone = 0.42 + 0.16 * noise(rng, h, w, (26 * h / 480, 150 * w / 640), 3) - 0.0004 * (y - 200)
    warm = np.zeros_like(x)
    for cx, cy, size, turn in ((265, 185, 95, 1), (425, 225, 68, -1), (120, 250, 50, -1)):
        dx, dy = x - cx, y - cy
        r = np.hypot(dx, dy) + 1
        pull = 5 * np.exp(-((r / size) ** 2))
        u += pull * (-turn * dy / r + 0.25 * dx / r)
        v += pull * (turn * dx / r + 0.25 * dy / r)
        arms = np.sin(turn * 2 * np.arctan2(dy, dx) - r / size * 7)
        tone += np.exp(-((r / size) ** 2)) * (0.22 * arms + 0.08)
    stars = (
        (545, 80, 40),
        (90, 70, 21),
        (205, 55, 15),
        (330, 50, 19),
        (415, 105, 13),
        (48, 165, 14),
        (600, 205, 16),
        (500, 170, 11),
        (185, 120, 11),
    )
    for cx, cy, size in stars:
        dx, dy = x - cx, y - cy
        r = np.hypot(dx, dy) + 1
        pull = 9 * np.exp(-((r / (2.2 * size)) ** 2))
        u, v = u - pull * dy / r, v + pull * dx / r
        glow = np.exp(-((r / (1.5 * size)) ** 2))
        tone += glow * (0.55 + 0.14 * np.cos(r / size * 5.5))
        warm += np.exp(-((r / (1.1 * size)) ** 2)) * 1.3
    angle = np.arctan2(v, u)
    sky = ramp(tone, "0d1b4a", "1c3a86", "2f62b5", "6fa3cf", "b9d6d0", "e6e7b4")
    sky = blend(sky, ramp(tone - 0.2, "c98a12", "eeb420", "ffe27a"), np.clip(warm, 0, 1))
    for k, (base, rise, shades) in enumerate(
        (
            (330, 26, ("1b2f66", "3b66a0", "7ea6b8")),
            (375, 22, ("16343f", "2f6a5e", "8fa85a")),
            (425, 16, ("1a2b2c", "55692c", "c9a83e")),
        )
    ):
        top = base + rise * np.sin(x / (75 + 20 * k) + 1.7 * k) + 8 * np.sin(x / 31 + k)
        inside = smooth(-2, 2, y - top)
        lit = (
            0.5
            + 0.45 * np.sin((y - top) / 7 + np.sin(x / 40) * 2) * 0.5
            + 0.4 * noise(rng, h, w, 30, 2)
        )
        sky = blend(sky, ramp(lit - 0.1, *shades), inside)
        slope = np.arctan(rise / (75 + 20 * k) * np.cos(x / (75 + 20 * k) + 1.7 * k))
        angle = np.where(inside > 0.5, slope + 0.25 * np.sin((y - top) / 18), angle)
    reach = np.clip((y - 95) / 385, 0, 1)
    lean = 78 + 7 * np.sin(y / 27) + 4 * np.sin(y / 11)
    flame = (np.abs(x - lean) < 44 * reach**0.8 + 9 * np.sin(y / 15) * reach) & (y > 95)
    dark = ramp(0.5 + 0.5 * np.sin(x / 5 + np.sin(y / 20) * 2), "0c1a16", "1f3a22", "4a4a1e")
    sky = np.where(flame[..., None], dark, sky)
    angle = np.where(flame, math.pi / 2 + 0.4 * np.sin(y / 22 + x / 30), angle)
    scale = w / 640
    layers = (
        (13 * scale, 46 * scale, 13 * scale, 0.05),
        (8 * scale, 26 * scale, 6.5 * scale, 0.06),
    )
    return brushwork(rng, sky, angle, layers)


def split(rng, polygon, small):
    """Facets of a polygon, cut by straight lines of few directions until each is about `small` square pixels."""
    done, todo = [], [np.asarray(polygon, float)]
    while todo:
        p = todo.pop()
        q = np.roll(p, -1, 0)
        area = abs((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / 2
        if area < small * rng.uniform(0.5, 2.2):
            done.append(p)
            continue
        turn = rng.choice([0.25, 1.1, 1.75, 2.6]) + rng.normal(0, 0.16)
        normal = np.array([-math.sin(turn), math.cos(turn)])
        middle = p.mean(0) + rng.normal(0, 0.09, 2) * math.sqrt(area)
        side, beyond = (p - middle) @ normal, (q - middle) @ normal
        halves = [], []
        for a, b, s, t in zip(p, q, side, beyond, strict=True):
            halves[int(s > 0)].append(a)
            if (s > 0) != (t > 0):
                cut = a + (b - a) * s / (s - t)
                halves[0].append(cut)
                halves[1].append(cut)
        if min(len(x) for x in halves) < 3:
            todo.append(p)
            continue
        todo += [np.array(x) for x in halves]
    return done


def planes(rng, h=640, w=480):
    """A guitar and a bottle taken apart into facets, ochre, grey and blue, with dark contours."""
    x, y = grid(h, w)
    image = np.zeros((h, w, 3), np.float32) + colour("8c7a5a")
    angle = np.zeros((h, w), np.float32)
    ochre = ("2a2118", "6a4f2b", "b08a4a", "dcc083", "f0e3bd")
    grey = ("20242a", "4c5358", "868a84", "b9b8a8", "e0dcc8")
    blue = ("141d2b", "2c4560", "5d7d94", "9fb3b5", "d8dccb")
    facets = split(rng, [(-9, -9), (w + 9, -9), (w + 9, h + 9), (-9, h + 9)], 2300)
    for p in facets:
        cx, cy = p.mean(0)
        heart = math.exp(-(((cx - 0.5 * w) / 170) ** 2 + ((cy - 0.52 * h) / 230) ** 2))
        shades = (ochre, grey, blue)[
            rng.choice(3, p=np.array([0.25 + 0.4 * heart, 0.4 - 0.15 * heart, 0.35 - 0.25 * heart]))
        ]
        k = rng.integers(len(p))
        edge = p[(k + 1) % len(p)] - p[k]
        normal = np.array([-edge[1], edge[0]]) / (np.hypot(*edge) + 1e-6)
        reach = (p - p[k]) @ normal
        far = reach[np.abs(reach).argmax()] or 1.0
        t = ((x - p[k][0]) * normal[0] + (y - p[k][1]) * normal[1]) / far
        light = 0.16 + 0.38 * heart + rng.normal(0, 0.09)
        fill(image, p, ramp(np.clip(light + 0.5 * np.clip(t, 0, 1) ** 1.3, 0, 1), *shades))
        flat = np.zeros((h, w), np.float32)
        fill(flat, p, 1.0)
        angle = np.where(flat > 0.5, math.atan2(edge[1], edge[0]), angle)
    image = brushwork(rng, image, angle, ((7, 17, 7, 0.022), (5, 11, 4.5, 0.03)))
    ink = colour("17130f")
    shade = np.zeros((h, w), np.float32)
    for p in facets:
        k = rng.integers(len(p))
        for j in range(len(p)):
            a, b = p[j], p[(j + 1) % len(p)]
            strong = 0.9 if (j - k) % len(p) < 2 else 0.35
            line(image, [a, b], ink, 1.0 + 2.2 * strong * rng.uniform(0.4, 1), strong)
            line(shade, [a, b], 1.0, 4)
    body = [
        (205, 285),
        (165, 330),
        (190, 385),
        (150, 450),
        (190, 540),
        (270, 560),
        (345, 525),
        (350, 445),
        (300, 390),
        (315, 325),
        (275, 280),
    ]
    outline = curve(body, closed=True)
    for shift, width, alpha in (((0, 0), 4, 0.95), ((16, -11), 2.2, 0.6), ((-19, 14), 1.8, 0.5)):
        n = len(outline)
        for start, stop in ((0, 0.3), (0.36, 0.62), (0.68, 0.97)):
            line(image, outline[int(start * n) : int(stop * n)] + shift, ink, width, alpha)
    fill(image, oval(255, 425, 36, 33, 0.4), ink, 0.85)
    fill(image, oval(261, 420, 31, 28, 0.4, -0.6, 1.9), colour("5b3b1c"), 0.8)
    line(image, oval(255, 425, 45, 42, 0.4, 0.4, 4.4), ink, 2.4)
    fill(image, [(222, 290), (262, 286), (238, 60), (212, 64)], colour("3a2a1a"), 0.75)
    for k in range(6):
        a, b = np.array([228 + 6 * k, 505 - 2 * k]), np.array([213 + 4.6 * k, 62])
        line(image, [a, b], colour("efe4c4") if k % 2 else ink, 1.1, 0.85)
    for k in range(9):
        line(
            image,
            [(215 + 0.6 * k, 85 + 24 * k), (243 + 2 * k, 81 + 24 * k)],
            colour("d9c79a"),
            1.4,
            0.8,
        )
    fill(image, [(206, 492), (292, 480), (296, 494), (210, 506)], ink, 0.85)
    bottle = [
        (372, 250),
        (372, 160),
        (386, 140),
        (388, 70),
        (408, 70),
        (410, 140),
        (426, 162),
        (428, 340),
        (372, 348),
    ]
    fill(
        image,
        bottle,
        ramp(np.clip((x - 372) / 56, 0, 1), "0f2019", "2c5a48", "8fb09a", "1e3a30"),
        0.6,
    )
    line(image, [*bottle, bottle[0]], ink, 3.2)
    fill(image, [(374, 215), (426, 208), (427, 275), (375, 283)], colour("e9dfc0"), 0.9)
    for k in range(6):
        line(image, [(380, 225 + 8 * k), (380 + rng.uniform(20, 40), 224 + 8 * k)], ink, 1.5, 0.8)
    sheet = [(60, 470), (150, 440), (175, 560), (88, 596)]
    fill(image, sheet, colour("e8dfc4"), 0.8)
    line(image, [*sheet, sheet[0]], ink, 2)
    for k in range(5):
        line(image, [(72 + 3 * k, 486 + 20 * k), (150 + 4 * k, 460 + 20 * k)], ink, 1, 0.8)
        fill(image, oval(85 + 14 * k, 490 + 17 * k, 5, 3.6, -0.4, n=16), ink)
    image = blend(image, image * 0.72, np.clip(blur(shade, 4), 0, 1))
    return image + 0.025 * noise(rng, h, w, 3, 2)[..., None]
