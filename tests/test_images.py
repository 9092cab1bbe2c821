"""Images in, images out."""

import struct
import warnings
import zlib

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


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def tiff(path, bits, kind, data, photometry=1):
    """An uncompressed grey TIFF of 8 x 8 numbers, which Pillow cannot write in all types."""
    tags = {
        256: 8,
        257: 8,
        258: bits,
        259: 1,
        262: photometry,
        273: 122,
        277: 1,
        279: len(data),
        339: kind,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0\x08\0\0\0\x09\0" + entries + bytes(4) + data)


def png(colours):
    """A PNG of uint16 [h, w, 3], which Pillow cannot write."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def ramp(largest, kind):
    return np.round(RAMP * largest).astype(kind)


@pytest.mark.parametrize(
    ("name", "grey"),
    [
        ("a.png", ramp(2**16 - 1, np.uint16)),  # mode I;16
        ("a.tif", ramp(2**16 - 1, ">u2")),  # I;16B
        ("a.pgm", ramp(2**16 - 1, np.int32)),  # I
        ("a.tif", ramp(2**8 - 1, np.int32)),
        ("a.tif", ramp(2**16 - 1, np.int32)),
        ("a.tif", ramp(2**31 - 1, np.int32)),
        ("a.tif", RAMP.astype(np.float32)),  # F
        ("a.tif", ramp(2**8 - 1, np.float32)),
        ("a.tif", ramp(2**16 - 1, np.float32)),
    ],
)
def test_grey_values_of_many_bits_are_scaled_by_their_range(name, grey, tmp_path):
    Image.fromarray(grey).save(tmp_path / name)
    assert (images.read(tmp_path / name, 8)[..., 1] + 1) / 2 == pytest.approx(RAMP, abs=0.002)


@pytest.mark.parametrize(
    ("bits", "kind", "data", "photometry"),
    [
        (16, 2, ramp(2**15 - 1, "<i2"), 1),
        (32, 1, ramp(2**32 - 1, "<u4"), 1),
        (16, 1, ramp(2**16 - 1, "<u2")[::-1, ::-1], 0),  # where 0 is white
        (32, 3, (1 - RAMP).astype("<f4"), 0),
    ],
)
def test_types_that_only_tiff_has_are_read_as_their_tags_say(
    bits, kind, data, photometry, tmp_path
):
    tiff(tmp_path / "a.tif", bits, kind, data.tobytes(), photometry)
    assert (images.read(tmp_path / "a.tif", 8)[..., 1] + 1) / 2 == pytest.approx(RAMP, abs=0.002)


def test_twelve_bits_within_twelve_are_a_range(tmp_path):
    even, odd = ramp(4095, int).reshape(-1, 2).T
    packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], axis=1)
    tiff(tmp_path / "a.tif", 12, 1, packed.astype(np.uint8).tobytes())
    assert (images.read(tmp_path / "a.tif", 8)[..., 1] + 1) / 2 == pytest.approx(RAMP, abs=0.002)


@pytest.mark.parametrize(
    ("grey", "said"),
    [
        (ramp(4095, np.int32), r"its numbers lie in 0\.\.4095, which does not say what is white"),
        (ramp(255, np.int32) - 1, r"lie in -1\.\.254.*expected all of 0\.\.255 or 0\.\.65535 or"),
        (3 * RAMP.astype(np.float32), r"lie in 0\.\.3,.*expected all of 0\.\.1 or 0\.\.255 or"),
        (RAMP.astype(np.float32) - 0.5, r"lie in -0\.5\.\.0\.5"),
        (np.where(RAMP > 0, RAMP, np.nan).astype(np.float32), "lie in nan"),
        (np.where(RAMP > 0, RAMP, np.inf).astype(np.float32), r"\.\.inf"),
    ],
)
def test_numbers_that_do_not_say_what_is_white_are_refused(grey, said, tmp_path):
    Image.fromarray(grey).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=f"a.tif: .*{said}"):
        images.read(tmp_path / "a.tif", 8)


TWELVE = ramp(4095, np.uint16)


@pytest.mark.parametrize(
    ("name", "grey", "warned"),
    [
        ("a.png", TWELVE, True),
        ("a.tif", TWELVE, True),
        ("a.tif", ramp(2**14 - 1, ">u2"), True),
        ("a.tif", ramp(2**15 - 1, np.uint16), False),  # dark, and read without a word
        ("a.pgm", ramp(4095, np.int32), False),  # this format says what is white
        ("a.png", ramp(15, np.uint8), False),
    ],
)
def test_sixteen_bits_whose_highest_are_empty_are_read_as_dark_with_a_warning(
    name, grey, warned, tmp_path
):
    Image.fromarray(grey).save(tmp_path / name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read = images.read(tmp_path / name, 8)
    largest = 2**8 - 1 if grey.dtype == np.uint8 else 2**16 - 1
    assert (read[..., 1] + 1) / 2 == pytest.approx(grey / largest, abs=0.004)
    assert [f"{name}: read as dark" in str(warning.message) for warning in said] == [True] * warned


def test_colours_of_twelve_bits_within_sixteen_are_warned_of_too(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.repeat(TWELVE[..., None], 3, axis=-1)))
    with pytest.warns(UserWarning, match="a.png: read as dark, as its numbers have 16 bits"):
        assert images.read(tmp_path / "a.png", 8).max() < -0.8


def test_images_that_are_not_finite_are_never_written(tmp_path):
    wrong = np.zeros((1, 4, 4, 3), np.float32)
    wrong[0, 1, 2] = np.nan, np.inf, 0
    with pytest.raises(UserError, match="the images are not finite: 2 of 48 numbers are NaN"):
        images.save_grid(wrong, 1, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"]
)
def test_white_is_white_and_black_is_black_in_every_mode(mode, tmp_path):
    image = Image.fromarray(ramp(1, np.uint8) * 255).convert("RGB").convert(mode)
    # Pillow 12 cannot read the YCbCr that it writes into TIFF, and no version writes PA.
    path = tmp_path / ("a.jpg" if mode == "YCbCr" else "a.tif")
    (image.convert("RGBA") if mode == "PA" else image).save(path)
    assert images.read(path, 8)[..., 1] == pytest.approx(2 * np.round(RAMP) - 1, abs=0.02)


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "RGB"), ("a.png", "RGB"), ("a.png", "P")])
def test_a_large_photograph_is_reduced_as_it_is_read(name, mode, tmp_path):
    ramp = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # held on its side
    Image.fromarray(ramp).convert(mode).save(tmp_path / name, exif=exif, quality=95)
    whole, small = images.upright(tmp_path / name), images.upright(tmp_path / name, most=1400)
    assert whole.size == whole.image.size == small.size == (60, 90)
    assert small.image.size == (30, 45) and small.image.mode == "RGB"  # a half
    halves = np.asarray(whole.image, float).reshape(45, 2, 30, 2, 3).mean((1, 3))
    assert np.abs(np.asarray(small.image, float) - halves).max() < 4


def test_lab_is_converted_and_what_is_transparent_in_sixteen_bits_is_white(tmp_path):
    grey, middle = Image.fromarray(ramp(1, np.uint8) * 255), Image.new("L", (8, 8), 128)
    Image.merge("LAB", [grey, middle, middle]).save(tmp_path / "lab.tif")
    black_or_white = pytest.approx(2 * np.round(RAMP) - 1, abs=0.02)
    assert images.read(tmp_path / "lab.tif", 8)[..., 1] == black_or_white
    Image.fromarray(ramp(1, np.uint16) * 30000).save(tmp_path / "a.png", transparency=30000)
    assert images.read(tmp_path / "a.png", 8)[..., 1] == black_or_white
    premultiplied = Image.new("La", (2, 2), (0, 0))
    clear = images._with_alpha(premultiplied)  # Pillow reads such TIFFs, and writes none
    assert clear.mode == "RGBA" and clear.getpixel((0, 0))[3] == 0


def test_the_first_image_of_one_that_moves_is_read(tmp_path):
    first, second = (Image.new("L", (4, 4), value) for value in (0, 255))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert images.read(tmp_path / "a.gif", 2).max() == -1


def test_what_is_no_image_is_said_in_a_sentence_with_its_name(tmp_path, monkeypatch):
    save(tmp_path / "big.png", size=(30, 30))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    Image.fromarray(ramp(2**16 - 1, np.uint16)).save(tmp_path / "half.tif")
    (tmp_path / "half.tif").write_bytes((tmp_path / "half.tif").read_bytes()[:-60])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    for name, said in {
        "empty.png": "it is empty", "a.heic": "it is HEIC, as phones write it, which is not read: save or export it in another",
        "half.tif": "(image file is truncated|it is damaged)", "big.png": "it has more than 800 pixels",
        "gone.png": "No such file",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=f"{name}: {said}"):
            images.read(tmp_path / name, 8)


def test_large_photographs_and_damaged_exif_data_are_no_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 20
    )  # Pillow warns from here on, to twice as many
    save(tmp_path / "a.png")
    Image.new("L", (4, 4), 255).save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert images.read(tmp_path / "a.png", 2)[0, 0, 0] == 1
    assert images.read(tmp_path / "b.jpg", 2).min() == 1


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
    with pytest.raises(UserError, match="folder is None; expected a text or a path"):
        list(images.stream(None, 4, field="folder"))
