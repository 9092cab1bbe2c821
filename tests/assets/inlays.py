"""Styles of many pieces: a mosaic of stones, a window of stained glass."""

import math

import numpy as np
from PIL import Image

from tests.assets.canvas import blend, blur, colour, grid, noise, ramp, relief, sample, smooth


def tesserae(rng, angle, size, rounds=7):
    """Square stones along angles [h, w], by Lloyd's method in the rotated maximum norm (Hausner 2001).

    Returns:
      Of each pixel, the number of its stone [h, w], its place in the stone in halves of `size` [h, w, 2];
      and the middle of each stone [n, 2].
    """
    h, w = angle.shape
    at = np.mgrid[size / 2 : h : size, size / 2 : w : size].reshape(2, -1).T[:, ::-1]
    at = at + rng.uniform(-0.5, 0.5, at.shape) * size
    reach = int(1.6 * size)
    for _ in range(rounds):
        nearest = np.full((h, w), np.inf, np.float32)
        owner, place = np.zeros((h, w), int), np.zeros((h, w, 2), np.float32)
        for k, (px, py) in enumerate(at):
            x0, y0 = max(int(px) - reach, 0), max(int(py) - reach, 0)
            box = slice(y0, int(py) + reach), slice(x0, int(px) + reach)
            x, y = grid(*nearest[box].shape)
            x, y = x + (x0 - px), y + (y0 - py)
            turn = sample(angle, px, py)
            c, s = math.cos(turn), math.sin(turn)
            local = np.stack([x * c + y * s, y * c - x * s], -1) * (2 / size)
            far = np.abs(local).max(-1) + 0.02 * np.abs(local).min(-1)
            closer = far < nearest[box]
            nearest[box][closer], owner[box][closer] = far[closer], k
            place[box][closer] = local[closer]
        count = np.maximum(np.bincount(owner.ravel(), minlength=len(at)), 1)[:, None]
        x, y = grid(h, w)
        sums = [np.bincount(owner.ravel(), v.ravel(), minlength=len(at)) for v in (x, y)]
        at = np.clip(np.stack(sums, -1) / count, 0, (w - 1, h - 1))
    return owner, place, at


def distance(mask, step=4):
    """About how far each pixel [h, w] is from the outline of a mask."""
    edge = np.hypot(*np.gradient(mask.astype(np.float32))) > 0
    ys, xs = np.nonzero(edge)
    ys, xs = ys[::3], xs[::3]
    x, y = (v[step // 2 :: step, step // 2 :: step] for v in grid(*mask.shape))
    far = np.hypot(x[..., None] - xs, y[..., None] - ys).min(-1)
    wide = Image.fromarray(far.astype(np.float32)).resize(
        mask.shape[::-1], Image.Resampling.BICUBIC
    )
    return np.asarray(wide)


def mosaic(rng, size=560):
    """Two fish that circle each other in a medallion of tesserae."""
    x, y = grid(size, size)
    x, y = x - size / 2, y - size / 2
    r, around = np.hypot(x, y), np.arctan2(y, x)
    whorl = around + math.pi / 2
    fish, image = np.zeros(x.shape, bool), np.zeros((size, size, 3), np.float32)
    for k in range(2):
        u = 124 * np.angle(np.exp(1j * (around - k * math.pi - 0.3)))  # along the fish, to its head
        v = r - 122  # across it, to its back
        t = np.clip((u + 112) / 240, 0, 1)
        half = 60 * np.sqrt(np.clip(1 - (2 * t - 1) ** 2, 0, 1)) * (0.45 + 0.55 * t)
        half = np.where((u > -120) & (u < -70), np.maximum(half, 13), half)
        out = -100 - u  # behind the root of the tail
        tail = (
            (out > 0) & (out < 74) & (np.abs(v) < 10 + 0.72 * out) & (np.abs(v) > 1.3 * (out - 42))
        )
        fin = (u > -62) & (u < 40) & (v > 0) & (v < half + 26 * np.sin((u + 62) / 102 * math.pi))
        body = np.abs(v) < half
        side = v / np.maximum(half, 1)
        scales = np.sin(u / 7.5 - 2.6 * np.cos(side * 9) * 0.35) * np.cos(side * 4.5)
        back = ramp((1 - side) / 2 + 0.2 * scales, "8a1c18", "c93a1e", "ee7a28", "f7b544", "fbe08a")
        back = np.where(
            (u > 66)[..., None], ramp((1 - side) / 2, "5e1a1c", "a83224", "d98a3a"), back
        )
        back = np.where(
            (np.abs(u - 66 - 12 * (1 - side**2)) < 5)[..., None], colour("f8ecc8"), back
        )
        web = np.where(
            (np.sin((np.abs(v) / (out + 30) * 26)) > 0)[..., None],
            colour("c9321e"),
            colour("f4bf55"),
        )
        web = np.where(
            tail[..., None],
            web,
            np.where((np.sin(u / 4) > 0)[..., None], colour("b02a1c"), colour("f09a3a")),
        )
        eye = np.hypot(u - 92, v - 8)
        back = np.where((eye < 16)[..., None], colour("fbf6e4"), back)
        back = np.where((eye < 8.5)[..., None], colour("0c1018"), back)
        image = np.where((tail | fin)[..., None], web, image)
        image = np.where(body[..., None], back, image)
        fish |= body | tail | fin
    far = distance(fish)
    wave = np.sin(far / 9 - 0.6 + 0.5 * noise(rng, size, size, 120, 2))
    sea = ramp(
        0.5 + 0.46 * wave + 0.07 * noise(rng, size, size, 40, 2),
        "135067",
        "1f7f90",
        "52b3ac",
        "a9dcc8",
        "eaf4e0",
    )
    sea = np.where((far < 8)[..., None], colour("14202f"), sea)
    dy, dx = np.gradient(blur(far, 4))
    angle = np.where(fish, whorl, np.arctan2(dy, dx) + math.pi / 2)
    image = np.where(fish[..., None], image, sea)
    band = r - 243
    teeth = band / 17 < 2 * np.abs(((around * 24 / math.pi) % 2) - 1) - 1
    ring = np.where(teeth[..., None], colour("1d2c4c"), colour("efe3c2"))
    image = np.where((np.abs(band) < 18)[..., None], ring, image)
    image = np.where((np.abs(np.abs(band) - 22) < 4.5)[..., None], colour("b03024"), image)
    image = np.where((np.abs(band + 31) < 4.5)[..., None], colour("f3ead0"), image)
    tiles = np.sin(around * 36) * np.sin((band - 26) / 24 * math.pi) > 0
    corner = np.where(tiles[..., None], colour("cfa768"), colour("84342a"))
    image = np.where((band > 26)[..., None], corner, image)
    angle = np.where(band > -35, whorl, angle)
    owner, place, at = tesserae(rng, angle, 8.2)
    n = len(at)
    stone = sample(image, at[:, 0], at[:, 1]) * rng.normal(1, 0.09, (n, 1))
    stone += rng.normal(0, 0.022, (n, 3))
    edge = np.abs(place).max(-1) + 0.04 * noise(rng, size, size, 5, 2)
    cut = smooth(0.98, 0.78, edge)
    seam = np.hypot(*np.gradient(owner.astype(np.float32))) > 0
    cut *= 1 - np.clip(1.4 * blur(seam.astype(np.float32), 0.6), 0, 1)
    tilt = (place * rng.normal(0, 0.05, (n, 2))[owner]).sum(-1)
    light = relief(blur(cut, 0.8), 1.1) + tilt + 0.05 * noise(rng, size, size, 6, 3)
    grout = ramp(0.5 + 0.4 * noise(rng, size, size, 4, 2), "6d6457", "9a8f7e")
    return blend(grout * 0.95, stone[owner] * (1.12 * light)[..., None], cut)


def glass(rng, h=640, w=480):
    """A window of stained glass: a sun over hills and a river, tulips below."""
    x, y = grid(h, w)
    sx, sy = 300.0, 190.0
    r, turn = np.hypot(x - sx, y - sy), np.arctan2(y - sy, x - sx)
    label = np.zeros((h, w), int)
    shades = np.zeros((h, w, 3), np.float32)

    def piece(mask, cells, *palette):
        """Gives a region to pieces of glass; `cells` numbers them."""
        nonlocal label, shades
        cells = np.where(mask, cells, -1)
        for k in np.unique(cells[mask]):
            part = cells == k
            paint = colour(palette[int(k) % len(palette)]) * rng.uniform(0.85, 1.15)
            label = np.where(part, label.max() + 1, label)
            shades = np.where(part[..., None], paint, shades)

    ray = np.floor((turn + 0.12 * np.sin(r / 60)) / (2 * math.pi) * 24).astype(int) % 24
    ring = np.digitize(r, (130, 205, 300, 420))
    piece(
        r >= 84,
        ray + 24 * ring,
        "1b4fa8",
        "3f8ad8",
        "123a86",
        "62a9e0",
        "2a66c4",
        "8cc6ec",
        "173f92",
    )
    piece(
        (r >= 52) & (r < 84),
        np.floor((turn + math.pi) / (2 * math.pi) * 16).astype(int),
        "f08a1d",
        "f6b52e",
    )
    piece(r < 52, np.zeros_like(label), "ffd84a")
    far = y - 330 - 32 * np.sin(x / 82 + 0.6)
    piece(far > 0, np.floor(x / 70 + y / 190).astype(int), "5a3f9c", "7a58b8", "4a3486")
    mid = y - 395 - 38 * np.sin(x / 95 + 3.4)
    piece(
        mid > 0,
        np.floor(x / 78 - y / 150).astype(int) + 5 + 20 * (mid > 48),
        "1f8a4c",
        "46ab4f",
        "15703f",
        "8cc152",
    )
    bend = 250 + 70 * np.sin((y - 400) / 52)
    wide = 10 + 0.42 * np.clip(y - 400, 0, None)
    piece(
        (mid > 6) & (np.abs(x - bend) < wide),
        np.floor(y / 34 + 0.35 * np.sin(x / 22)).astype(int),
        "bfe6f2",
        "57b5d8",
        "8ed3e6",
        "2f8fc0",
    )
    front = y - 545 + 26 * np.sin(x / 76 + 1.2)
    piece(front > 0, np.floor(x / 60 + y / 120).astype(int), "0f5a36", "2f7f3a", "69a03a")
    for tx, ty, size, reds in (
        (84, 470, 1.15, ("c4161c", "e8392b", "8e0f1c")),
        (408, 482, 1.05, ("d92b6b", "f05a8c", "a0184c")),
        (170, 545, 0.8, ("f0a01c", "f6c33c", "d9771a")),
    ):
        u, v = (x - tx) / size, (y - ty) / size
        stem = (np.abs(u - 4 * np.sin(v / 60)) < 4.5) & (v > 20)
        left, right = (np.sin(np.clip(t, 0, 1) * math.pi) for t in ((v - 60) / 90, (v - 40) / 110))
        leaf = (np.abs(u - 24 * right) < 10 * right) | (np.abs(u + 26 * left) < 9 * left)
        piece(leaf, (u > 0).astype(int), "3fae49", "2c8f42")
        piece(stem, np.zeros_like(label), "55b848")
        for side in (-1, 1):
            piece(
                ((u - side * 17) / 21) ** 2 + ((v + 8) / 40) ** 2 < 1 - 0.012 * side * u * (v < 0),
                np.full_like(label, side + 1),
                reds[0],
                reds[0],
                reds[1],
            )
        piece((u / 15) ** 2 + ((v + 4) / 42) ** 2 < 1, np.zeros_like(label), reds[1])
    frame = np.minimum(np.minimum(x, w - x), np.minimum(y, h - y))
    piece(
        frame < 26,
        np.floor((x + y) / 46).astype(int) + 100 * np.floor((x - y) / 46 + 20).astype(int),
        "c0392b",
        "f0c23a",
        "1c5aa8",
        "e8e0c8",
        "1f8a4c",
    )
    seam = np.zeros((h, w), np.float32)
    seam[:, 1:] += label[:, 1:] != label[:, :-1]
    seam[1:] += label[1:] != label[:-1]
    lead_height = blur(np.minimum(seam, 1), 1.9) * 4.4
    lead = smooth(0.5, 0.85, lead_height)
    streak = noise(rng, h, w, (46, 26), 4, 0.65)
    waver = noise(rng, h, w, (9, 9), 3)
    glow = 0.78 + 0.5 * np.exp(-((r / 330) ** 2)) + 0.14 * streak + 0.07 * waver
    glow *= 1 - 0.45 * blur(lead, 7)
    image = shades * (glow + 0.35 * np.clip(relief(blur(waver, 1), 1.2) - 1, -0.3, 0.3))[..., None]
    image = image + 0.16 * np.clip(streak - 0.35, 0, 1)[..., None]
    metal = np.clip(relief(blur(np.minimum(lead_height, 1.5), 1), 2.2) - 0.75, 0, 1)
    metal = 0.25 + 0.9 * metal + 0.06 * noise(rng, h, w, 3, 2)
    metal = ramp(metal, "08080a", "26262b", "85858c")
    return blend(image, metal, lead)
