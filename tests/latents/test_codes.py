import numpy as np
import pytest

from nada_jax.errors import UserError
from nada_jax.latents import codes
from nada_jax.latents.codes import Codes
from nada_jax.latents.spaces import SPACES, distance


@pytest.fixture
def ws(tiny_generator):
    return np.random.default_rng(0).standard_normal((2, 6, 8), np.float32)


def test_files_give_the_latents_back(tiny_generator, ws, tmp_path):
    noise = {
        k: np.ones((1, n, n), np.float32)
        for k, n in tiny_generator.architecture.noise_sizes().items()
    }
    for given in (Codes(ws=ws[:1]), Codes(styles=tiny_generator.styles(ws[:1]), noise=noise)):
        codes.write(tmp_path / "x.npz", given)
        found = codes.read(tmp_path / "x.npz", tiny_generator, "latents")
        np.testing.assert_allclose(
            found.draw(tiny_generator), given.draw(tiny_generator), atol=1e-5
        )
        assert found.noise.keys() == given.noise.keys()


@pytest.mark.parametrize(
    "name, shape", [("w", (1, 6, 8)), ("latents", (1, 2, 6, 8)), ("w", (3, 1, 8))]
)
def test_latents_of_other_programs_are_read(name, shape, tiny_generator, tmp_path):
    np.savez(tmp_path / "x.npz", **{name: np.ones(shape)})
    found = codes.read(tmp_path / "x.npz", tiny_generator, "latents")
    assert found.ws.shape[1:] == (6, 8)


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"ws": np.ones((1, 18, 512))}, "ws has the shape (1, 18, 512)"),
        ({"ws": np.full((6, 8), np.nan)}, "ws is not finite"),
        ({"styles": np.ones(3)}, "styles has the shape (3,)"),
        ({"z": np.ones((6, 8))}, "it has z; expected an array ws or styles"),
        ({"ws": np.asarray(["a"])}, "ws does not consist of numbers"),
        ({"ws": np.ones((0, 6, 8))}, "ws has the shape (0, 6, 8), which holds no latents"),
        (
            {"ws": np.ones((3, 6, 8)), "noise_conv_0": np.ones((4, 4))},
            "noise_conv_0 is of one image, and ws has 3",
        ),
        (
            {"ws": np.ones((6, 8)), "noise_conv_0": np.ones((3, 3))},
            "noise_conv_0 has the shape (3, 3)",
        ),
    ],
)
def test_what_holds_no_latents_is_refused_by_name(arrays, words, tiny_generator, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError) as caught:
        codes.read(tmp_path / "x.npz", tiny_generator, "latents")
    assert words in str(caught.value) and "x.npz" in str(caught.value)


def test_a_pickle_is_not_loaded(tiny_generator, tmp_path):
    np.save(tmp_path / "x.npy", np.asarray([{"ws": 1}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"x\.npy"):
        codes.read(tmp_path / "x.npy", tiny_generator, "latents")


@pytest.mark.parametrize("space", SPACES)
def test_every_space_starts_at_the_image_of_its_latents(space, tiny_generator, ws):
    row = SPACES[space]
    ws = np.repeat(ws[:, :1], 6, axis=1)
    variables = row.start(tiny_generator, ws)
    drawn = tiny_generator.synthesize_styles(row.styles(tiny_generator, variables, ws))
    np.testing.assert_allclose(drawn, tiny_generator.synthesize(ws), atol=1e-5)
    assert distance(variables, variables).shape == (2,)


def test_the_distance_is_the_sum_of_squares_of_each_row():
    a = {"x": np.zeros((2, 3)), "y": np.zeros((2, 1, 2))}
    b = {"x": np.asarray([[1, 0, 0], [0, 0, 2]]), "y": np.asarray([[[1, 1]], [[0, 0]]])}
    np.testing.assert_allclose(distance(a, b), [3, 4])
