"""Moving images: frames -> MP4, GIF, or a folder of PNG files, whole or not there."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from PIL import Image

from nada_jax import files, images
from nada_jax.errors import UserError

MOST_FRAMES = 20_000  # eleven minutes at 30 frames per second
LARGEST_SIDE = 8192  # pixels that players decode; H.264 itself ends at twice as many
SLOWEST, FASTEST = 0.1, 120  # frames per second: slower ones are slides, which players count badly
# A GIF counts time in 1/100 s, and browsers show frames of less than two of them far slower than they should.
FASTEST_GIF = 50
# x264's scale of quality, from 0, without loss, to 51. At 18 the loss is not seen.
CRF = 18
# Of all frames together, whose palette is found from them: more would only take longer.
PALETTE_PIXELS = 2**19
# Of 255: shades of white that become white. Pillow takes 252 to 255 for 252, from which 247 is nearer than 255, but not 246.
NEARLY = 8
FRAME = "frame_{:05d}.png"  # of a folder; ffmpeg and others read it as frame_%05d.png

Add = Callable[[np.ndarray], None]  # takes frames uint8 [n, h, w, 3]


def check(
    format: str, frames: int, fps: float, size: tuple[int, int], *, field: str = "video"
) -> None:
    """Refuses what cannot be written, before anything is drawn.

    Args:
      format: a row of `FORMATS`.
      frames: of the moving image.
      fps: frames per second.
      size: height and width in pixels.
      field: the section of a config that has `format`, `fps` and `side`, as messages call it.

    Raises:
      UserError: there are no frames or too many, they are too large, too fast for the format, or ffmpeg is missing.
    """
    if format not in FORMATS:
        raise UserError(f"{field}.format is {format!r}; expected one of {', '.join(FORMATS)}")
    row, (height, width) = FORMATS[format], size
    if not 1 <= frames <= MOST_FRAMES:
        raise UserError(
            f"there would be {frames:,} frames at {field}.fps={fps:g}; expected 1 to {MOST_FRAMES:,}"
        )
    if not SLOWEST <= fps <= row.fastest:
        raise UserError(f"{field}.fps is {fps:g}; expected {SLOWEST} to {row.fastest} for {format}")
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise UserError(
            f"frames would have {width:,} x {height:,} pixels; expected at most {LARGEST_SIDE:,} each way, as fewer "
            f"tiles or a smaller {field}.side give"
        )
    if frames * height * width > row.pixels:
        raise UserError(
            f"{frames:,} frames of {width:,} x {height:,} pixels are {frames * height * width:,} in all; expected at "
            f"most {row.pixels:,} for {format}, as a smaller {field}.side, fewer frames"
            f"{' or mp4' if format != 'mp4' else ''} give"
        )
    if format == "mp4":
        _ffmpeg(f"{field}.format")


class Writer:
    """Writes a moving image, some frames at a time, within a `with` block.

        with Writer("walk.mp4", fps=30, size=(256, 256)) as writer:
            writer.add(frames)

    It stands under a temporary name until the block ends, and is deleted where the block fails; what stood at `path` is
    replaced only then.

    Args:
      path: the file, or the folder of a format "frames".
      fps: frames per second.
      size: height and width of a frame in pixels.
      format: a row of `FORMATS`; by default that of the ending of `path`, "frames" where it has none.

    Raises:
      UserError: the format is unknown, the file cannot be written, ffmpeg is missing, or no frame was added.
    """

    def __init__(
        self, path: str | os.PathLike, *, fps: float, size: tuple[int, int], format: str = ""
    ):
        self.path, self.fps, self.size = files.expand(path), fps, tuple(size)
        suffix = self.path.suffix.lower()
        self.format = format or next((k for k, row in FORMATS.items() if row.suffix == suffix), "")
        if self.format not in FORMATS:
            raise UserError(f"cannot write {self.path}: expected .mp4, .gif, or a folder")
        self.frames = 0  # that were added

    def __enter__(self) -> Self:
        self._open = FORMATS[self.format].open(self.path, self.fps, self.size)
        self._add = self._open.__enter__()
        return self

    def add(self, frames: np.ndarray) -> None:
        """Adds frames uint8 [n, h, w, 3]."""
        if frames.dtype != np.uint8 or frames.shape[1:] != (*self.size, 3):
            raise ValueError(
                f"frames are {frames.dtype} {frames.shape}; expected uint8 [n, {self.size[0]}, {self.size[1]}, 3]"
            )
        self._add(frames)
        self.frames += len(frames)

    def __exit__(self, kind, error, trace) -> None:
        if kind is None and self.frames:
            self._open.__exit__(None, None, None)
            return
        # What the block raised goes on as it is: it is no fault of the file.
        ended = error or UserError(
            f"cannot write {self.path}: there are no frames; expected at least 1"
        )
        with contextlib.suppress(Exception):
            self._open.__exit__(type(ended), ended, trace)
        if error is None:
            raise ended


# -- Formats -------------------------------------------------------------------------------------------


def _ffmpeg(said: str) -> str:
    """The program that encodes H.264; UserError where this machine has none."""
    try:
        import imageio_ffmpeg  # noqa: PLC0415 - only here: GIF and frames do without it

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"{said} is 'mp4', which ffmpeg writes, and there is none here; expected `pip install imageio-ffmpeg`, a "
            "program named by IMAGEIO_FFMPEG_EXE, or the formats gif or frames"
        ) from error


@contextlib.contextmanager
def _mp4(path: Path, fps: float, size: tuple[int, int]) -> Iterator[Add]:
    """H.264 in yuv420p, which every browser and phone plays."""
    # This format has one colour for four pixels, and so an even number of pixels each way: the edge is repeated.
    odd = (0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0)
    height, width = size[0] + size[0] % 2, size[1] + size[1] % 2
    exe = _ffmpeg("the format")
    with files.atomic(path) as temporary, tempfile.TemporaryFile() as log:
        command = [
            exe, "-y", "-nostdin", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "pipe:0", "-an",
            # Players guess by the size which colours are meant, unless the file says it.
            "-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
            "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709",
            "-color_range", "tv", "-c:v", "libx264", "-crf", str(CRF),
            "-movflags", "+faststart",  # the index first, so that a page shows it while it loads
            "-f", "mp4", os.fspath(temporary),
        ]  # fmt: skip

        def failed(why: object) -> UserError:
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()
            return UserError(f"cannot write {path}: ffmpeg failed ({said[-1] if said else why})")

        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log
            )
        except OSError as error:  # IMAGEIO_FFMPEG_EXE is believed as it is
            raise UserError(
                f"cannot write {path}: ffmpeg at {exe} does not start: {error.strerror}"
            ) from error

        def add(frames: np.ndarray) -> None:
            try:
                process.stdin.write(np.ascontiguousarray(np.pad(frames, odd, "edge")).data)
            except OSError as error:  # it has ended
                process.wait()
                raise failed(error) from error

        try:
            yield add
            try:
                process.stdin.close()
            except OSError as error:
                process.wait()
                raise failed(error) from error
            if code := process.wait():
                raise failed(f"exit code {code}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            with contextlib.suppress(OSError):
                process.stdin.close()


@contextlib.contextmanager
def _gif(path: Path, fps: float, size: tuple[int, int]) -> Iterator[Add]:
    """One palette for all frames, so that colours stay still where the image does."""
    frames: list[np.ndarray] = []
    with files.atomic(path) as temporary:
        yield frames.extend
        total = len(frames) * size[0] * size[1]
        # An odd step, so that it is not always the same columns of the frames.
        step = total // PALETTE_PIXELS | 1
        sample = np.concatenate(
            [frame.reshape(-1, 3)[i % step :: step] for i, frame in enumerate(frames)]
        )
        palette = _pure(Image.fromarray(sample[None]).quantize(256, kmeans=1))
        # Without dithering: its dots would swim from frame to frame, and not compress.
        still = [
            Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
            for frame in frames
        ]
        # From the start each, so that rounding does not add up.
        ends = [round(100 * (i + 1) / fps) for i in range(len(still))]
        durations = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
        still[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=still[1:],
            duration=durations,
            loop=0,
        )


def _pure(palette: Image.Image) -> Image.Image:
    """Makes what is nearly white and black exactly that, as paper and words are."""
    colours = np.asarray(palette.getpalette("RGB"), int).reshape(-1, 3)
    for pure in (0, 255):
        colours[np.abs(colours - pure).max(axis=1) <= NEARLY] = pure
    palette.putpalette(colours.astype(np.uint8).tobytes())
    return palette


@contextlib.contextmanager
def _folder(path: Path, fps: float, size: tuple[int, int]) -> Iterator[Add]:
    """A PNG for each frame."""
    count = 0
    with files.writing(path):
        if path.exists() and not path.is_dir():
            raise UserError(f"cannot write {path}: it is a file; expected a folder")
        if strangers := [
            x.name for x in _entries(path) if not re.fullmatch(r"frame_\d+\.png", x.name)
        ]:
            raise UserError(
                f"cannot write {path}: it holds {strangers[0]!r}, which is no frame; expected a new folder"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))

    def add(frames: np.ndarray) -> None:
        nonlocal count
        for frame in frames:
            images.save(frame, temporary / FRAME.format(count))
            count += 1

    try:
        yield add
        with files.writing(path):
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)  # that of mkdtemp is private
            for old in _entries(path):
                old.unlink()
            temporary.replace(path)  # a folder gives way where it is empty
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _entries(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []


class Format(NamedTuple):
    """A way to keep a moving image.

    Attributes:
      suffix: of the file's name; "" is a folder.
      open: (path, frames per second, (height, width)) -> a context that gives `Add`.
      fastest: frames per second.
      pixels: of all frames together, at most.
    """

    suffix: str
    open: Callable[[Path, float, tuple[int, int]], contextlib.AbstractContextManager[Add]]
    fastest: int
    pixels: int


FORMATS = {
    "mp4": Format(".mp4", _mp4, FASTEST, 2**35),
    "gif": Format(".gif", _gif, FASTEST_GIF, 2**27),  # all of them are held, at three bytes each
    "frames": Format("", _folder, FASTEST, 2**33),  # some 10 GB
}
