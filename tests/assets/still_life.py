"""A still life, seen by rays that are marched against distances."""

import math

import numpy as np

from tests.assets.canvas import blend, colour, curve, grid, noise, ramp, smooth


def nearest(*shapes):
    """The nearest of several (distance, number) [n]: the distance and the number of its shape."""
    far = np.stack([s for s, _ in shapes])
    k = far.argmin(0)
    return far.min(0), np.array([n for _, n in shapes])[k]


def ball(p, at, radius):
    """Distance from a sphere; of this and what follows p is [n, 3], the distance [n]."""
    return np.sqrt(((p - np.float32(at)) ** 2).sum(-1)) - np.float32(radius)


def melt(a, b, k):
    """Smooth minimum of two distances."""
    t = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + t * (a - b) - k * t * (1 - t)


def apple(p, at, radius):
    """A thick ring whose hole is closed but for dimples, narrower below."""
    q = p - np.float32(at)
    out = np.sqrt(q[..., 0] ** 2 + q[..., 2] ** 2)
    up = q[..., 1] / 1.25 + 0.1 * (out - 0.5 * radius)
    return (np.sqrt((out - 0.42 * radius) ** 2 + up**2) - 0.62 * radius) * 0.8


def stalk(p, at, lean=(0.05, 0.02), tall=0.16):
    """A bent stem that stands on a point."""
    q = p - np.float32(at)
    t = np.clip(q[..., 1] / tall, 0, 1)
    x, y, z = q[..., 0] - lean[0] * t**2, q[..., 1] - tall * t, q[..., 2] - lean[1] * t**2
    return np.sqrt(x**2 + z**2 + y**2) - 0.013


def turned(p, at, heights, radii):
    """A solid of revolution, by its radii at heights."""
    q = p - np.float32(at)
    out = np.sqrt(q[..., 0] ** 2 + q[..., 2] ** 2)
    radius = np.interp(q[..., 1], heights, radii).astype(np.float32)
    side = (out - radius) * 0.72
    return np.maximum(side, np.maximum(q[..., 1] - heights[-1], heights[0] - q[..., 1]))


# What things are made of.
LINEN, CHINA, RED, GREEN, ORANGE, PEAR, LEMON, GRAPE, BARK, CLAY = range(10)
JUG = [(0, 0.33), (0.12, 0.4), (0.55, 0.6), (0.95, 0.52), (1.25, 0.25), (1.5, 0.22), (1.75, 0.34)]
JUG_Y = np.linspace(0, 1.75, 60)
JUG_R = np.interp(JUG_Y, *curve(JUG).T)
LAMP = np.float32((-0.62, 0.62, 0.48)) / np.float32(np.linalg.norm((-0.62, 0.62, 0.48)))
GRAPES = [
    (
        1.02 + 0.15 * (i % 4) - 0.07 * (j % 2) + 0.05 * k,
        0.11 + 0.16 * k,
        0.5 + 0.15 * j - 0.06 * (i % 2) - 0.1 * k,
    )
    for k in range(2)
    for j in range(4 - k)
    for i in range(4 - k)
]


def bowl(p):
    """The bowl and the fruit in it."""
    q = p - np.float32((-0.38, 0.72, 0.1))
    out = np.sqrt(q[..., 0] ** 2 + q[..., 2] ** 2)
    shell = np.abs(np.sqrt((q * q).sum(-1)) - 0.9) - 0.025
    shell = np.maximum(np.maximum(shell, q[..., 1] - 0.02), -0.62 - q[..., 1])
    rim = np.sqrt((out - 0.9) ** 2 + (q[..., 1] - 0.02) ** 2) - 0.042
    foot = turned(p, (-0.38, 0, 0.1), [0, 0.06, 0.14, 0.2], [0.5, 0.47, 0.4, 0.55])
    pear = melt(ball(p, (-0.1, 0.93, 0.0), 0.31), ball(p, (-0.06, 1.3, -0.02), 0.155), 0.26)
    return nearest(
        (np.minimum(np.minimum(shell, rim), foot), CHINA),
        (apple(p, (-0.82, 0.84, 0.36), 0.335), RED),
        (apple(p, (-0.72, 0.86, -0.28), 0.33), GREEN),
        (ball(p, (-0.3, 0.82, 0.52), 0.3), ORANGE),
        (ball(p, (0.16, 0.8, 0.36), 0.27), ORANGE),
        (pear, PEAR),
        (stalk(p, (-0.82, 0.98, 0.36)), BARK),
        (stalk(p, (-0.72, 1.0, -0.28), (-0.04, 0)), BARK),
        (stalk(p, (-0.06, 1.43, -0.02), (0.07, 0), 0.15), BARK),
    )


def jug(p):
    """The jug and its handle."""
    body = turned(p, (0.98, 0, -0.55), JUG_Y, JUG_R)
    h = p - np.float32((1.5, 1.1, -0.5))
    ring = np.sqrt((np.sqrt((h[..., 0] * 1.15) ** 2 + h[..., 1] ** 2) - 0.36) ** 2 + h[..., 2] ** 2)
    return nearest((melt(body, np.maximum(ring - 0.055, 1.16 - p[..., 0]), 0.05), CLAY))


def lemon(p):
    """The lemon, with its two tips."""
    fruit = melt(ball(p, (0.55, 0.235, 1.12), 0.235), ball(p, (0.8, 0.24, 1.2), 0.05), 0.14)
    return nearest((melt(fruit, ball(p, (0.3, 0.24, 1.05), 0.05), 0.14), LEMON))


def grapes(p):
    """The bunch of grapes."""
    return nearest((np.min([ball(p, at, 0.1) for at in GRAPES], 0), GRAPE))


def fallen(p):
    """The apple on the cloth."""
    stem = stalk(p, (-1.28, 0.36, 1.02), (0.06, 0.03))
    return nearest((apple(p, (-1.28, 0.245, 1.02), 0.31), RED), (stem, BARK))


GROUPS = (  # with a ball around each: what is far from it need not be computed
    (bowl, (-0.38, 0.75, 0.1), 1.12),
    (jug, (1.1, 0.88, -0.52), 1.12),
    (lemon, (0.55, 0.24, 1.12), 0.36),
    (grapes, (1.22, 0.2, 0.7), 0.52),
    (fallen, (-1.28, 0.3, 1.02), 0.42),
)


def scene(p):
    """Distance of points [n, 3] from the nearest thing, at most; and which thing that is [n]."""
    x, y, z = p.T
    folds = 0.03 * np.sin(x * 2.3 + 0.8 * np.sin(z * 1.7)) * np.clip(z - 0.2, 0, 2)
    far, thing = (y - folds) * np.float32(0.9), np.full(len(p), LINEN)
    for group, at, radius in GROUPS:
        outside = ball(p, at, radius)
        close = np.flatnonzero(outside < np.minimum(far, 0.3))
        rest = np.flatnonzero((outside < far) & (outside >= 0.3))
        if len(close):
            d, k = group(p[close])
            closer = d < far[close]
            far[close[closer]], thing[close[closer]] = d[closer], k[closer]
        far[rest] = outside[rest]
    return far, thing


def march(origin, ray, steps, reach):
    """How far rays [n, 3] go until they meet something, `reach` if nothing."""
    t = np.full(len(ray), 0.02, np.float32)
    live = np.arange(len(ray))
    for _ in range(steps):
        d, _ = scene(origin[live] + t[live, None] * ray[live])
        t[live] += d
        live = live[(d > 0.0012) & (t[live] < reach)]
        if not len(live):
            break
    return np.minimum(t, reach)


def surface(rng, p, thing, normal):
    """Colours [n, 3] of the things at points [n, 3]."""
    n = 512
    grains = [noise(rng, n, n, cell, 5) for cell in (160, 40)]

    def mottle(k, size, x, z):
        """Noise around an upright axis; its seam is at the back."""
        turn = np.arctan2(p[:, 0] - x, p[:, 2] - z) / (2 * math.pi) * n * size + n / 2
        return grains[k][(p[:, 1] * 260).astype(int) % n, turn.astype(int) % n]

    flat = [g[(p[:, 2] * 110).astype(int) % n, (p[:, 0] * 110).astype(int) % n] for g in grains]
    c, s = math.cos(0.5), math.sin(0.5)
    a, b = p[:, 0] * c + p[:, 2] * s, p[:, 2] * c - p[:, 0] * s
    stripe = [smooth(0.07, 0.1, np.abs(((v / 0.62) % 1) - 0.5) * 0.62) for v in (a, b)]
    broad = [smooth(-0.03, 0.03, np.abs(((v / 0.62) % 1) - 0.5) - 0.25) for v in (a, b)]
    linen = ramp(0.84 + 0.06 * flat[1], "8b8a86", "d9d2c3", "f2ecdf")
    linen = blend(linen, linen * colour("7289b5"), 0.6 * broad[0])
    linen = blend(linen, linen * colour("7289b5"), 0.6 * broad[1])
    linen = blend(linen, linen * colour("c8554a"), 0.75 * (1 - stripe[0]))
    linen = blend(linen, linen * colour("c8554a"), 0.75 * (1 - stripe[1]))
    around = np.arctan2(p[:, 0] + 0.38, p[:, 2] - 0.1)
    china = np.broadcast_to(colour("f0ede4"), p.shape)
    wave = np.abs(p[:, 1] - 0.5 - 0.05 * np.sin(around * 12))
    motif = smooth(0.03, 0.018, wave) + smooth(0.02, 0.012, np.abs(np.abs(p[:, 1] - 0.5) - 0.13))
    petal = np.hypot((around * 12 / math.pi % 2) - 1.5, (p[:, 1] - 0.46) / 0.05)
    motif = np.clip(motif + smooth(0.5, 0.4, petal) + smooth(0.7, 0.72, p[:, 1]), 0, 1)
    china = blend(china, np.broadcast_to(colour("23509a"), china.shape), motif)
    axes = (-0.82, 0.36), (-0.72, -0.28), (-1.28, 1.02)  # of the three apples
    first, second, third = (mottle(1, 2, *at) * 0.22 + mottle(0, 1, *at) * 0.2 for at in axes)
    ripe = 0.42 + np.where(p[:, 2] > 0.7, third, first) + 0.25 * normal[:, 1]
    crimson = ramp(ripe, "7a0d14", "b5171c", "cf2f22", "e08a3a")
    green = ramp(0.5 + second + 0.35 * normal[:, 0], "c0452c", "a6a83a", "8fb03a", "c4cf6a")
    turn = np.arctan2(p[:, 0], p[:, 2])
    dimple = noise(rng, n, n, 5, 2)[(p[:, 1] * 300).astype(int) % n, (turn * 160).astype(int) % n]
    orange = ramp(0.5 + 0.1 * dimple + 0.12 * flat[0], "c85a10", "ee8420", "f9a63c")
    ripe = 0.5 + 0.3 * mottle(1, 2, -0.1, 0) - 0.5 * normal[:, 0]
    pear = ramp(ripe, "b5652c", "c9a83c", "cfc75a", "9fae3f")
    pear = pear * (1 - 0.35 * smooth(0.9, 1.4, mottle(1, 6, -0.1, 0)))[:, None]
    lemon = ramp(0.5 + 0.12 * dimple + 0.1 * flat[0], "cf9f12", "f3d02f", "fbe878")
    bloom = ramp(0.35 + 0.3 * normal[:, 1] + 0.14 * flat[1], "1f0c26", "4a1f52", "7d5a92")
    bark = np.broadcast_to(colour("4a3218"), p.shape)
    glaze = 0.5 + 0.1 * mottle(0, 1, 0.98, -0.55) + 0.05 * np.sin(p[:, 1] * 60)
    drip = p[:, 1] > 1.42 + 0.05 * np.sin(9 * np.arctan2(p[:, 0] - 0.98, p[:, 2] + 0.55))
    clay = ramp(glaze, "173d3c", "2f6c66", "6fa595")
    clay = np.where(drip[:, None], colour("d8cda8"), clay)
    table = np.stack([linen, china, crimson, green, orange, pear, lemon, bloom, bark, clay])
    return table[thing, np.arange(len(p))] ** np.float32(1.25)


def shading(rng, p, d):
    """Colours [n, 3] of points [n, 3] that rays of directions d [n, 3] meet."""
    thing, e = scene(p)[1], 0.0015
    corners = np.float32([(1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)])
    normal = sum(o * scene(p + e * o)[0][:, None] for o in corners)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    # A soft shadow: how near the way to the lamp passes by things, as an angle.
    shadow = np.ones(len(p), np.float32)
    start, s = p + 0.012 * normal, np.full(len(p), 0.02, np.float32)
    for _ in range(26):
        near = scene(start + s[:, None] * LAMP)[0]
        shadow = np.minimum(shadow, np.clip(0.5 + 3.5 * near / s, 0, 1))
        s = s + np.clip(near, 0.02, 0.3)
    shadow = shadow * shadow * (3 - 2 * shadow)
    # Ambient light: less where something is close above the surface.
    occlusion = np.zeros(len(p), np.float32)
    for k, far in enumerate((0.03, 0.09, 0.2, 0.38)):
        occlusion += np.clip(far - scene(p + far * normal)[0], 0, None) / far * 0.6 ** (k * 0.6)
    ambient = np.clip(1 - 0.36 * occlusion, 0.08, 1)
    facing = normal @ LAMP
    soft = np.where(np.isin(thing, (ORANGE, PEAR, LEMON, GRAPE)), 0.16, 0.05)  # light gets in
    direct = 1.18 * np.clip(facing, 0, 1) * shadow + soft * np.clip(0.5 + facing, 0, 1)
    above = ambient * (0.26 + 0.1 * normal[:, 1])
    below = 0.14 * ambient * np.clip(0.35 - normal[:, 1], 0, 1)
    light = np.stack([direct, above, below], -1) @ np.float32(
        [(1.0, 0.93, 0.8), (0.72, 0.84, 1.0), (1.0, 0.8, 0.6)]
    )
    shade = surface(rng, p, thing, normal) * light
    # What shines mirrors a window with a bar, and the sky at grazing angles.
    back = d - 2 * (d * normal).sum(-1, keepdims=True) * normal
    fresnel = 0.04 + 0.5 * np.clip(1 + (d * normal).sum(-1), 0, 1) ** 4
    across, high, toward = back @ np.float32((0.6, 0, 0.62)) + 0.05, back[:, 1], back @ LAMP
    pane = smooth(0.2, 0.15, np.abs(across)) * smooth(0.26, 0.2, np.abs(high - 0.62))
    pane *= smooth(0.5, 0.7, toward) * (1 - 0.8 * smooth(0.022, 0.008, np.abs(across)))
    gloss = np.array([0, 1, 0.75, 0.75, 0.28, 0.4, 0.32, 0.7, 0.1, 0.9], np.float32)[thing]
    shade += (gloss * shadow * (0.75 * pane + 0.14 * np.clip(toward, 0, 1) ** 26))[:, None]
    sky = gloss * fresnel * ambient * (0.25 + 0.45 * np.clip(high, 0, 1))
    return shade + sky[:, None] * np.float32((0.75, 0.85, 0.95))


def still_life(rng, h=480, w=640, fine=2):
    """Fruit in a bowl, a jug, a chequered cloth: rays against distances, one window as the light."""
    hh, ww = h * fine, w * fine
    x, y = grid(hh, ww)
    eye, look = np.float32((-0.25, 2.0, 5.2)), np.float32((0.02, 0.66, 0.1))
    front = (look - eye) / np.linalg.norm(look - eye)
    right = np.cross(front, (0, 1, 0))
    right /= np.linalg.norm(right)
    up = np.cross(right, front)
    u, v = (x - ww / 2) / ww * 0.88, (hh / 2 - y) / ww * 0.88
    ray = (front + u[..., None] * right + v[..., None] * up).reshape(-1, 3).astype(np.float32)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    reach = 9.0
    t = march(np.broadcast_to(eye, ray.shape), ray, 90, reach)
    p = eye + t[:, None] * ray
    hit = (t < reach - 0.1) & (p[:, 2] > -2.2)  # else the wall behind the table
    from_window = np.hypot((x - 0.18 * ww) / ww, (y - 0.12 * hh) / hh)
    plaster = 0.75 * from_window + 0.07 * noise(rng, hh, ww, 240, 5, 0.6)
    image = ramp(plaster, "a9a48c", "7d7f70", "4b524e", "23292c").reshape(-1, 3)
    shade = shading(rng, p[hit], ray[hit])
    image[hit] = shade / (1 + 0.22 * shade)  # bright parts are compressed, as film does
    image = image.reshape(h, fine, w, fine, 3).mean((1, 3))
    x, y = grid(h, w)
    image = image * (1.05 - 0.3 * np.hypot((x - w / 2) / w, (y - h / 2) / h) ** 2)[..., None]
    return np.clip(image, 0, 1) ** 0.86 + 0.006 * rng.standard_normal((h, w, 1))
