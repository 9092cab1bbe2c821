import jax
import jax.numpy as jnp
import pytest

from nada_jax.errors import UserError
from nada_jax.models.stylegan2 import Architecture


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 512, 1024])
def test_the_architecture_of_any_size_is_read_back_from_shapes(size, random_generator):
    n = size.bit_length() - 2
    widths = tuple(range(3 + n, 3, -1))
    architecture = Architecture(widths, z_dim=5, w_dim=9, mapping_layers=2)
    assert (architecture.size, architecture.num_layers) == (size, 2 * (n + 1) - 2)
    assert architecture.noise_sizes()[f"conv_{2 * n - 2}"] == size
    assert Architecture.from_shapes(architecture.shapes()) == architecture
    generator = random_generator(architecture)
    images = jax.eval_shape(lambda: generator.synthesize(jnp.zeros((2, 9))))
    assert (images.shape, images.dtype) == ((2, size, size, 3), jnp.float32)


@pytest.mark.parametrize(
    "wrong",
    [{"channels": (4,)}, {"channels": (4, 0, 4)}, {"mapping_layers": 65}, {"conv_clamp": -1.0}]
    + [{"conv_clamp": clamp} for clamp in (0.0, float("nan"), float("inf"))],
)
def test_an_impossible_architecture_is_refused(wrong):
    with pytest.raises(UserError, match="not a StyleGAN2 generator|conv_clamp is"):
        Architecture(**({"channels": (6, 5, 4)} | wrong))


@pytest.mark.parametrize(
    "absent",
    ["synthesis.conv_1.weight", "synthesis.conv_4.weight", "mapping.dense_0.weight", ""],
)
def test_shapes_of_no_generator_are_refused(absent):
    shapes = Architecture((6, 5, 4), mapping_layers=2).shapes()
    kept = {path: shape for path, shape in shapes.items() if absent and path != absent}
    with pytest.raises(UserError, match="not a StyleGAN2 generator: it has"):
        Architecture.from_shapes(kept)
