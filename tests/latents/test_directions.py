"""Directions: what they do to latents of every kind, how they are found, and their files."""

import json

import jax
import numpy as np
import pytest

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.latents import directions
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction, DirectionArchitecture
from nada_jax.models.stylegan2 import Architecture
from nada_jax.weights import loading, native

RANDOM = np.random.default_rng(0)


@pytest.fixture
def make(tiny_generator):
    """make("w") -> a random direction of the tiny generator."""

    def direction(space):
        architecture = DirectionArchitecture.of(tiny_generator, space)
        steps = {k: RANDOM.standard_normal(n, np.float32) for k, n in architecture.shapes().items()}
        return Direction(steps, architecture)

    return direction


@pytest.fixture
def codes():
    return Codes(ws=RANDOM.standard_normal((3, 6, 8), np.float32))


def styles(codes, generator):
    return codes.all_styles(generator)


def assert_equal(one, other, atol=1e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), one, other)


@pytest.mark.parametrize("space", directions.SPACES)
def test_a_direction_does_the_same_to_latents_and_to_their_styles(
    space, tiny_generator, make, codes
):
    direction, as_styles = make(space), Codes(styles=codes.all_styles(tiny_generator))
    moved = directions.move(codes, tiny_generator, [direction], [0.5])
    assert (moved.styles is None) == (space != "style")
    also = directions.move(as_styles, tiny_generator, [direction], [0.5])
    assert_equal(styles(moved, tiny_generator), also.styles)
    still = directions.move(codes, tiny_generator, [direction], [0.0])
    assert_equal(styles(still, tiny_generator), styles(codes, tiny_generator))


def test_directions_of_all_spaces_are_added_in_any_order_and_taken_back(
    tiny_generator, make, codes
):
    several, strengths = [make(space) for space in directions.SPACES], [1.0, -2.0, 0.5]
    moved = directions.move(codes, tiny_generator, several, strengths)
    again = directions.move(codes, tiny_generator, several[::-1], strengths[::-1])
    assert_equal(moved.styles, again.styles)
    back = directions.move(moved, tiny_generator, several, [-x for x in strengths])
    assert_equal(back.styles, styles(codes, tiny_generator))


def test_strengths_may_differ_from_image_to_image(tiny_generator, make, codes):
    strengths = np.asarray([-1.0, 0.0, 2.0])
    for direction in (make("w+"), make("style")):
        moved = directions.move(codes, tiny_generator, [direction], [strengths])
        for i, strength in enumerate(strengths):
            one = directions.move(codes[i : i + 1], tiny_generator, [direction], [strength])
            assert_equal(styles(moved[i : i + 1], tiny_generator), styles(one, tiny_generator))


def test_directions_of_one_space_are_added_and_scaled_as_numbers_are(make):
    one, other = make("w+"), make("w+")
    total = 2 * one + other * -1
    np.testing.assert_allclose(total.steps["w+"], 2 * one.steps["w+"] - other.steps["w+"])
    with pytest.raises(UserError, match="differ"):
        one + make("w")


def test_an_adapted_generator_keeps_its_own_styles_and_gets_the_change(tiny_generator, make, codes):
    synthesis = dict(tiny_generator.params["synthesis"])
    modulation = synthesis["conv_1"]["modulation"]
    trained = modulation | {"bias": modulation["bias"] + 3}
    synthesis["conv_1"] = synthesis["conv_1"] | {"modulation": trained}
    adapted = tiny_generator.replace(params=tiny_generator.params | {"synthesis": synthesis})
    direction = make("style")
    moved = directions.move(codes, tiny_generator, [direction], [1.0])
    carried = directions.carry(moved, codes, tiny_generator, adapted)
    assert_equal(carried.styles, directions.move(codes, adapted, [direction], [1.0]).styles)
    in_w = directions.move(codes, tiny_generator, [make("w")], [1.0])
    assert directions.carry(in_w, codes, tiny_generator, adapted) is in_w


def test_a_direction_of_another_generator_is_refused(random_generator, make, codes):
    other = random_generator(Architecture(channels=(6, 5, 3), z_dim=7, w_dim=9, mapping_layers=2))
    for space, sizes in {"w": r"\(8,\)", "style": r"\(6, 6, 5, 5, 4\)"}.items():
        with pytest.raises(UserError, match=f"for {space} of the sizes {sizes}, but the generator"):
            directions.move(codes, other, [make(space)], [1.0])


def test_a_fit_finds_along_what_a_score_rises(tiny_generator):
    ws = RANDOM.standard_normal((4000, 8)) * np.linspace(1, 2, 8)
    truth = np.asarray([1.0, 0, 0, 0, 0, 0, 0, 1])
    scores = ws @ truth + 0.5 * RANDOM.standard_normal(4000)
    direction, correlation = directions.fit(ws, scores)
    step = direction.steps["w"]
    assert step @ truth / np.linalg.norm(step) / np.linalg.norm(truth) > 0.95
    # One standard deviation, but for what the penalty of the fit holds back.
    assert step @ truth == pytest.approx(scores.std(), rel=0.5)
    assert 0.9 < correlation < 1
    assert abs(directions.fit(ws, RANDOM.standard_normal(4000))[1]) < 0.1
    with pytest.raises(UserError, match="all images have one score"):
        directions.fit(ws, np.ones(4000))


def test_two_sets_give_the_difference_of_their_means():
    source, target = RANDOM.standard_normal((5, 6, 8)), RANDOM.standard_normal((7, 6, 8))
    step = directions.between(source, target).steps["w+"]
    np.testing.assert_allclose(step, target.mean(0) - source.mean(0), atol=1e-6)


@pytest.mark.parametrize("space", directions.SPACES)
def test_a_direction_is_saved_and_loaded_bit_for_bit(space, make, tmp_path):
    direction, path = make(space), tmp_path / "direction.safetensors"
    native.save_model(direction, path, target="red hair")
    loaded = loading.load_model(Direction, path)
    assert loaded.architecture == direction.architecture
    jax.tree.map(np.testing.assert_array_equal, loaded, direction)
    shapes = direction.architecture.shapes()
    assert DirectionArchitecture.from_shapes(shapes) == direction.architecture


@pytest.mark.parametrize(
    "described, words",
    [
        ({"space": "z", "sizes": [8]}, "expected one of w, w\\+, style"),
        ({"space": "w+", "sizes": [8]}, "it would have the sizes"),
        ({"space": "style", "sizes": []}, "it would have the sizes"),
        ({"space": "w", "sizes": [-8]}, "it would have the sizes"),
        ({"space": "w", "sizes": [True]}, "sizes is"),
        ({"space": "w", "sizes": [10**12]}, r"w has shape \(8,\), expected"),
        ({"space": ["w"], "sizes": [8]}, "space is"),
        ({"space": "w"}, "direction"),
    ],
)
def test_a_garbled_header_is_refused(described, words, make, tmp_path):
    path = tmp_path / "direction.safetensors"
    header = {"format": "nada_jax direction", "architecture": json.dumps(described)}
    files.write_safetensors(path, make("w").steps, header)
    with pytest.raises(UserError, match=words):
        loading.load_model(Direction, path)


@pytest.mark.parametrize("paths", [[], ["w", "conv_0"], ["conv_1"], ["conv_0", "conv_2"]])
def test_arrays_that_are_no_directions_are_refused(paths):
    with pytest.raises(UserError, match="not a direction: it has"):
        DirectionArchitecture.from_shapes(dict.fromkeys(paths, (3,)))
