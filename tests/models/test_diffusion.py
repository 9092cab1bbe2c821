"""The networks beside PyTorch's classes of diffusers, which wrote the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nada_jax import load_diffusion
from nada_jax.diffusion.samplers import SAMPLERS
from nada_jax.models import diffusion_layers
from nada_jax.models.diffusion import Diffusion
from nada_jax.models.noise import clean_of

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import DDIMScheduler, PNDMScheduler  # noqa: E402

from tests.models.torch_diffusion import SCHEDULER, Models  # noqa: E402

TEXTS = ["a man with red hair", "", "smile"]  # of which one is nothing but padding
# Fields of UNet, VAE and text encoder: as Stable Diffusion 1 has them, on a narrower text encoder; as 2 has them, with
# another order of blocks, and several layers and transformers in each.
LAYOUTS = {
    "1": ({}, {}, {}),
    "2": (
        {
            "use_linear_projection": True, "attention_head_dim": (2, 4), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        },
        {"block_out_channels": (8,), "down_block_types": ("DownEncoderBlock2D",), "layers_per_block": 2,
         "up_block_types": ("UpDecoderBlock2D",), "scaling_factor": 0.5},
        {"hidden_act": "gelu"},
    ),
}  # fmt: skip
SCALE = 7.5  # of the guidance by a prompt
NOISE = {key: x for key, x in SCHEDULER.items() if key != "clip_sample"}
SCHEDULERS = {
    "ddim": DDIMScheduler(**SCHEDULER),
    "pndm": PNDMScheduler(**NOISE, skip_prk_steps=True),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def both(request, tmp_path_factory):
    """PyTorch's models, and ours out of what they wrote."""
    theirs = Models(*LAYOUTS[request.param])
    return theirs, load_diffusion(theirs.save(tmp_path_factory.mktemp("diffusion")))


def channels_first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def channels_last(x):
    return np.moveaxis(x.numpy(), 1, -1)


def embed(theirs, ids):
    return theirs.text_encoder(torch.from_numpy(ids).long()).last_hidden_state.numpy()


def compiled(method, *args):
    """A method of the model as a program."""
    return jax.jit(method).lower(*args).compile()


@pytest.fixture(scope="module")
def predict(both):
    """The UNet for two latents, compiled once."""
    _, ours = both
    x, t, context = np.zeros((2, 8, 8, 4), "f"), np.zeros(2, "f"), np.zeros((2, 32, 48), "f")
    return compiled(Diffusion.predict, ours, x, t, context)


def test_features_of_texts_are_those_of_pytorch(both, assert_close):
    theirs, ours = both
    assert_close(ours.embed_texts(TEXTS), embed(theirs, ours.tokenize(TEXTS)), 1e-5)


def test_a_step_is_that_of_pytorch(both, predict, assert_close):
    theirs, ours = both
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 4), np.float32)
    t, context = np.array([7, 999], np.float32), embed(theirs, ours.tokenize(TEXTS[:2]))
    expected = theirs.unet(channels_first(x), torch.from_numpy(t), torch.from_numpy(context))
    assert_close(predict(ours, x, t, context), channels_last(expected.sample), 1e-5)


def test_images_and_latents_are_those_of_pytorch(both, assert_close):
    theirs, ours = both
    random, factor = np.random.default_rng(2), theirs.vae.config.scaling_factor
    x = random.standard_normal((2, 4, 6, 4), np.float32)
    images = random.uniform(-1, 1, (1, 4 * ours.factor, 2 * ours.factor, 3)).astype(np.float32)
    both = jax.jit(lambda ours, x, images: (ours.decode(x), ours.encode(images)))
    decoded, encoded = both(ours, x, images)
    assert_close(decoded, channels_last(theirs.vae.decode(channels_first(x) / factor).sample), 1e-5)
    mean = theirs.vae.encode(channels_first(images)).latent_dist.mean
    assert_close(encoded, channels_last(mean) * factor, 1e-5)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_ten_steps_end_where_the_loop_of_diffusers_ends(both, predict, name, assert_close):
    (theirs, ours), scheduler, sampler = both, SCHEDULERS[name], SAMPLERS[name]
    context = embed(theirs, ours.tokenize([TEXTS[0], ""]))
    start = np.random.default_rng(3).standard_normal((1, 8, 8, 4), np.float32)
    # As in StableDiffusionPipeline, with its guidance.
    x, texts = channels_first(start), torch.from_numpy(context)
    scheduler.set_timesteps(10)
    for t in scheduler.timesteps:
        wanted, unwanted = theirs.unet(torch.cat([x, x]), t, texts).sample.chunk(2)
        x = scheduler.step(unwanted + SCALE * (wanted - unwanted), t, x).prev_sample

    @jax.jit
    def step(carry, times, eps):
        def denoise(x, at, keys):
            return eps, clean_of(eps, x, at.alpha), ()

        return sampler.steps(denoise, carry, times, jax.random.split(jax.random.key(0), 1))[0]

    carry, times = sampler.start(jnp.asarray(start)), sampler.times(ours.schedule, 10, 0.0)
    for i in range(times.total):  # one by one, so that the network need not be compiled into a loop
        twice, t = np.concatenate([carry.x, carry.x]), np.full(2, times.t[i], "f")
        wanted, unwanted = np.split(np.asarray(predict(ours, twice, t, context)), 2)
        carry = step(carry, times.chunk(i, 1), unwanted + SCALE * (wanted - unwanted))
    assert_close(carry.x, channels_last(x), 1e-4)


@pytest.mark.parametrize(
    ("side", "padding"), [(8, ((1, 1), (1, 1))), (9, "VALID"), (7, ((1, 1), (1, 1)))]
)
def test_a_convolution_that_halves_is_flaxs_with_its_gradients(side, padding, assert_close):
    module = nn.Conv(5, (3, 3), strides=(2, 2), padding=padding, dtype=jnp.float32)
    x = np.random.default_rng(4).standard_normal((2, side, 2 * side, 3), np.float32)
    params = module.init(jax.random.key(0), x)

    def loss(params, x):
        return jnp.sum(module.apply(params, x) ** 3)

    expected = jax.tree.leaves(jax.value_and_grad(loss, (0, 1))(params, x))
    with nn.intercept_methods(diffusion_layers.intercept):
        found = jax.tree.leaves(jax.value_and_grad(loss, (0, 1))(params, x))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-5)
