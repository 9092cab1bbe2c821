"""Moving images in files: what is read back, what is refused, and what is left where writing fails."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from nada_jax import videos
from nada_jax.errors import UserError


@pytest.fixture(scope="module")
def frames():
    """A soft image of odd sizes that moves, uint8 [24, 33, 47, 3]."""
    y, x, t = np.meshgrid(np.arange(33), np.arange(47), np.arange(24), indexing="ij")
    channels = [np.sin(x / 9 + t / 5), np.cos(y / 7 - t / 6), np.sin(x / 9 + t / 5 + 0.5)]
    moving = np.stack([127 + 100 * c for c in channels], axis=-1).astype(np.uint8)
    return np.moveaxis(moving, 2, 0)


def write(path, frames, fps=30.0):
    with videos.Writer(path, fps=fps, size=frames.shape[1:3]) as writer:
        writer.add(frames[:5])
        writer.add(frames[5:])


def test_an_mp4_decodes_to_its_frames(frames, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    write(tmp_path / "video.mp4", frames)
    # Not by its read_frames, which forks this process, whose threads are JAX's.
    command = [ffmpeg.get_ffmpeg_exe(), "-i", tmp_path / "video.mp4", "-f", "rawvideo"]
    read = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    said = read.stderr.decode()
    assert "yuv420p(tv, bt709" in said and "h264" in said and "30 fps" in said
    decoded = np.frombuffer(read.stdout, np.uint8).reshape(-1, 34, 48, 3)
    assert len(decoded) == len(frames)
    change = decoded[:, :33, :47].astype(int) - frames
    assert np.abs(change).mean() < 5 and np.abs(change.mean(axis=(0, 1, 2))).max() < 2
    # The faststart index lies before the frames.
    content = (tmp_path / "video.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_gif_has_all_frames_the_time_and_one_palette(frames, tmp_path):
    write(tmp_path / "video.gif", frames, fps=30.0)
    with Image.open(tmp_path / "video.gif") as gif:
        assert gif.n_frames == 24 and gif.info["loop"] == 0
        durations, error = [], []
        for i in range(24):
            gif.seek(i)
            durations.append(gif.info["duration"])
            error.append(np.abs(np.asarray(gif.convert("RGB"), int) - frames[i]).mean())
    assert sum(durations) == 800 and set(durations) == {30, 40}
    assert max(error) < 6


def test_white_stays_white_in_a_gif(tmp_path):
    shades = np.random.default_rng(0).integers(246, 256, (4, 32, 32, 3), np.uint8)
    shades[:, 16:] = 255
    write(tmp_path / "video.gif", shades)
    with Image.open(tmp_path / "video.gif") as gif:
        assert (np.asarray(gif.convert("RGB"))[16:] == 255).all()


def test_a_folder_has_exact_frames_and_replaces_those_of_before(frames, tmp_path):
    write(tmp_path / "frames", frames)
    write(tmp_path / "frames", frames[:7])
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"frame_{i:05d}.png" for i in range(7)]
    with Image.open(tmp_path / "frames" / names[-1]) as image:
        assert np.array_equal(np.asarray(image), frames[6])
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


@pytest.mark.parametrize("name", ["video.mp4", "video.gif", "frames"])
def test_what_fails_leaves_what_was_there(name, frames, tmp_path):
    write(tmp_path / name, frames[:6])
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with (
        pytest.raises(KeyboardInterrupt),
        videos.Writer(tmp_path / name, fps=30, size=(33, 47)) as writer,
    ):
        writer.add(frames)
        raise KeyboardInterrupt
    empty = videos.Writer(tmp_path / name, fps=30, size=(33, 47))
    with pytest.raises(UserError, match=f"{name}: there are no frames; expected at least 1"), empty:
        pass
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))


def test_a_folder_of_other_files_is_left_alone(frames, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "holiday.png").touch()
    with pytest.raises(UserError, match="it holds 'holiday.png', which is no frame"):
        write(tmp_path / "frames", frames)
    file = tmp_path / "frames" / "holiday.png"
    onto = videos.Writer(file, fps=30, size=(33, 47), format="frames")
    with pytest.raises(UserError, match="holiday.png: it is a file; expected a folder"), onto:
        pass


def test_an_ffmpeg_that_fails_or_is_missing_is_named(frames, tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho 'no such codec' >&2\nexit 3\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    for program, message in (
        ("ffmpeg", r"video.mp4: ffmpeg failed \(no such codec\)"),
        ("nowhere", "ffmpeg at .*nowhere does not start: No such file"),
    ):
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / program))
        with pytest.raises(UserError, match=message):
            write(tmp_path / "video.mp4", frames)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="video.format is 'mp4', which ffmpeg writes, and there is"):
        videos.check("mp4", 10, 30.0, (64, 64))
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("webm", 10, 30.0, (64, 64)), "video.format is 'webm'; expected one of mp4, gif, frames"),
        (("gif", 0, 30.0, (64, 64)), "there would be 0 frames at video.fps=30; expected 1 to 20,0"),
        (("gif", 20_001, 30.0, (64, 64)), "there would be 20,001 frames"),
        (("gif", 10, 60.0, (64, 64)), "video.fps is 60; expected 0.1 to 50 for gif"),
        (("mp4", 10, 1e-6, (64, 64)), "video.fps is 1e-06; expected 0.1 to 120 for mp4"),
        (("frames", 10, 30.0, (64, 9000)), "frames would have 9,000 x 64 pixels; expected at most"),
        (
            ("gif", 900, 30.0, (512, 512)),
            "are 235,929,600 in all; expected at most 134,217,728 for",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_before_it_is_drawn(given, message):
    with pytest.raises(UserError, match=message):
        videos.check(*given)


def test_frames_of_another_size_are_a_mistake_of_the_program(frames, tmp_path):
    other = videos.Writer(tmp_path / "video.gif", fps=30, size=(32, 32))
    with pytest.raises(ValueError, match=r"expected uint8 \[n, 32, 32, 3\]"), other as writer:
        writer.add(frames)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"video.txt: expected .mp4, .gif, or a folder"):
        videos.Writer(tmp_path / "video.txt", fps=30, size=(32, 32))
