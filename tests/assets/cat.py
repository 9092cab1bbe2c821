"""A cat, drawn hair by hair."""

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
    sample,
    smooth,
)

GINGER = ("5a2410", "a34a17", "d9822f", "f0b062", "fbdda6")
WHITE = ("8d7f86", "cbbfbd", "f0e8df", "fffaf2")
DARK = colour("2a1512")


def fur(image, rng, outline, order, angle, length, coat, count, width=1.1):
    """Hairs in place, rooted within an outline.

    Args:
      image: what is painted on, [h, w, 3].
      outline: points [n, 2].
      order: [h, w], from the hair that is painted first, the lowest value, to the last.
      angle, length: of the hair, [h, w], in radians and pixels.
      coat: colours [h, w, 3].
      count: of hairs to try.
      width: in pixels.
    """
    h, w = order.shape
    inside = np.zeros((h, w), np.float32)
    fill(inside, outline, 1.0)
    image[:] = blend(image, coat * 0.82, inside)
    low, high = outline.min(0), outline.max(0)
    roots = rng.uniform(low, high, (count, 2))
    roots = roots[sample(inside, *roots.T) > 0.5]
    roots = roots[np.argsort(sample(order, *roots.T) + rng.normal(0, 3, len(roots)))]
    clumps = noise(rng, h, w, 14, 2)  # neighbours lean the same way
    for x, y in roots:
        turn = sample(angle, x, y) + 0.28 * sample(clumps, x, y) + rng.normal(0, 0.1)
        long = sample(length, x, y) * rng.uniform(0.6, 1.2)
        bend = turn + rng.normal(0, 0.25)
        tint = sample(coat, x, y) * rng.normal(1, 0.09) + rng.normal(0, 0.012)
        middle = x + 0.5 * long * math.cos(turn), y + 0.5 * long * math.sin(turn)
        tip = middle[0] + 0.5 * long * math.cos(bend), middle[1] + 0.5 * long * math.sin(bend)
        line(image, [(x, y), middle], tint, width, 0.85)
        line(image, [middle, tip], tint * 1.04, 0.6 * width, 0.7)


def room(rng, h, w):
    """What is behind: a garden out of focus, and light upon it."""
    x, y = grid(h, w)
    image = ramp(y / h + 0.16 * noise(rng, h, w, 150, 3), "8fb7b0", "4f8a8a", "2c5f6b", "1c3f4f")
    for _ in range(46):
        px, py, size = rng.uniform(0, w), rng.uniform(-20, 0.8 * h), rng.uniform(10, 34)
        tint = colour(("f6e2a0", "bfe0c8", "7fc0b8", "f2b48a", "5fa58c")[rng.integers(5)])
        fill(image, oval(px, py, size, size), tint, rng.uniform(0.08, 0.3))
        line(image, oval(px, py, size, size), tint, 1.5, 0.12)
    return blur(image, 1.6)


def eye(image, cx, cy, side):
    """An eye in place; `side` is -1 for the left one in the image."""
    x, y = grid(*image.shape[:2])
    shape = [(-31, 8), (-17, -14), (4, -22), (22, -12), (30, 4), (16, 17), (-6, 20), (-22, 16)]
    almond = curve(np.multiply(shape, (side, 1)) * 1.04 + (cx, cy), closed=True)
    fill(image, curve((almond[::8] - (cx, cy)) * (1.2, 1.26) + (cx, cy), closed=True), DARK, 0.9)
    r, turn = np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx)
    rays = 0.06 * np.sin(turn * 37) + 0.05 * np.sin(turn * 23 + 2)
    iris = ramp(np.clip(r / 29 + rays, 0, 1), "e9e27a", "b9cf5a", "7fae4a", "3c6f36", "18321f")
    iris = iris * (0.78 + 0.32 * smooth(cy - 16, cy + 16, y))[..., None]
    fill(image, almond, iris)
    fill(image, oval(cx, cy, 9.5, 18.5), colour("0a0a0c"))
    lid = np.exp(-((np.clip(y - cy + 22, 0, None) / 9) ** 2))
    fill(image, almond, DARK, 0.6 * lid)
    fill(image, oval(cx - 8, cy - 8, 5.5, 6.5), colour("ffffff"), 0.95)
    fill(image, oval(cx + 8, cy + 9, 2.6, 2.6), colour("e6f6ea"), 0.7)


def ear(image, rng, side, light):
    """An ear in place, its inside pink and tufted."""
    h, w = image.shape[:2]
    x, y = grid(h, w)

    def placed(points, n=16):
        return curve(np.multiply(points, (side, 1)) + (240, 0), n)

    outer = placed([(48, 150), (76, 106), (108, 60), (124, 46), (134, 62), (143, 124), (136, 208)])
    inner = placed([(66, 152), (88, 116), (110, 82), (119, 76), (125, 92), (128, 138), (118, 186)])
    up = np.full((h, w), -math.pi / 2 + 0.28 * side)
    tones = ramp(0.52 * light + 0.08 * noise(rng, h, w, 12, 2), *GINGER)
    fur(image, rng, outer, y, up, np.full((h, w), 11.0), tones, 3800)
    fill(image, inner, ramp(smooth(80, 185, y), "e8a493", "c46f66", "7a3a38"), 0.92)
    tuft = placed([(58, 186), (66, 160), (76, 140), (88, 150), (104, 176), (116, 196)])
    pale = ramp(np.full((h, w), 0.72) * light, *WHITE)
    lean = np.full((h, w), -math.pi / 2 + 0.55 * side)
    fur(image, rng, tuft, -y, lean, np.full((h, w), 40.0), pale, 420, 1.0)


def cat(rng, h=640, w=480):
    """A ginger cat with a white bib, before a garden."""
    x, y = grid(h, w)
    image = room(rng, h, w)
    # The body: hair that hangs, darker bands, a white bib.
    body = [(150, 330), (112, 400), (70, 480), (44, 570), (36, 660), (444, 660), (436, 570)]
    body = curve([*body, (410, 480), (368, 400), (330, 330)])
    bib = np.hypot((x - 240) / (62 + 0.12 * (y - 330)), (y - 440) / 190) + 0.1 * noise(
        rng, h, w, 16, 2
    )
    light = 0.72 - 0.32 * (x - 240) / 220 - 0.22 * smooth(470, 640, y)
    light -= 0.4 * np.exp(-(((x - 240) / 150) ** 2) - ((y - 372) / 42) ** 2)
    bands = np.sin((y + 0.5 * np.abs(x - 240)) / 13 + 1.4 * noise(rng, h, w, 60, 2))
    tone = light - 0.3 * smooth(0.1, 0.8, bands) + 0.06 * noise(rng, h, w, 10, 2)
    coat = blend(ramp(tone, *GINGER), ramp(light + 0.12, *WHITE), smooth(1.05, 0.88, bib))
    down = math.pi / 2 - 0.0042 * (x - 240)
    fur(image, rng, body, -y, down, np.full((h, w), 28.0), coat, 15000, 1.2)
    # The head: hair that runs from the bridge of the nose outwards.
    right, under = x - 240, y - 262
    r, turn = np.hypot(right, under), np.arctan2(under, right)
    dome = np.clip(1 - (right / 152) ** 2 - ((y - 258) / 138) ** 2, 0, 1)
    light = 0.5 + 0.28 * np.sqrt(dome) - 0.2 * right / 140 - 0.2 * (y - 250) / 140
    for side in (-1, 1):
        ear(image, rng, side, np.clip(light + 0.35, 0.6, 1.05))
    head = [(240, 128), (306, 140), (358, 186), (376, 246), (386, 292), (352, 338), (296, 374)]
    head = [*head, (240, 386), *[(480 - px, py) for px, py in head[:0:-1]]]
    head = curve(head, closed=True)
    wobble = 0.5 * noise(rng, h, w, 50, 2)
    brow = smooth(-40, -70, under) * smooth(0.3, 0.75, np.cos(turn * 15 + wobble))
    away = np.abs(right)
    cheek = smooth(76, 96, away) * smooth(
        0.25, 0.8, np.sin((under - 0.0016 * (away - 70) ** 2) / 6.4 + 1 + wobble)
    )
    rings = np.exp(-((np.hypot((away - 54) / 44, (y - 236) / 36) - 1) ** 2) / 0.03)
    tone = light - 0.34 * np.maximum(brow, cheek) + 0.17 * rings + 0.05 * noise(rng, h, w, 8, 2)
    muzzle = np.minimum(
        np.hypot((away - 27) / 44, (y - 322) / 34), np.hypot(right / 66, (y - 352) / 36)
    )
    blaze = np.hypot(right / (9 + 0.16 * np.clip(y - 190, 0, None)), (y - 270) / 66)
    pale = np.minimum(muzzle, blaze) + 0.06 * noise(rng, h, w, 9, 2)
    coat = blend(ramp(tone, *GINGER), ramp(light + 0.22, *WHITE), smooth(1.04, 0.9, pale))
    fall = np.arctan2(under + 0.25 * away * (under > 0), right)
    fur(image, rng, head, -r, fall, 5 + 0.125 * r, coat, 26000, 1.0)
    for side in (-1, 1):
        eye(image, 240 + 55 * side, 240, side)
    # Nose, mouth and whiskers.
    nose = curve(
        [(222, 288), (240, 285), (258, 288), (252, 301), (240, 309), (228, 301)], closed=True
    )
    shade = np.zeros((h, w), np.float32)
    fill(shade, nose + (0, 5), 1.0)
    image = blend(image, DARK, 0.35 * blur(shade, 4))
    fill(image, nose, ramp(smooth(284, 309, y), "f0a79a", "d9786e", "a84a4a"))
    fill(image, oval(234, 290.5, 6, 2), colour("ffe0d8"), 0.6)
    for side in (-1, 1):
        fill(image, oval(240 + 8 * side, 300, 4.2, 2.3, 0.5 * side), colour("5a1f22"), 0.85)
        mouth = curve(np.multiply([(0, 20), (6, 30), (20, 36), (36, 31)], (side, 1)) + (240, 304))
        line(image, mouth, colour("5a3230"), 2, 0.8)
    line(image, [(240, 308), (240, 326)], colour("5a3230"), 2, 0.8)
    for side in (-1, 1):
        for k in range(7):
            root = np.array([240 + side * (30 + 5 * (k % 3)), 312 + 4.5 * k])
            line(image, oval(*root, 1.3, 1.1, n=8), colour("6a4a40"), 1, 0.8)
            reach, drop = rng.uniform(110, 165), -34 + 15 * k + rng.normal(0, 4)
            path = [(0, 0), (0.5 * reach * side, 0.34 * drop - 9), (reach * side, drop)]
            whole = curve(np.add(path, root), 12)
            for piece, wide in ((whole[:13], 1.5), (whole[12:], 0.9)):
                line(image, piece, colour("fffaf0"), wide, 0.85)
        for k in range(3):
            path = [
                (0, 0),
                (12 * side + 5 * k * side, -40),
                (34 * side + 12 * k * side, -74 + 6 * k),
            ]
            line(
                image,
                curve(np.add(path, (240 + side * (44 + 9 * k), 206))),
                colour("fffaf0"),
                0.9,
                0.7,
            )
    glow = np.exp(-((x / 190) ** 2) - (y / 330) ** 2)
    return image + 0.07 * glow[..., None] * colour("ffe9b8")
