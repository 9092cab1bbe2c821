"""A landscape: mountains, a lake, pines."""

import numpy as np

from tests.assets.canvas import blend, blur, colour, fill, grid, line, noise, ramp, sample, smooth


def terrain(rng, n=1024):
    """Heights [n, n] of a mountain range: ridges, bent, on a lake's plain; depth goes down the rows."""
    total, strength, weight = np.zeros((n, n), np.float32), 1.0, 1.0
    for k in range(7):
        ridge = 1 - np.abs(noise(rng, n, n, 330 / 2**k, 1)) * 1.35
        ridge = np.clip(ridge, 0, None) ** 2
        total += strength * ridge * weight
        weight = np.clip(ridge * 1.4, 0, 1)
        strength *= 0.48
    return total


def pine(image, rng, x, base, tall, light, dark):
    """A pine in place: whorls of drooping branches, lit from the left."""
    fill(image, [(x - tall / 70, base), (x, base - 1.02 * tall), (x + tall / 70, base)], dark * 0.7)
    whorls = int(9 + tall / 14)
    for k in range(whorls):
        t = k / (whorls - 1)
        y = base - tall * (1 - 0.93 * t)
        reach = tall * (0.02 + 0.19 * t**0.9) * rng.uniform(0.75, 1.15)
        for j in range(int(12 + reach / 2)):
            out = reach * rng.uniform(-1, 1)
            drop = 0.32 * abs(out) + tall / whorls * rng.uniform(0, 0.75)
            lit = 0.42 - 0.4 * out / reach + 0.25 * (j / 20 - 0.5) + rng.normal(0, 0.14)
            paint = dark + (light - dark) * np.clip(lit, 0, 1)
            middle = (x + 0.55 * out, y + 0.45 * drop)
            line(image, [(x, y), middle, (x + out, y + drop)], paint, max(tall / 130, 0.7))


def evening(rng, h, w, horizon, sun):
    """The sky [h, w, 3]: clouds lit from the side of the sun, (x, y)."""
    x, y = grid(h, w)
    far = np.hypot((x - sun[0]) / w, (y - sun[1]) / h * 0.8)
    sky = ramp(np.clip(y / horizon, 0, 1), "3f6ea8", "6f9cc8", "a9c4d8", "e8d3b8", "f6c795")
    sky = sky + (np.exp(-((far / 0.24) ** 2)) * 0.26)[..., None] * colour("ffd9a0")
    cloud = noise(rng, h, w, (90, 420), 6, 0.55) + 0.35 * noise(rng, h, w, (300, 900), 2)
    cover = smooth(-0.05, 0.8, cloud) * smooth(horizon, 0.2 * horizon, y) * 0.9
    shine = np.clip(0.62 + 1.9 * (cloud - sample(blur(cloud, 4), x - 14, y + 10)), 0, 1)
    sky = blend(sky, ramp(shine, "8d8fa6", "c9a7a0", "f3cfa8", "fff1d8"), cover)
    return sky + (np.exp(-((far / 0.026) ** 2)) * 0.7)[..., None] * colour("fff0c0")


def mountains(rng, n=1024, deep=34, wide=34 * 1.2):
    """Heights [n, n] and colours [n, n, 3] of the land, lit from the left; its first row is the nearest."""
    ground, slow = terrain(rng, n), noise(rng, n, n, 260, 2)
    depth = (np.arange(n) / (n - 1) * deep + 1)[:, None]
    side = np.abs(np.arange(n) / n - 0.47)[None]
    rise = smooth(5.5, 24, depth + 52 * (side - 0.12) + 2.0 * slow)  # the lake lies before
    height = (ground - 0.55 - 0.06 * slow) * 7.5 * rise - 0.35 * (1 - rise)
    forest = noise(rng, n, n, 3.2, 2, 0.8)
    height += np.where(height < 2.4, 0.035 * np.clip(forest, 0, 2) * smooth(0, 0.1, height), 0)
    down, right = np.gradient(height, deep / n, wide / n)
    light = (0.7 * right + 0.3 * down + 0.45) / np.sqrt(1 + right**2 + down**2)
    # In shadow is what lies below a ray that grazes what is left of it.
    ray = height + np.arange(n)[None] * 0.05
    shadow = smooth(0.02, 0.25, np.maximum.accumulate(ray, 1) - ray)
    light = np.clip(light, 0, 1.2) * (1 - 0.75 * shadow)
    steep = np.hypot(right, down)
    bare = height + 0.9 * noise(rng, n, n, 40, 4) - 0.3 * np.clip(steep - 2.4, 0, 3)
    rock = ramp(0.5 + 0.25 * noise(rng, n, n, 18, 4), "4a4650", "7b6f6a", "a08e7c")
    green = ramp(0.5 + 0.4 * forest, "1c2f22", "35502f", "6a7440")
    wooded = smooth(3.2, 1.8, height + 0.7 * noise(rng, n, n, 30, 3) + 0.15 * steep)
    face = blend(blend(rock, green, wooded), colour("f4f6fb"), smooth(3.6, 4.8, bare))
    return height, face * (light[..., None] * colour("ffe2bd") * 1.15 + colour("5b6f98") * 0.42)


def range_of(rng, sky, horizon, sun, deep=34):
    """The sky with the mountains before it: of each pixel, the first land on its ray."""
    h, w = sky.shape[:2]
    height, paint = mountains(rng, deep=deep)
    n = len(height)
    z = np.geomspace(1.2, deep, 900)[:, None]
    column = ((np.arange(w) / w - 0.5) * 1.15 * z / (deep * 1.2) + 0.5) * n
    row = np.broadcast_to((z - 1) / deep * (n - 1), column.shape)
    x0, y0 = np.clip(column.astype(int), 0, n - 2), np.clip(row.astype(int), 0, n - 2)
    fx, fy = (column - x0).astype(np.float32), (row - y0).astype(np.float32)

    def at(field):
        top = field[y0, x0] * (1 - fx) + field[y0, x0 + 1] * fx
        low = field[y0 + 1, x0] * (1 - fx) + field[y0 + 1, x0 + 1] * fx
        return top * (1 - fy) + low * fy

    screen = horizon + h * 0.485 * (0.25 - at(height)) / z
    screen = np.minimum.accumulate(screen, 0)  # what is nearer hides what is below its top
    colours = np.stack([at(paint[..., c]) for c in range(3)], -1)
    haze = 1 - np.exp(-((z / 30) ** 1.5))
    mist = ramp(smooth(0.0, 0.9, np.abs(np.arange(w) - sun[0]) / w), "f6cfa2", "b5bccb")
    colours = colours + haze[..., None] * (mist[None] - colours)
    rows = -(np.arange(h) + 0.5)
    seen = np.stack([np.searchsorted(-screen[:, c], rows) for c in range(w)], -1)
    land = (seen < len(z)) & (np.arange(h)[:, None] < horizon + 60)
    return np.where(land[..., None], colours[np.minimum(seen, len(z) - 1), np.arange(w)[None]], sky)


def lake(rng, image, water, sun):
    """The image with a lake below the row `water`: what is above it, mirrored and stirred."""
    h, w = image.shape[:2]
    x, y = grid(h, w)
    down = np.clip(y - water, 0, None)
    near = down / (h - water)
    ripple = noise(rng, h, w, (7, 120), 3) * smooth(0, 0.3, near)
    ripple += 0.5 * np.sin(down**0.72 * 2.1 + noise(rng, h, w, (40, 300), 2) * 3)
    above = np.clip(water - down * 0.92 + ripple * (2 + 16 * near), 0, water - 1)
    beside = x + ripple * 3 * near + 5 * near * noise(rng, h, w, (12, 60), 2)
    mirror = sample(blur(image, 1.2), beside, above)
    glint = smooth(0.55, 1.5, ripple + 0.6 * noise(rng, h, w, (4, 36), 2))
    glint *= np.exp(-((np.abs(x - sun[0]) / (40 + 150 * near)) ** 2))
    surface = blend(mirror * 0.93, ramp(near, "5b7590", "27455c", "142a3c"), 0.14 + 0.4 * near)
    surface += 0.6 * glint[..., None] * colour("ffe0a8")
    image = np.where((y > water)[..., None], surface, image)
    return blend(image, colour("e9cda8"), 0.45 * np.exp(-(((y - water) / 5) ** 2)))  # mist


def shore(rng, image):
    """The near shore in place, with grass and pines."""
    h, w = image.shape[:2]
    x, y = grid(h, w)
    edge = 432 + 14 * np.sin(x / 130 + 2.2) - 42 * np.exp(-(((x - 610) / 170) ** 2))
    below = y - edge + 34 * np.exp(-((x / 120) ** 2)) - 3 * noise(rng, h, w, 40, 3)
    soil = ramp(0.45 + 0.25 * noise(rng, h, w, (9, 26), 4), "1d2416", "3c4526", "6d6a3a", "a99a5c")
    soil = soil * (0.8 + 0.25 * np.exp(-np.clip(below, 0, None) / 12))[..., None]
    image[:] = blend(image, soil, smooth(-1, 1.5, below))
    for _ in range(2600):
        px, py = rng.uniform(0, w), rng.uniform(400, h + 8)
        if sample(below, px, py) < 2:
            continue
        tall, lean = rng.uniform(5, 15) * (0.4 + (py - 400) / 80), rng.normal(2, 3)
        paint = ramp(rng.uniform(0, 1), "222c18", "59602f", "b8a75e", "e0c983")
        blade = np.add([(0, 0), (0.4 * lean, -0.6 * tall), (lean, -tall)], (px, py))
        line(image, blade, paint, rng.uniform(0.6, 1.2))
    left = ((30, 412, 130), (66, 418, 84), (6, 416, 180))
    right = ((585, 418, 235), (548, 412, 150), (622, 425, 290), (505, 416, 96))
    for px, base, tall in right + left:
        pine(image, rng, px, base, tall, colour("6f7a45"), colour("0f1a15"))


def landscape(rng, h=480, w=640):
    """Snowy mountains above a lake in the evening sun, pines at the shore."""
    fine = 2  # samples a pixel and side
    horizon, sun = 262 * fine, (0.23 * w * fine, 0.36 * h * fine)
    sky = evening(rng, h * fine, w * fine, horizon, sun)
    image = lake(rng, range_of(rng, sky, horizon, sun), horizon - 2, sun)
    image = image.reshape(h, fine, w, fine, 3).mean((1, 3))
    shore(rng, image)
    return image + 0.008 * rng.standard_normal((h, w, 1))
