import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.models import ops

FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64 * 4  # with the gain of upsampling


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=["cpu", "accelerator", "accelerator, few channels"])
def form(request, monkeypatch):
    """`ops.upsample_conv` in each of the forms that its device and its channels choose between."""
    if request.param != "cpu":
        monkeypatch.setattr(ops, "_on_cpu", lambda: False)
        monkeypatch.setattr(ops, "FOLD_CHANNELS", 128 if "few" in request.param else 0)
    return ops.upsample_conv


def fir(torch, x, padding):
    """The 4x4 filter, by explicit padding and a depthwise convolution; x NCHW."""
    x = torch.nn.functional.pad(x, padding)
    weight = torch.tensor(FIR, dtype=x.dtype).expand(x.shape[1], 1, 4, 4)
    return torch.nn.functional.conv2d(x, weight, groups=x.shape[1])


def reference_upsample_conv(torch, x, kernel):
    """PARITY: stride-2 transposed convolution, then the FIR with padding (1, 1)."""
    x, kernel = (torch.as_tensor(a, dtype=torch.float64) for a in (x, kernel))
    x, weight = x.permute(0, 3, 1, 2), kernel.permute(2, 3, 0, 1)
    y = torch.nn.functional.conv_transpose2d(x, weight, stride=2)
    return fir(torch, y, (1, 1, 1, 1)).permute(0, 2, 3, 1)


@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (1, 4, 4, 3), (1, 1, 1, 2)])
def test_upsample_conv_is_a_transposed_convolution_and_the_fir(torch, assert_close, form, shape):
    x, kernel = random(*shape), random(3, 3, shape[3], 4)
    expected = reference_upsample_conv(torch, x, kernel)
    assert_close(form(x, jnp.asarray(kernel)), expected, 1e-5)


def test_upsample_conv_has_the_gradients_of_the_reference(torch, assert_close, form):
    x, kernel, dy = random(2, 5, 7, 6), random(3, 3, 6, 4), random(2, 10, 14, 4)
    tx, tk = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, kernel))
    expected = torch.autograd.grad(
        reference_upsample_conv(torch, tx, tk), (tx, tk), torch.tensor(dy)
    )
    for one, other in zip(jax.vjp(form, x, kernel)[1](jnp.asarray(dy)), expected, strict=True):
        assert_close(one, other, 1e-5)


def test_upsample_inserts_zeros_and_filters(torch, assert_close):
    x = random(2, 5, 7, 3)
    spread = torch.zeros(2, 3, 10, 14, dtype=torch.float64)
    spread[:, :, ::2, ::2] = torch.tensor(x).permute(0, 3, 1, 2)
    expected = fir(torch, spread, (2, 1, 2, 1)).permute(0, 2, 3, 1)
    assert_close(ops.upsample(jnp.asarray(x)), expected, 1e-6)


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


@pytest.mark.parametrize(
    ("sides", "padding"),
    [
        ((1, 1), 0),
        ((1, 1), 1),
        ((2, 2), 1),
        ((2, 1), (1, 0)),
        ((1, 2), (0, 1)),
        ((3, 3), 1),
        ((3, 3), 0),
    ],
)
def test_the_cpu_gradients_of_conv_are_those_of_lax(assert_close, sides, padding):
    x, kernel = random(2, 6, 7, 3), random(*sides, 3, 4)
    padding = tuple((n, n) for n in np.broadcast_to(padding, 2).tolist())
    layout = ("NHWC", "HWIO", "NHWC")

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)

    ours, pull = jax.vjp(lambda x, kernel: ops._conv_cpu(x, kernel, padding), x, kernel)
    theirs, expected_pull = jax.vjp(reference, x, kernel)
    assert_close(ours, theirs, 1e-6)
    dy = jnp.asarray(random(*ours.shape))
    for actual, expected in zip(pull(dy), expected_pull(dy), strict=True):
        assert_close(actual, expected, 1e-5)


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
