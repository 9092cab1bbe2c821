"""Images in, images out."""

import numpy as np
import pytest
from PIL import Image

from nada_jax import images
from nada_jax.errors import UserError


def save(path, size=(6, 4), mode="RGB", color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def test_reading_turns_cuts_and_resizes(tmp_path):
    sides = np.zeros((4, 8, 3), np.uint8)
    sides[:, 2:6] = 255  # the middle is white, both ends are black
    Image.fromarray(sides).save(tmp_path / "a.png")
    assert np.array_equal(images.read(tmp_path / "a.png", 4), np.ones((4, 4, 3)))
    assert images.read(tmp_path / "a.png", 2).min() > 0.8
    upright = Image.new("L", (4, 4), 0)
    upright.paste(255, (0, 0, 4, 2))  # white above, black below
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    upright.save(tmp_path / "b.png", exif=exif)
    read = images.read(tmp_path / "b.png", 4)
    assert read[0, 0, 0] == -1 and read[3, 0, 0] == 1
    save(tmp_path / "c.png", mode="RGBA", color=(0, 0, 0, 0))
    assert images.read(tmp_path / "c.png", 2).min() == 1


def test_a_folder_is_read_in_batches_and_what_is_no_image_is_named(tmp_path):
    for i in range(3):
        save(tmp_path / "sub" / f"{i}.png", color=(85 * i, 0, 0))
    save(tmp_path / "z.webp", size=(9, 9), mode="L", color=255)
    save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("no image")
    whole = (tmp_path / "sub" / "0.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    said = []
    batches = list(images.stream(tmp_path, 4, field="folder", say=said.append, batch=3))
    assert [batch.shape for batch in batches] == [(3, 4, 4, 3), (1, 4, 4, 3)]
    reds = (np.concatenate(batches)[:, 0, 0, 0] + 1) * 127.5
    assert reds.tolist() == pytest.approx([0, 85, 170, 255], abs=1e-3)
    assert [line.split(":")[1].rsplit("/")[-1] for line in said] == ["half.png", "notes.txt"]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="folder=.*holds no image that can be read"):
        list(images.stream(tmp_path, 4, field="folder"))
    with pytest.raises(UserError, match="folder=.*is no directory"):
        list(images.stream(tmp_path / "nowhere", 4, field="folder"))
    with pytest.raises(
        UserError, match="folder='https://x.org/a' is an address, .*; download the im"
    ):
        list(images.stream("https://x.org/a", 4, field="folder"))
