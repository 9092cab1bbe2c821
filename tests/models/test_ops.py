import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.models import encoder, irse, ops, vgg
from tests.models.reference import random, reference_upsample_conv


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("k", "up"), [(1, False), (3, False), (3, True)])
def test_modulated_conv_is_a_convolution_with_weights_per_sample(
    torch, assert_close, k, up, demodulate
):
    x, weight, style = random(3, 5, 7, 6), random(k, k, 6, 4), random(3, 6, seed=1) + 1
    expected = []
    for image, s in zip(x, style, strict=True):
        w = weight.astype(np.float64) / np.sqrt(k * k * 6) * s[:, None]
        if demodulate:
            w = w / np.sqrt((w**2).sum(axis=(0, 1, 2)) + 1e-8)
        if up:
            expected.append(reference_upsample_conv(torch, image[None], w)[0].numpy())
            continue
        nchw = torch.tensor(image, dtype=torch.float64).permute(2, 0, 1)[None]
        oihw = torch.tensor(w).permute(3, 2, 0, 1)
        y = torch.nn.functional.conv2d(nchw, oihw, padding=k // 2)
        expected.append(y[0].permute(1, 2, 0).numpy())
    actual = ops.modulated_conv(jnp.asarray(x), weight, style, up=up)
    if demodulate:
        actual *= ops.demodulation(weight, style)[:, None, None]
    assert_close(actual, np.stack(expected), 1e-5)


@pytest.mark.parametrize("up", [True, False])
def test_modulated_conv_keeps_the_precision_of_its_input(up):
    x = jnp.asarray(random(2, 4, 4, 3), jnp.bfloat16)
    y = ops.modulated_conv(x, random(3, 3, 3, 2), random(2, 3), up=up)
    assert y.dtype == jnp.bfloat16


def test_dense_multiplies_the_learning_rate_into_weight_and_bias(assert_close):
    x, weight, bias = random(2, 5), random(5, 3), random(3)
    expected = x @ weight * 0.01 / np.sqrt(5) + bias * 0.01
    assert_close(ops.dense(x, weight, bias, 0.01), expected, 1e-6)


def test_pixel_norm_and_leaky_relu_keep_the_size_of_numbers(assert_close):
    x = random(4, 64) * 5
    np.testing.assert_allclose(np.mean(ops.pixel_norm(x) ** 2, axis=-1), 1, rtol=1e-5)
    assert not ops.pixel_norm(np.zeros((1, 4), np.float32)).any()
    assert_close(ops.fused_leaky_relu(x), np.where(x > 0, x, 0.2 * x) * 2**0.5, 1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 32, 32), (3, 32, 32)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_the_activation_is_as_exact_as_that_of_jax(shape, dtype, assert_close):
    def plain(y, scale, noise, bias):
        y = y * scale[:, None, None].astype(y.dtype) + noise[..., None].astype(y.dtype)
        return ops.fused_leaky_relu(y + bias.astype(y.dtype))

    y, dy = (jnp.asarray(random(3, 32, 32, 4, seed=seed), dtype) for seed in (0, 4))
    rest = random(3, 4, seed=1) ** 2 + 0.1, random(*shape, seed=2), random(4, seed=3)
    out, pull = jax.vjp(ops.activate, y, *rest)
    assert_close(out, plain(y, *rest), 1e-6)
    exact = jax.vjp(plain, y.astype(jnp.float32), *rest)[1](dy.astype(jnp.float32))
    of_jax = jax.vjp(plain, y, *rest)[1](dy)
    for ours, theirs, expected in zip(pull(dy), of_jax, exact, strict=True):
        assert ours.dtype == theirs.dtype
        error, other = (np.linalg.norm(x - expected) for x in (ours, theirs))
        assert error <= 5e-5 * np.linalg.norm(expected) + 1.5 * other


@pytest.mark.parametrize(
    "read",
    [
        functools.partial(irse.Irse50.pixels, None),
        functools.partial(vgg.preprocess, preprocessing="caffe"),
        functools.partial(encoder.refine, None, draw=None),
    ],
)
def test_every_network_refuses_what_cannot_be_images(read):
    for images in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 3, 8, 8), np.float32)):
        with pytest.raises(ValueError, match=r"^images are .* of the shape .*; expected floats"):
            read(images)
