"""Frames of a scene: drawn in batches of one shape, so that each program is compiled once, and laid out with labels."""

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nada_jax import batches, images, videos
from nada_jax.latents.codes import Codes
from nada_jax.models.blending import interpolate
from nada_jax.models.stylegan2 import Generator
from nada_jax.motion.scenes import Normal, Scene, Stop
from nada_jax.motion.settings import Timing, Video, count_frames, shares

GAP, LABEL = 4, 22  # pixels between tiles, and below them for words
STILLS = 12  # frames of a contact sheet at most

Report = Callable[
    [int, int], None
]  # of progress: (finished frames, all); what it raises ends the work


class Layout(NamedTuple):
    """Where tiles and words are in a frame.

    Attributes:
      columns, rows: of tiles.
      factor: by which pixels are enlarged.
      side: of a tile in pixels.
      labels: of the tiles, or none.
      captioned: whether there are words below all tiles.
    """

    columns: int
    rows: int
    factor: int
    side: int
    labels: Sequence[str]
    captioned: bool

    @classmethod
    def of(cls, scene: Scene, video: Video) -> Self:
        """That of a scene."""
        count = len(scene.tiles)
        # As many as below each other, but few stand in one row.
        square = count if count <= 3 else math.ceil(math.sqrt(count))
        columns = min(int(video.columns), count) or square
        # By whole pixels: smoothing would hide artefacts of the generator.
        factor = max(1, int(video.side) // scene.size)
        side = factor * scene.size
        if 0 < video.side < scene.size:
            side = int(video.side)
        labels = scene.labels if video.labels and any(scene.labels) else ()
        return cls(
            columns,
            -(-count // columns),
            factor,
            side,
            labels,
            video.labels and bool(scene.captions),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        height = self.rows * (self._pitch + GAP) - GAP + LABEL * self.captioned
        return height, self.columns * (self.side + GAP) - GAP

    @property
    def _pitch(self) -> int:
        return self.side + (LABEL if self.labels else 0)

    def compose(self, drawn: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
        """Puts tiles together.

        Args:
          drawn: uint8 [n, size, size, 3] of each tile.
          captions: of each frame, n of them, where there are any.

        Returns:
          uint8 [n, height, width, 3].
        """
        frames = np.full((len(drawn[0]), *self.size, 3), 255, np.uint8)
        for i, tile in enumerate(drawn):
            row, column = divmod(i, self.columns)
            top, left = row * (self._pitch + GAP), column * (self.side + GAP)
            frames[:, top : top + self.side, left : left + self.side] = self._resized(tile)
            if self.labels:
                words = _written(self.labels[i], self.side)
                frames[:, top + self.side : top + self._pitch, left : left + self.side] = words
        if self.captioned:
            for frame, caption in zip(frames, captions, strict=True):
                frame[-LABEL:] = _written(caption, self.size[1])
        return frames

    def _resized(self, tile: np.ndarray) -> np.ndarray:
        if self.side < tile.shape[1]:
            box = self.side, self.side
            return np.stack(
                [Image.fromarray(x).resize(box, Image.Resampling.LANCZOS) for x in tile]
            )
        return tile.repeat(self.factor, axis=1).repeat(self.factor, axis=2)


@functools.lru_cache(maxsize=256)
def _written(words: str, width: int) -> np.ndarray:
    """Words on white, uint8 [LABEL, width, 3], as many as there is room for."""
    bar = Image.new("RGB", (width, LABEL), "white")
    pen, font = ImageDraw.Draw(bar), ImageFont.load_default(LABEL - 8)
    while words and pen.textlength(words, font=font) > width - 8:
        words = words[:-1]
    pen.text((4, 2), words, fill="black", font=font)
    return np.asarray(bar)


def check(scene: Scene, timing: Timing, video: Video) -> None:
    """Refuses a moving image that cannot be written, before anything is drawn; UserError."""
    total = count_frames(scene.legs(timing.loop), timing, video.fps)
    videos.check(video.format, total, video.fps, Layout.of(scene, video).size)


def frames(
    scene: Scene, timing: Timing, video: Video, *, batch: int, report: Report | None = None
) -> Iterator[np.ndarray]:
    """Draws the frames of a scene.

    Args:
      scene: of `scenes`.
      timing: says how long legs take, and whether there is one back.
      video: says how many frames there are in a second, and how large they are.
      batch: images drawn at once; bounds the memory, whatever the length.
      report: is called after each batch with the finished frames and all of them; what it raises ends the work.

    Yields:
      Frames uint8 [n, height, width, 3], n up to `batch`, of the size of `Layout`.

    Raises:
      UserError: see `check`; or an image is not finite.
    """
    check(scene, timing, video)
    return _frames(scene, timing, video, batch, report)


def _frames(
    scene: Scene, timing: Timing, video: Video, batch: int, report: Report | None
) -> Iterator[np.ndarray]:
    layout, legs = Layout.of(scene, video), scene.legs(timing.loop)
    ways, stops = shares(legs, timing, video.fps), len(scene.tiles[0])
    total, done = sum(map(len, ways)), 0
    for leg, way in enumerate(ways):
        ends = leg, (leg + 1) % stops
        for rows in batches.split(len(way), batch):
            count = min(batch, len(way) - int(rows[0]))
            drawn = [
                _draw(scene, *(tile[i] for i in ends), way[rows])[:count] for tile in scene.tiles
            ]
            pixels = [images.to_uint8(x) for x in drawn]
            captions = [
                scene.captions[ends[int(t >= 0.5)]] for t in way[rows][:count] if scene.captions
            ]
            done += count
            if report is not None:
                report(done, total)
            yield layout.compose(pixels, captions)


def write(
    path: str | os.PathLike,
    scene: Scene,
    timing: Timing,
    video: Video,
    *,
    batch: int,
    report: Report | None = None,
) -> np.ndarray:
    """Draws a scene into a file, or a folder, which is whole or not there.

    Args:
      path: where it shall stand; see `videos.Writer`.
      scene, timing, video, batch, report: see `frames`.

    Returns:
      A few of its frames, uint8 [n, height, width, 3], evenly apart, for a contact sheet.

    Raises:
      UserError: see `frames` and `videos.Writer`.
    """
    drawn = frames(scene, timing, video, batch=batch, report=report)
    total = count_frames(scene.legs(timing.loop), timing, video.fps)
    # Of a loop the last frame is nearly the first: it ends before it.
    chosen = (
        np.linspace(0, total, STILLS, endpoint=False)
        if timing.loop
        else np.linspace(0, total - 1, STILLS)
    )
    chosen = sorted(set(chosen.astype(int).tolist()))
    stills, done = [], 0
    size = Layout.of(scene, video).size
    with videos.Writer(path, fps=video.fps, size=size, format=video.format) as writer:
        for some in drawn:
            writer.add(some)
            stills += [some[i - done] for i in chosen if done <= i < done + len(some)]
            done += len(some)
    return np.stack(stills)


# -- Programs ------------------------------------------------------------------------------------------


def _draw(scene: Scene, start: Stop, end: Stop, t: np.ndarray) -> np.ndarray:
    """Images [n, size, size, 3] between two stops, at shares t [n] of the way."""
    if isinstance(start.codes, Normal):
        codes = _spherical(scene.mapping, start.codes.z, end.codes.z, t, scene.truncation)
    else:
        codes = _linear(start.codes, end.codes, t)
    if start.generator is end.generator:
        return np.asarray(_still(start.generator, codes))
    return np.asarray(_changing(start.generator, end.generator, codes, t))


def _mixed(x: jax.Array, y: jax.Array, t: jax.Array) -> jax.Array:
    """(1 - t) x + t y, exact at both ends."""
    return (1 - t) * x + t * y


@jax.jit
def _linear(start: Codes, end: Codes, t: jax.Array) -> Codes:
    """Latents [n, ...] between two of b = 1."""
    return jax.tree.map(lambda x, y: _mixed(x, y, t.reshape(-1, *[1] * (x.ndim - 1))), start, end)


@jax.jit
def _spherical(
    generator: Generator, start: jax.Array, end: jax.Array, t: jax.Array, truncation: jax.Array
) -> Codes:
    """Maps z along the arc between two, whose length changes evenly (Shoemake 1985)."""
    t, lengths = t[:, None], [jnp.linalg.norm(z) for z in (start, end)]
    one, other = start / lengths[0], end / lengths[1]
    angle = jnp.arccos(jnp.clip(jnp.sum(one * other), -1, 1))
    # Of one seed twice, the arc is a point, and its formula 0 / 0.
    safe = jnp.maximum(jnp.sin(angle), 1e-6)
    arc = (jnp.sin((1 - t) * angle) * one + jnp.sin(t * angle) * other) / safe
    arc = jnp.where(angle < 1e-3, _mixed(one, other, t), arc)
    ws = generator.map(arc * _mixed(*lengths, t))
    return Codes(ws=generator.broadcast(generator.truncate(ws, truncation)))


@jax.jit
def _still(generator: Generator, codes: Codes) -> jax.Array:
    return codes.draw(generator)


@jax.jit
def _changing(start: Generator, end: Generator, codes: Codes, t: jax.Array) -> jax.Array:
    """Images by generators between two; one by one, as each has weights of its own."""

    def single(moment: tuple[jax.Array, Codes]) -> jax.Array:
        share, one = moment
        generator = interpolate(start, end, share)
        # Buffers differ where one was not adapted from the other, or was inverted with its own.
        noise = {name: _mixed(x, end.noise[name], share) for name, x in start.noise.items()}
        codes = jax.tree.map(lambda x: x[None], one)
        return codes.draw(generator.replace(noise=noise))[0]

    return jax.lax.map(single, (t, codes))
