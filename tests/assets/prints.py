"""Styles of line and grain: a woodcut of waves, an engraving, a board of wood."""

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
    smooth,
)


def swell(image, rng, grain, crests, base, tall, wide, lean, shade):
    """One row of waves in place.

    Args:
      image: what is painted on, [h, w, 3].
      grain: of the paper, [h, w].
      crests: where they rise, in pixels.
      base, tall, wide, lean: the height of the troughs in the image, and of the crests above them; the width of a
        crest, and how far it leans over.
      shade: colour.
    """
    h, w = grain.shape
    ink, white, grain = colour("142a4c"), colour("f4ecd6"), grain[..., None]
    t = np.linspace(-90, w + 120, 900)
    rise = [np.exp(-(np.abs((t - x) / wide * 1.55) ** 1.6)) for x in crests]
    rise = np.max(rise, 0) + 0.02 * np.sin(t / 23)

    def crest(scale, drop):
        high = rise * scale
        over = t + lean * 1.25 * np.clip(high, 0, 2) ** 2.2
        return np.stack([over, base + drop - tall * high], -1)

    def closed(points):
        return np.concatenate([points, [(w + 200, h + 9), (-200, h + 9)]])

    top = crest(1, 0)
    fill(image, closed(top), colour(shade) + 0.05 * grain)
    for k in range(1, 9):
        stripe, under = crest(1 - 0.105 * k, 5 * k + 2), crest(1 - 0.105 * k - 0.035, 5 * k + 5)
        fill(image, closed(stripe), colour(("dfe6dc", "9fbccb", shade)[k % 3]) + 0.04 * grain)
        fill(image, closed(under), colour((shade, "6f9abb", "1d4270")[k % 3]) + 0.04 * grain)
        line(image, stripe, ink, 0.9, 0.7)
    line(image, top, ink, 2.2)
    size = 0.35 + tall / 360
    front = top[rise > 0.5]
    foam = []
    for x, y in front[:: max(int(5 - 2 * size), 1)]:
        if np.abs(np.asarray(crests) + lean * 1.25 - x).min() < 0.95 * wide:
            for _ in range(3):
                right, down = rng.normal(0, 1, 2) * (7 * size, 6 * size) + (3 * size, 4 * size)
                foam.append((x + right, y + down, size * rng.uniform(3, 8.5)))
    for grow, tint in ((1.5, ink), (0, white)):
        for x, y, radius in foam:
            fill(image, oval(x, y, radius + grow, radius + grow, n=20), tint)
    for x, y, radius in foam[::3]:
        curl = oval(x + 1, y + 1, radius * 0.6, radius * 0.6, 0, 0.3, 3.4, 12)
        line(image, curl, colour("7fa3bb"), 0.9)
    for _ in range(int(60 * size)):  # spray
        x, y = front[rng.integers(len(front))] + rng.normal(0, 1, 2) * (34 * size, 24 * size)
        fill(image, oval(x + 12 * size, y - 8 * size, *rng.uniform(0.8, 2.4, 2), n=10), white)


def waves(rng, h=480, w=640):
    """Breaking waves like a coloured woodcut: few inks, outlines, foam like claws, grain of paper."""
    _, y = grid(h, w)
    grain = noise(rng, h, w, (3, 60), 3)
    image = ramp(y / h + 0.04 * grain, "c9b184", "e3cfa0", "f0e2bd", "f3e8cc")
    ink, white = colour("142a4c"), colour("f4ecd6")
    line(image, oval(505, 118, 46, 46), colour("b8402c"), 2)
    fill(image, oval(505, 118, 46, 46), colour("cb4f35"), 0.9)
    for cy in (78, 96, 140):
        upper = [(380, cy + 6), (450, cy), (520, cy + 7), (640, cy + 3)]
        lower = [(640, cy + 9), (520, cy + 12), (440, cy + 8)]
        fill(image, curve(upper + lower, closed=True), white, 0.85)
    peak = [(250, 330), (330, 262), (372, 214), (392, 208), (412, 217), (460, 268), (560, 330)]
    fill(image, curve(peak), ramp(smooth(205, 320, y), "8d9bb0", "5d7596", "36557f"))
    snow = [(346, 245), *peak[2:5], (436, 244), (420, 240), (408, 254), (396, 236), (384, 258)]
    fill(image, [*snow, (372, 240), (360, 254)], white)
    line(image, curve(peak), ink, 1.6)
    for row in (
        # crests, base, tall, wide, lean, shade
        ((150, 420, 640), 330, 60, 120, 26, "6f94b3"),
        ((-30, 300, 560), 385, 105, 150, 62, "3f6f9f"),
        ((70,), 430, 360, 250, 150, "23507f"),
        ((250, 590), 470, 120, 150, 80, "2c5d8d"),
        ((60, 430), 520, 115, 150, 75, "1d4270"),
    ):
        swell(image, rng, grain, *row)
    fade = noise(rng, h, w, (2.5, 90), 2) + noise(rng, h, w, 2.2, 1)
    stains = np.clip(noise(rng, h, w, 60, 3), 0, 1)
    return image + (0.022 * fade - 0.03 * stains)[..., None]


def hatch(phase, dark):
    """Ink [h, w] of the lines of a burin along the level sets of a phase (in lines): wider where it is darker."""
    dy, dx = np.gradient(phase)
    step = np.clip(np.hypot(dx, dy), 1e-3, None)
    off = np.abs(phase - np.floor(phase) - 0.5)
    half = np.clip(dark, 0, 1) * 0.5
    ink = np.clip((half - off) / step + 0.5, 0, 1) * smooth(0.02, 0.08, dark)
    return np.where(step < 0.45, ink, np.clip(dark, 0, 1))


def engraving(rng, h=480, w=640):
    """A shell by the sea, engraved: tones by the width of lines that follow the forms."""
    x, y = grid(h, w)
    wob = noise(rng, h, w, 60, 2)
    paper = 0.6 + 0.12 * noise(rng, h, w, 90, 4) + 0.06 * noise(rng, h, w, 3, 2)
    paper = ramp(paper, "cdb98d", "eadcb6", "f5ecd2")
    horizon = 205.0
    # Sky: level lines around clouds, lighter towards the horizon.
    cloud = noise(rng, h, w, (70, 150), 4) + 0.55 * np.sin(x / 95 + 1) * np.sin(y / 60)
    puff = smooth(0.05, 0.55, cloud)
    sky = hatch((y + 2.5 * wob + 7 * cloud) / 4.6, 0.72 - 0.4 * y / horizon - 0.62 * puff)
    sky = np.maximum(
        sky, hatch((y * 0.8 + x * 0.6) / 5, 0.5 * smooth(0.1, -0.7, cloud) * (1 - y / horizon))
    )
    # Sea and sand.
    near = np.clip((y - horizon) / (h - horizon), 1e-3, 1)
    heave = np.sin(76 * np.sqrt(near) + 2 * np.sin(x / 60 + 9 * near) + wob)
    sea = hatch(
        (y - horizon) / 4.2 + 0.5 * np.sin(x / (9 + 26 * near) + 3 * wob) * near,
        0.48 + 0.36 * heave,
    )
    shore = y - 330 - 14 * np.sin(x / 110 + 0.5) - 5 * wob
    dots = noise(rng, h, w, 2.2, 1)
    sand = smooth(1.15, 1.5, dots + 0.25 * np.sin(shore / 9))
    sand = np.maximum(
        sand,
        hatch(
            (y + 5 * np.sin(x / 70 + wob)) / 5.2, 0.3 + 0.2 * np.sin(shore / 13 + wob) + 0.15 * near
        ),
    )
    ink = np.where(y < horizon, sky, np.where(shore < 0, sea, sand))
    ink = np.maximum(ink, np.exp(-(((shore - 2) / 1.3) ** 2)))
    # The shell: a logarithmic spiral; `f` is the place across a whorl, 0 at its inner edge.
    cx, cy = 345.0, 262.0
    r, turn = np.hypot(x - cx, (y - cy) * 1.03) + 1e-3, np.arctan2(y - cy, x - cx)
    growth, outer, lip = math.log(2.9) / (2 * math.pi), 136.0, 2.72
    bulge = lip + 0.3 * np.clip(1 - ((r / outer - 1.12) / 0.52) ** 2, -1, 1)
    turn = bulge - (bulge - turn) % (2 * math.pi)
    whorl = (np.log(r / outer) / growth - turn) / (2 * math.pi)
    f = whorl - np.floor(whorl)
    level = np.floor(whorl)
    mouth = turn + 2 * math.pi * (level + 1)
    shell = (whorl < 0) & (r > 2)
    cast = smooth(1.12, 0.75, np.hypot((x - cx - 10) / 225, (y - 428) / 36))
    ink = np.maximum(ink, hatch((y - 0.3 * x) / 4.4, cast * 0.85))
    ink = np.maximum(ink, hatch((y + 0.5 * x) / 4.4, cast * 0.6))
    nx, ny = np.cos(turn), np.sin(turn)
    across = (f - 0.55) * 2
    tilt = np.clip(across, -0.98, 0.98)
    lambert = -0.62 * tilt * nx - 0.68 * tilt * ny + 0.62 * np.sqrt(1 - tilt**2)
    dark = 0.62 - 0.72 * lambert + 0.5 * smooth(0.16, 0.0, f) + 0.12 * smooth(0.9, 1.0, f)
    dark = dark + 0.8 * smooth(0.13, 0.0, bulge - turn) * (level == -1)
    s = mouth / (2 * math.pi)
    stripes = smooth(0.1, 0.75, np.sin(2 * math.pi * (s * 13 + 0.9 * f**1.5)) + 0.5 * wob) * smooth(
        0.12, 0.5, f
    )
    growth_lines = s * 110 + 5.0 * f**1.6
    along = f * np.clip(2 ** np.round(np.log2(r / 11)), 4, 32)
    shell_ink = hatch(growth_lines, dark * 0.8 + 0.42 * stripes)
    shell_ink = np.maximum(shell_ink, hatch(along, 1.5 * (dark - 0.42) + 0.3 * stripes))
    ink = np.where(shell, shell_ink, ink)
    edge = np.hypot(*np.gradient((np.where(shell, level, 3)).astype(np.float32)))
    ink = np.maximum(ink, np.clip(blur(np.minimum(edge, 1), 0.9) * 1.6, 0, 1))
    frame = np.minimum(np.minimum(x, w - x), np.minimum(y, h - y))
    ink = np.where(frame < 12, np.exp(-(((frame - 9) / 1.2) ** 2)), ink)
    ink = ink * (0.94 + 0.06 * noise(rng, h, w, 4, 2))
    return blend(paper, colour("231a17"), np.clip(ink, 0, 1) * 0.93)


def wood(rng, h=640, w=480):
    """A board of old pine: rings in cathedral arches, knots, fibres and pores."""
    x, y = grid(h, w)
    x = x + 7 * noise(rng, h, w, (220, 90), 2)
    spread = (
        np.sqrt((x - 0.46 * w) ** 2 + 40**2) - 0.17 * (y - 140) + 5 * noise(rng, h, w, (260, 60), 3)
    )
    heart = np.full_like(x, 1e3)
    for kx, ky, size in ((135, 210, 24), (352, 430, 32), (300, 92, 13), (78, 560, 15)):
        far = np.hypot((x - kx) * 1.25, (y - ky) * 0.8) * (1 + 0.05 * noise(rng, h, w, 30, 2))
        push = np.exp(-((x - kx) ** 2 / (size * 2.1) ** 2 + (y - ky) ** 2 / (size * 4.2) ** 2))
        side = np.tanh((x - kx + 0.25 * (y - ky)) / size)
        spread = spread + push * side * size * 1.35 * np.sign(kx - 0.46 * w)
        heart = np.minimum(heart, far / size)
    ring = (spread + 700) / 10.5
    ring = ring + 0.55 * np.sin(ring / 2.3) + 0.3 * np.sin(ring / 0.9)
    t = ring - np.floor(ring)
    late = smooth(0.25, 0.93, t) * smooth(1.0, 0.93, t)
    late = blur(late, 0.6) * (0.75 + 0.25 * np.sin(np.floor(ring) * 2.7))
    fibre = noise(rng, h, w, (170, 2.6), 3, 0.7)
    pores = smooth(0.75, 1.3, noise(rng, h, w, (34, 1.8), 2, 0.6)) * (0.4 + 0.6 * late)
    tone = 0.66 - 0.42 * late + 0.055 * fibre + 0.09 * noise(rng, h, w, (260, 110), 3)
    image = ramp(tone, "3a1c0d", "6f3a18", "a8632c", "cf9250", "e6b878", "f0cf98")
    core = 0.42 + 0.3 * np.sin(heart * 17 + fibre * 0.5) + 0.12 * fibre
    core = ramp(core - 0.25 * smooth(0.5, 0, heart), "1c0d07", "4f2712", "8a4d22", "b87638")
    image = blend(image, core, smooth(1.0, 0.86, heart))
    bark = 0.55 * np.exp(-(((heart - 1) / 0.12) ** 2))
    bark = bark + 0.25 * np.exp(-(((heart - 1.15) / 0.4) ** 2)) * (heart > 1)
    image = image * (1 - bark)[..., None]
    image = image * (1 - 0.4 * pores)[..., None]
    light = relief(-0.8 * late - pores + 0.25 * fibre, 0.25, 0.0)
    return image * (0.3 + 0.7 * light)[..., None]
