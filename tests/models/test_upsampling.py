import jax
import jax.numpy as jnp
import pytest

from nada_jax.models import convolution, upsampling
from tests.models.reference import fir, random, reference_upsample_conv


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=["cpu", "accelerator", "accelerator, few channels"])
def form(request, monkeypatch):
    """`upsampling.upsample_conv` in each of the forms that its device and its channels choose between."""
    if request.param != "cpu":
        monkeypatch.setattr(convolution, "on_cpu", lambda: False)
        monkeypatch.setattr(upsampling, "FOLD_CHANNELS", 128 if "few" in request.param else 0)
    return upsampling.upsample_conv


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
    assert_close(upsampling.upsample(jnp.asarray(x)), expected, 1e-6)
