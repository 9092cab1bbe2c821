"""A town by the water."""

import math

import numpy as np

from tests.assets.canvas import (
    blend,
    blur,
    box,
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

WHITE, DARK = colour("f3eee2"), colour("241f28")
QUAY, WATER = 292, 312  # heights in the image, of the pavement and of the water


def window(image, rng, cx, cy, shutter):
    """One window in place, some lit, some with flowers; `shutter` is a colour, or None."""
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    a, b = 6.2, 11.5
    fill(image, box(cx - a - 1.8, cy - b - 1.8, cx + a + 1.8, cy + b + 1.8), WHITE)
    lit = rng.uniform() < 0.16
    shades = ("ffe9a8", "f6b84e") if lit else ("a9c4d6", "3f5a70", "1f2d3a")
    pane = ramp(np.clip((y - cy + b) / (2 * b) + 0.2 * np.sin(x * 0.4 + cy), 0, 1), *shades)
    fill(image, box(cx - a, cy - b, cx + a, cy + b), pane)
    line(image, [(cx, cy - b), (cx, cy + b)], WHITE, 1.2)
    line(image, [(cx - a, cy - 3), (cx + a, cy - 3)], WHITE, 1.2)
    fill(image, box(cx - a, cy - b, cx + a, cy - b + 2.6), DARK, 0.5)
    if shutter is not None:
        slats = shutter * (0.85 + 0.15 * np.sin(y * 2.1) + 0 * x)[..., None]
        for sx in (cx - a - 5, cx + a + 5):
            fill(image, box(sx - 3, cy - b - 1, sx + 3, cy + b + 1), slats)
    sill = [(-a - 3, b + 1.5), (a + 3, b + 1.5), (a + 5, b + 5), (-a, b + 5)]
    fill(image, np.add(sill, (cx, cy)), DARK, 0.3)
    if rng.uniform() < 0.3:
        for _ in range(9):
            tint = colour(("d94a58", "f3a0b0", "4f8a3c", "6aa84a")[rng.integers(4)])
            px, py = cx + rng.uniform(-8, 8), cy + b + rng.uniform(-2, 3)
            fill(image, oval(px, py, 1.9, 1.9, n=10), tint)


def roofed(image, rng, x0, x1, ground, top, plaster, roof, kind):
    """Walls and roof of a house in place; returns the height of its ridge."""
    x, y = grid(*image.shape[:2])
    wide, middle = x1 - x0, (x0 + x1) / 2
    if kind == "step":
        left = [(x0, ground), (x0, top)]
        for k in range(4):
            left += [
                (x0 + 0.11 * wide * k, top - 13 * k),
                (x0 + 0.11 * wide * k, top - 13 * k - 13),
            ]
        outline = left + [(x0 + x1 - px, py) for px, py in left[::-1]]
        fill(image, outline, plaster)
        line(image, outline[1:-1], colour("e9e0cf"), 2.4)
        return top - 52
    if kind == "gable":
        peak = top - 0.62 * wide
        tiles = 0.8 + 0.25 * np.sin(y * 1.25) + 0.12 * noise(rng, *y.shape, 5, 2)
        fill(image, [(x0, ground), (x0, top), (middle, peak), (x1, top), (x1, ground)], plaster)
        eaves = np.array([(x0 - 4, top + 3), (middle, peak - 2), (x1 + 4, top + 3)])
        line(image, eaves, colour(roof) * tiles[..., None], 6)
        line(image, eaves + (0, 5), DARK, 2.5, 0.35)
        return peak
    peak = top - 34
    tiles = (
        0.86 + 0.14 * np.sin(y * 1.5) + 0.07 * np.sin(x * 1.3) + 0.1 * noise(rng, *y.shape, 6, 3)
    )
    fill(image, box(x0, top, x1, ground), plaster)
    slope = [(x0 - 3, top), (x0 + 9, peak), (x1 - 9, peak), (x1 + 3, top)]
    fill(image, slope, colour(roof) * tiles[..., None])
    line(image, slope[1:3], colour(roof) * 1.25, 1.6)
    fill(image, [(x0, top), (x1, top), (x1, top + 9), (x0, top + 4)], DARK, 0.4)
    for share in (0.3, 0.7) if wide > 70 else (0.5,):  # dormers
        at = (x0 + wide * share, top)
        front = np.add([(-9, -4), (-9, -20), (0, -29), (9, -20), (9, -4)], at)
        fill(image, front, plaster * 0.97)
        line(image, np.add([(-11, -19), (0, -30), (11, -19)], at), colour(roof) * 0.75, 2.6)
        fill(image, box(at[0] - 4.5, top - 18, at[0] + 4.5, top - 6), colour("26323f"))
    return peak


def house(image, rng, x0, x1, ground, tall, wall, roof, kind):
    """One house of a row in place, lit from the left; `kind` of its roof: step, gable or flat."""
    x, y = grid(*image.shape[:2])
    wide, top = x1 - x0, ground - tall
    worn = (
        0.93 + 0.05 * noise(rng, *x.shape, (18, 14), 4) - 0.16 * smooth(ground - 26, ground + 4, y)
    )
    plaster = colour(wall) * (worn * (1.04 - 0.12 * (x - x0) / wide))[..., None]
    peak = roofed(image, rng, x0, x1, ground, top, plaster, roof, kind)
    cx = x0 + wide * rng.uniform(0.6, 0.8)
    if kind != "step":
        bricks = colour("8a4a3a") * (0.9 + 0.15 * np.sin(y * 2))[..., None]
        fill(image, box(cx - 5, peak - 12, cx + 5, peak + 16), bricks)
        fill(image, box(cx - 6.5, peak - 14, cx + 6.5, peak - 10.5), DARK)
    columns, rows = max(int(wide / 27), 2), max(int((tall - 46) / 38), 1)
    shutter = colour(("2f5d50", "35506b", "7a3a30", "e8e2d2")[rng.integers(4)])
    for r in range(rows):
        for c in range(columns):
            at = x0 + wide * (c + 0.5) / columns, top + 26 + 38 * r
            window(image, rng, *at, shutter if wide / columns > 25 else None)
    at = (x0 + wide * (0.3 if wide > 60 else 0.5), ground)
    fill(image, np.add([(-9, 0), (-9, -27), (0, -33), (9, -27), (9, 0)], at), WHITE)
    fill(image, np.add([(-7, 0), (-7, -25), (0, -30), (7, -25), (7, 0)], at), shutter * 0.85)
    line(image, [at, (at[0], ground - 28)], shutter * 0.5, 1)
    if wide > 60:  # a shop window and its awning
        a, b = at[0] + 16, x1 - 7
        shop = ramp(np.clip((x - a) / (b - a), 0, 1), "4d3a2a", "f0c878", "5a4a3c")
        fill(image, box(a, ground - 26, b, ground - 4), shop)
        step = (b - a) / 6
        for k in range(6):
            cloth = [(0, -34), (step, -34), (step + 1, -22), (step / 2, -19), (-1, -22)]
            tint = WHITE if k % 2 else colour("c8453a")
            fill(image, np.add(cloth, (a + step * k, ground)), tint)
    fill(image, box(x1 - 3, top, x1, ground), DARK, 0.35)


def boat(image, x, water, long, hull, sail=""):
    """A boat in place: under sail, in that colour, or with a cabin."""
    gx, gy = grid(*image.shape[:2])
    wood = colour("5a3d26")
    if sail:
        tall = 1.25 * long
        line(image, [(x, water - 8), (x, water - tall)], wood, 2.4)
        main = [(3, -18), (3, 6 - tall), (0.26 * long, -0.5 * tall), (0.44 * long, -20)]
        jib = [(-3, -20), (-3, 12 - tall), (-0.2 * long, -0.5 * tall), (-0.4 * long, -16)]
        belly = 0.86 + 0.16 * np.sin((gx - x) / long * 9 + (gy - water) / 90)
        for points, tint in ((main, sail), (jib, "f3e8d0")):
            edge = curve(np.add(points, (x, water)), 8)
            fill(image, edge, colour(tint) * belly[..., None])
            line(image, edge, DARK, 0.8, 0.6)
    else:
        mast = x + 0.1 * long
        line(image, [(mast, water - 8), (mast, water - 0.95 * long)], wood, 2)
        for end in (0.45, -0.45):
            line(image, [(mast, water - 0.9 * long), (x + end * long, water - 13)], DARK, 0.7, 0.8)
        shade = 1.02 - 0.25 * (gx - x + 0.22 * long) / (0.28 * long)
        cabin = [(-0.22 * long, -10), (-0.2 * long, -29), (0.03 * long, -29), (0.06 * long, -10)]
        fill(image, np.add(cabin, (x, water)), WHITE * shade[..., None])
        for left in (x - 0.17 * long, x - 0.17 * long + 11):
            fill(image, box(left, water - 25, left + 8, water - 18), colour("33475a"))
    deck = [(-0.5 * long, -17), (-0.1 * long, -10), (0.5 * long + 5, -19)]
    keel = [(0.38 * long, 3), (-0.42 * long, 3)]
    tint = colour(hull) * (1.08 - 0.35 * smooth(water - 16, water + 3, gy))[..., None]
    fill(image, curve(np.add(deck + keel, (x, water)), 10), tint)
    line(image, curve(np.add(deck, (x, water)), 10), colour("f6efdd"), 2)
    line(image, curve(np.add(deck, (x, water + 6)), 10)[2:-2], DARK, 0.8, 0.6)


def tower(image, rng):
    """The church tower in place."""
    x, y = grid(*image.shape[:2])
    dark = colour("2a2a33")
    light = 1.05 - 0.3 * np.clip((x - 428) / 36, 0, 1) + 0.05 * noise(rng, *x.shape, 8, 3)
    fill(image, box(428, 96, 464, QUAY), colour("d9c9a8") * light[..., None])
    copper = colour("4f7a72") * (1.15 - 0.5 * np.clip((x - 430) / 34, 0, 1))[..., None]
    fill(image, [(424, 98), (446, 22), (468, 98)], copper)
    line(image, [(446, 24), (446, 8)], colour("c9a24a"), 1.6)
    fill(image, oval(446, 122, 11, 11), colour("f6f0de"))
    line(image, oval(446, 122, 11, 11), dark, 1.6)
    line(image, [(446, 114), (446, 122), (452, 125)], dark, 1.6)
    for cx in (438, 454):
        arch = oval(cx, 152, 4, 6, 0, math.pi, n=12)
        fill(image, [*arch, *box(cx - 4, 152, cx + 4, 172)[2:]], dark)


def quay(image, rng):
    """The wall of the quay in place, with lamps and people."""
    x, y = grid(*image.shape[:2])
    stone = ramp(0.5 + 0.2 * noise(rng, *x.shape, (6, 14), 3), "6a625c", "98908a", "c4bcb0")
    course = (y - QUAY + 8) / 9
    joint = (course % 1 < 0.11) | (np.abs((x + 11 * (np.floor(course) % 2)) % 22) < 1)
    stone = stone * np.where(joint, 0.7, 1.0)[..., None]
    stone = stone * (1 - 0.5 * smooth(QUAY, WATER, y))[..., None]
    fill(image, box(-5, QUAY - 8, image.shape[1] + 5, WATER), stone)
    fill(image, box(-5, QUAY - 9, image.shape[1] + 5, QUAY - 4), colour("d6cdbd"))
    for px in range(24, image.shape[1], 74):
        fill(image, box(px - 3, QUAY - 15, px + 3, QUAY - 8), DARK)
    for px in (150, 344, 500, 612):
        line(image, [(px, QUAY - 8), (px, QUAY - 52)], DARK, 1.8)
        fill(image, oval(px, QUAY - 55, 4, 5.5), colour("ffeeb8"))
        line(image, oval(px, QUAY - 55, 4, 5.5), DARK, 1)
    for px in (88, 104, 262, 300, 398, 484, 552, 566):
        tint = colour(("2f4a7a", "b8403a", "e8d9b0", "3a3a44", "4f8a6a")[rng.integers(5)])
        fill(image, np.add([(-4, -7), (-3, -24), (3, -24), (4, -7)], (px, QUAY)), tint)
        fill(image, oval(px, QUAY - 27, 3, 3.4), colour("d9a07a"))


ROW = (  # x from and to, height, wall, roof
    (-14, 62, 138, "e0b04e", "9a4a34", "flat"),
    (62, 116, 168, "c9553f", "5a4a50", "gable"),
    (116, 190, 126, "f0e6cf", "b05a3a", "flat"),
    (190, 240, 158, "5d8fa8", "4a4a58", "step"),
    (240, 318, 142, "e8956a", "8a4434", "flat"),
    (318, 370, 176, "f3d98a", "6a3a34", "gable"),
    (370, 428, 118, "7fa07a", "a8553a", "flat"),
    (464, 522, 150, "d8707a", "5a4048", "step"),
    (522, 594, 128, "f2efe6", "a04a34", "flat"),
    (594, 660, 164, "7a6aa0", "54404a", "gable"),
)
BOATS = (  # x, waterline, length, hull, sail
    (108, WATER + 8, 92, "2f5f8a", ""),
    (262, WATER + 6, 74, "c0443a", ""),
    (560, WATER + 8, 88, "3a7a5f", ""),
    (420, 402, 150, "e9e0cc", "c8503a"),
)


def harbour(rng, h=480, w=640):
    """A row of coloured houses at a harbour, boats, and all of it in the water."""
    x, y = grid(h, w)
    image = ramp(np.clip(y / QUAY, 0, 1), "3f7fc0", "78acd8", "b5d3e6", "efe6d2")
    cloud = noise(rng, h, w, (60, 130), 6, 0.55) + 0.6 * np.sin(x / 120 + 0.6) * np.sin(y / 55)
    cover = smooth(0.0, 0.7, cloud) * smooth(QUAY - 20, 60, y)
    shine = np.clip(0.72 + 1.1 * (cloud - sample(blur(cloud, 3), x - 8, y - 9)), 0, 1)
    image = blend(image, ramp(shine, "8fa0b8", "c9d0d8", "f5efe4", "ffffff"), 0.95 * cover)
    hill = QUAY - 118 - 40 * np.sin(x / 105 + 2.4) - 9 * noise(rng, h, w, 60, 4)
    trees = 0.5 + 0.28 * noise(rng, h, w, 7, 3) + 0.2 * noise(rng, h, w, 50, 3)
    trees = blend(
        ramp(trees, "4f7560", "6f9468", "a9b87a"), colour("a9c2d0"), np.full((h, w), 0.38)
    )
    image = blend(image, trees, smooth(-1, 1, y - hill))
    tower(image, rng)
    for x0, x1, *rest in ROW:
        house(image, rng, x0, x1, QUAY - 8, *rest)
    quay(image, rng)
    # The water: what stands on its edge, mirrored and stirred more the nearer it is.
    down = np.clip(y - WATER - 3, 0, None)
    near = down / (h - WATER)
    swing = np.sin(down**0.78 * 1.5 + 2 * noise(rng, h, w, (30, 160), 2))
    ripple = noise(rng, h, w, (5, 42), 3) * (0.3 + near) + swing * (0.25 + 0.4 * near)
    above = np.clip(WATER + 3 - down * 1.12 + ripple * (2 + 11 * near), 0, WATER + 2)
    moored = image.copy()
    for each in BOATS[:3]:
        boat(moored, *each)
    mirror = sample(blur(moored, 0.7), x + 3.2 * ripple * (0.3 + near), above)
    depth = ramp(near, "3f5f6a", "2a4f66", "17384f")
    water = blend(mirror * 0.88, depth, np.clip(0.16 + 0.3 * near - 0.12 * ripple, 0, 1))
    crest = smooth(0.75, 1.5, ripple + 0.4 * noise(rng, h, w, (3, 24), 2))
    water = blend(water, colour("d9e6ee"), 0.4 * crest)
    image = np.where((y > WATER + 3)[..., None], water, image)
    # The boat under sail lies before all that, with a mirror image of its own.
    across, back = x + 3.5 * ripple, np.clip(2 * BOATS[3][1] - y + 5 * ripple, 0, h - 1)
    drawn = image.copy()
    boat(drawn, *BOATS[3])
    boats = sample(np.abs(drawn - image).sum(-1) > 0.02, across, back) & (y > BOATS[3][1])
    image = blend(image, sample(drawn, across, back) * 0.8, 0.6 * boats)
    for each in BOATS:
        shade = np.zeros((h, w), np.float32)
        fill(shade, oval(each[0], each[1] + 6, each[2] * 0.5, 6 + each[2] / 18), 0.55)
        image = blend(image, colour("122834"), blur(shade, 3))
        boat(image, *each)
    for at in ((70, 60), (92, 72), (120, 56), (300, 40), (322, 50)):  # gulls
        wings = np.add([(-9, -3), (-4, -5), (0, 0), (4, -5), (9, -3)], at)
        line(image, curve(wings, 6), colour("3a4450"), 1.4)
    return image + 0.008 * rng.standard_normal((h, w, 1))
