"""What the tabs make of values and of results, without a browser."""

import zipfile
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from nada_jax.demo import drawing, edits, figures, painting, portraits
from nada_jax.demo.drawing import Mixing
from nada_jax.demo.figures import Figure, Picture
from nada_jax.demo.job import Cancelled
from nada_jax.demo.portraits import BOX, FACE, MIDDLE, NO_FACE, Cut, Memory
from nada_jax.demo.tabs import controls
from nada_jax.errors import UserError
from nada_jax.latents import directions, seeds
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction, DirectionArchitecture
from nada_jax.portraits.subjects import Subject
from nada_jax.runs.items import Item
from nada_jax.style.settings import Network
from nada_jax.weights.registry import ASSETS


def silent(*_):
    pass


def cancel(fraction, note):
    if fraction:
        raise Cancelled


@pytest.mark.parametrize(
    "value", [-1, 2.5, None, True, float("nan"), float("inf"), "3", [1], 2**32]
)
def test_what_is_no_seed_is_refused_in_a_sentence(value):
    with pytest.raises(
        UserError, match=r"Seed is .*; expected a whole number in 0\.\.4,294,967,295"
    ):
        controls.whole(value, "Seed")


@pytest.mark.parametrize("value", [-0.1, 1.3, None, True, float("nan"), "1"])
def test_what_is_no_number_of_a_slider_is_refused(value):
    with pytest.raises(UserError, match="Truncation is .*; expected a number in 0..1.2"):
        controls.number(value, "Truncation", 0, 1.2)


def test_numbers_pass():
    assert controls.whole(3.0, "Seed") == 3
    assert controls.number(1, "Strength", 0, 1) == 1.0


@pytest.mark.parametrize(
    ("cut", "box"),
    [
        (Cut(BOX, 50, 50, 100), (50, 0, 150, 100)),
        (Cut(BOX, 0, 0, 50), (0, 0, 50, 50)),
        (Cut(BOX, 100, 100, 10), (190, 90, 200, 100)),
        (Cut(BOX, 50, 50, 0.001), (100, 50, 101, 51)),
    ],
)
def test_a_box_lies_within_the_image(cut, box):
    assert cut.box(200, 100) == box


def test_a_face_is_looked_for_only_where_it_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "wall.png"
    Image.new("RGB", (96, 64), "grey").save(path)
    monkeypatch.setattr(portraits.landmarks, "find", lambda photo: [])
    with pytest.raises(UserError, match=NO_FACE):
        portraits.aligned(path, Cut(FACE), 16)
    for place in (MIDDLE, BOX):
        assert portraits.aligned(path, Cut(place), 16).shape == (16, 16, 3)
    with pytest.raises(UserError, match="no place of a face"):
        portraits.aligned(path, Cut("elsewhere"), 16)


def test_memory_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(portraits, "HELD", 2)
    memory, made = Memory(), []
    for key in "abaca":
        memory.get((key,), lambda key=key: made.append(key))
    assert made == ["a", "b", "c"]
    memory.get(("b",), lambda: made.append("b again"))
    assert made[-1] == "b again"


def test_figures_enlarge_by_whole_pixels_and_escape_words(tmp_path):
    job = SimpleNamespace(directory=tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    path = figures.save(job, "a b", pixels)
    with Image.open(path) as image:
        assert image.size == (300, 300)
        assert np.array_equal(np.asarray(image)[::5, ::5], pixels)
    whole = figures.pack(job, "all", [path])
    assert zipfile.ZipFile(whole).namelist() == ["a b.png"]
    html = figures.gallery([Figure([Picture(path, '"><script>')], "<b>")], whole=whole)
    assert "<script>" not in html and "&lt;b&gt;" in html
    assert 'alt="&quot;&gt;&lt;script&gt;"' in html
    assert "a%20b.png" in html and "\n" not in html


def test_samples_are_those_of_their_seeds_and_mix(tiny_generator):
    ws = drawing.latents(tiny_generator, range(3), 0.7)
    drawn = drawing.draw({"x": tiny_generator}, ws, batch=2, report=silent)["x"]
    expected = seeds.draw(tiny_generator, range(3), 0.7, "const")
    assert np.abs(drawn - np.clip((expected + 1) * 127.5, 0, 255)).max() <= 1
    mixed = drawing.latents(tiny_generator, range(2), 0.7, Mixing(2, 3))
    np.testing.assert_allclose(mixed[:, :3], ws[:2, :3], atol=1e-6)
    np.testing.assert_allclose(mixed[1, 3:], ws[2, 3:], atol=1e-6)
    with pytest.raises(Cancelled):
        drawing.draw({"x": tiny_generator}, ws, batch=2, report=cancel)


def test_sliders_move_along_directions(tiny_generator):
    ws = drawing.latents(tiny_generator, range(1), 0.7)
    step = np.ones(tiny_generator.architecture.w_dim, np.float32)
    found = {"a": Direction({"w": step}, DirectionArchitecture("w", step.shape))}
    subject = Subject(Item("x"), Codes(ws=ws))
    before, after = edits.by_sliders(subject, tiny_generator, found, [2.0])
    moved = drawing.draw({"x": tiny_generator}, ws + 2, batch=2, report=silent)["x"]
    assert np.abs(after.astype(int) - moved[0]).max() <= 1
    assert (before != after).any()


def test_directions_are_found_from_one_set_of_samples(tiny_generator, monkeypatch):
    monkeypatch.setattr(edits, "SAMPLES", 40)
    monkeypatch.setattr(edits.prompts, "text_direction", lambda clip, *texts: np.ones(2))

    def score(generator, clip, aims, *, samples, report, **_):
        ws = np.random.default_rng(0).normal(size=(samples, 8))
        report(samples, samples)
        assert aims.shape == (2, len(edits.DIRECTIONS))
        return ws, ws[:, : len(edits.DIRECTIONS)]

    monkeypatch.setattr(directions, "score", score)
    found = edits.find_directions(tiny_generator, None, batch=4, report=silent)
    assert list(found) == list(edits.DIRECTIONS)
    assert [int(np.argmax(x.steps["w"])) for x in found.values()] == list(range(len(found)))


def test_painting_says_how_far_it_is_and_can_be_ended(narrow_networks):
    network = Network(str(narrow_networks["vgg"]), "max")
    images = ASSETS / "contents" / "cat.jpg", ASSETS / "styles" / "waves.jpg"
    fields = {"size": 64, "style_weight": 1.0, "strength": 1.0, "colors": "style"}
    fields |= {"first_steps": 2, "steps": 1}
    said = []
    found = painting.paint(
        network, *images, report=lambda share, note: said.append(share), **fields
    )
    assert said[0] == 0 and said[-1] == 1
    assert all(max(image.shape[:2]) == 64 for image in found.values())
    with pytest.raises(Cancelled):
        painting.paint(network, *images, report=cancel, **fields)


def test_one_program_draws_all_generators(tiny_generator):
    other = tiny_generator.replace(params=jax.tree.map(lambda x: 2 * x, tiny_generator.params))
    ws = drawing.latents(tiny_generator, range(1), 1.0)
    before = drawing._draw._cache_size()
    drawn = drawing.draw({"a": tiny_generator, "b": other}, ws, batch=1, report=silent)
    assert drawing._draw._cache_size() == before + 1
    assert (drawn["a"] != drawn["b"]).any()
