"""A cartoon portrait."""

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
    smooth,
)


def strands(image, rng, outline, count, shades):
    """Locks of hair in place, waves that fall from a parting within an outline."""
    inside = np.zeros(image.shape[:2], np.float32)
    fill(inside, outline, 1.0)
    painted = image.copy()
    for _ in range(count):
        start = rng.uniform(-1, 1)
        t = np.linspace(0, 1, 24)
        wave = 9 * np.sin(t * 15 + 2 * abs(start) + rng.normal(0, 0.3)) * t * np.sign(start)
        bx = 262 + start * (24 + 160 * t**0.4) + wave
        by = 72 + 30 * start**2 + 370 * t**1.25
        line(
            painted,
            np.stack([bx, by], -1),
            colour(shades[rng.integers(len(shades))]),
            rng.uniform(0.8, 2.6),
            0.7,
        )
    image[:] = blend(image, painted, inside)


def portrait(rng, size=512):
    """A woman with wavy hair, drawn flat with soft shadows, in the manner of the embedded portraits."""
    x, y = grid(size, size)
    image = ramp(np.hypot((x - 256) / 420, (y - 215) / 420), "fbead0", "f3cfa6", "e59f7c", "b5657a")
    for k in range(9):  # a low sun behind her
        fill(image, oval(256, 215, 250 - 24 * k, 250 - 24 * k), colour("fff2cf"), 0.07)
    skin, dark, hair = colour("e8ab7f"), colour("b9704f"), colour("6b2a1e")

    def part(points, paint, edge="", soft=0.0, shift=(0, 0), shade=0.4):
        """A flat shape, darker away from the light at the upper left where `soft`."""
        fill(image, points, paint)
        if soft:
            inner = np.zeros((size, size), np.float32)
            fill(inner, np.asarray(points) - shift, 1.0)
            fill(image, points, colour(edge), shade * (1 - np.clip(blur(inner, soft), 0, 1)))

    def shadow(points, shift, soft, alpha, within=None):
        mask = np.zeros((size, size), np.float32)
        fill(mask, np.asarray(points) + shift, 1.0)
        mask = blur(mask, soft) * alpha
        if within is not None:
            limit = np.zeros_like(mask)
            fill(limit, within, 1.0)
            mask = mask * limit
        image[:] = blend(image, image * colour("7d4650"), mask)

    back = curve(
        [
            (256, 66),
            (340, 82),
            (386, 150),
            (392, 235),
            (424, 300),
            (404, 366),
            (420, 420),
            (340, 440),
            (256, 420),
            (172, 440),
            (92, 420),
            (110, 366),
            (88, 300),
            (120, 235),
            (126, 150),
            (172, 82),
        ],
        closed=True,
    )
    shadow(back, (16, 14), 16, 0.35)
    part(back, hair, "2a0d12", 22, (12, 12), 0.8)
    strands(image, rng, back, 330, ("4b1a16", "8a3a24", "a8502c", "5a2019"))
    shirt = curve(
        [
            (70, 530),
            (84, 452),
            (140, 408),
            (214, 386),
            (298, 386),
            (372, 408),
            (428, 452),
            (442, 530),
        ]
    )
    neck = curve(
        [(212, 320), (216, 372), (196, 398), (256, 436), (316, 398), (296, 372), (300, 320)]
    )
    part(shirt, colour("1f6f78"), "0b2f42", 26, (10, 10), 0.85)
    part(neck, skin, "b9704f", 16, (8, 4), 0.6)
    collar = curve(
        [
            (186, 394),
            (214, 424),
            (256, 442),
            (298, 424),
            (326, 394),
            (318, 386),
            (294, 412),
            (256, 424),
            (218, 412),
            (194, 386),
        ],
        closed=True,
    )
    part(collar, colour("f4d9a0"), "b98a4a", 6, (3, 3), 0.6)
    for k in range(10):  # a patterned jumper
        for row in range(4):
            px, py = 100 + 35 * k + 17 * (row % 2), 452 + 20 * row
            fill(
                image,
                [(px, py - 6), (px + 7, py), (px, py + 6), (px - 7, py)],
                colour(("f4b942", "e8664a")[row % 2]),
                0.9,
            )
    face = curve(
        [
            (256, 120),
            (318, 134),
            (346, 190),
            (344, 250),
            (326, 306),
            (290, 346),
            (256, 358),
            (222, 346),
            (186, 306),
            (168, 250),
            (166, 190),
            (194, 134),
        ],
        closed=True,
    )
    shadow(face, (6, 22), 9, 0.75, neck)
    for side in (-1, 1):
        part(
            oval(256 + 90 * side, 246, 17, 25, -0.15 * side), skin * 0.97, "b9704f", 6, (3, 0), 0.7
        )
        line(
            image,
            oval(
                256 + 91 * side, 247, 8, 14, 0, 1.8 if side > 0 else -1.2, 4.6 if side > 0 else 1.4
            ),
            dark,
            2,
            0.7,
        )
        fill(image, oval(256 + 93 * side, 281, 7, 7), colour("f0c24a"))
        fill(image, oval(254 + 93 * side, 279, 2.4, 2.4), colour("fff6d8"))
    part(face, skin, "a8583f", 24, (15, 8), 0.62)
    glow = np.exp(-(((x - 222) / 70) ** 2) - ((y - 200) / 80) ** 2)
    image[:] = blend(image, colour("ffd9b0"), 0.28 * glow)
    for side in (-1, 1):
        cx = 256 + 41 * side
        blush = np.exp(-(((x - 256 - 56 * side) / 24) ** 2) - ((y - 283) / 17) ** 2)
        image[:] = blend(image, colour("e2604f"), 0.42 * blush)
        white = curve(
            [
                (cx - 23, 236),
                (cx - 10, 223),
                (cx + 8, 222),
                (cx + 22, 234),
                (cx + 8, 246),
                (cx - 10, 247),
            ],
            closed=True,
        )
        shadow(white, (0, -5), 5, 0.5)
        part(white, colour("fdf8ef"), "8a7a86", 4, (0, -5), 0.6)
        fill(image, oval(cx, 234, 11.5, 11.5), colour("1f4b3f"))
        fill(image, oval(cx, 235, 9.5, 9.5), ramp(smooth(226, 244, y), "2a6a54", "6cb486"))
        fill(image, oval(cx, 234, 5, 5), colour("0d0f12"))
        fill(image, oval(cx - 4, 229.5, 3.2, 3.2), colour("ffffff"))
        fill(image, oval(cx + 4, 238.5, 1.6, 1.6), colour("d9f2e6"))
        line(
            image,
            curve([(cx - 24, 237), (cx - 10, 223), (cx + 8, 221), (cx + 24, 233)]),
            colour("2a1214"),
            4,
        )
        line(image, curve([(cx - 16, 216), (cx, 211), (cx + 17, 217)]), dark, 1.6, 0.6)
        for k in range(4):
            bx = cx + side * (12 + 4 * k)
            line(image, [(bx, 224 + 2.5 * k), (bx + side * 5, 218 + 2.5 * k)], colour("2a1214"), 2)
        brow = curve(
            [
                (cx - 26 * side, 203),
                (cx - 4 * side, 192),
                (cx + 26 * side, 201),
                (cx - 2 * side, 199),
            ],
            closed=True,
        )
        fill(image, brow, colour("55211a"))
    shadow(curve([(258, 232), (276, 282), (262, 292), (250, 288)], closed=True), (5, 2), 5, 0.34)
    line(image, curve([(262, 246), (272, 276), (266, 288), (250, 290)]), dark, 2.6, 0.75)
    fill(image, oval(252, 276, 7, 5), colour("ffe2c0"), 0.45)
    upper = curve(
        [(216, 306), (240, 304), (256, 309), (272, 304), (296, 306), (256, 319)], closed=True
    )
    mouth = curve(
        [(216, 306), (256, 312), (296, 306), (280, 326), (256, 334), (232, 326)], closed=True
    )
    part(mouth, colour("c2413f"), "7a1f2a", 5, (2, 4), 0.6)
    fill(
        image,
        curve(
            [(226, 310), (256, 315), (286, 310), (274, 321), (256, 325), (238, 321)], closed=True
        ),
        colour("fffaf2"),
    )
    part(upper, colour("a8302f"), "6a1522", 4, (2, 3), 0.5)
    line(image, [(243, 328), (262, 329)], colour("f0a090"), 2, 0.8)
    shadow(mouth, (0, 15), 6, 0.28, face)
    fringe = curve(
        [
            (166, 236),
            (152, 170),
            (178, 104),
            (256, 82),
            (334, 100),
            (362, 168),
            (347, 240),
            (336, 196),
            (306, 158),
            (268, 142),
            (226, 172),
            (184, 190),
        ],
        closed=True,
    )
    shadow(fringe, (5, 13), 8, 0.6, face)
    part(fringe, hair * 1.08, "2a0d12", 12, (8, 8), 0.75)
    strands(image, rng, fringe, 150, ("5a2019", "8f3f26", "b86034", "4b1a16"))
    for k, (px, py) in enumerate(((322, 118), (342, 136), (304, 106))):  # flowers in the hair
        for j in range(6):
            turn = j * math.pi / 3 + k
            part(
                oval(px + 9 * math.cos(turn), py + 9 * math.sin(turn), 8, 5.5, turn),
                colour(("fbe3ea", "f6c24a", "e8664a")[k]),
                "8a3a50",
                3,
                (2, 2),
                0.5,
            )
        fill(image, oval(px, py, 5, 5), colour(("f0a92a", "8a3a24", "f9e0a0")[k]))
    return image + 0.012 * noise(rng, size, size, 3, 2)[..., None]
