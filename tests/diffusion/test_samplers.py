"""Samplers: the numbers of diffusers, the closed form for normal data, and runs in parts."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax.diffusion import samplers
from nada_jax.diffusion.guidance import Words, unguided
from nada_jax.diffusion.samplers import SAMPLERS
from nada_jax.errors import UserError
from nada_jax.models.noise import Schedule, clean_of, noise_of

CLASSES = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
}
# (spacing, offset, set_alpha_to_one): that of Stable Diffusion, and what else there is.
SPACINGS = ("leading", 1, False), ("linspace", 0, True), ("trailing", 0, True)
PAIRS = (0, "epsilon"), (0, "v_prediction"), (1, "epsilon"), (2, "v_prediction")


@functools.cache
def run(kind, denoise):
    """A compiled sampler."""
    return jax.jit(functools.partial(SAMPLERS[kind].steps, denoise))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def output(x, t, np=jnp):
    """A network of one layer."""
    mix = np.asarray([[0.6, -0.4, 0.1, 0.3]] * 4, dtype=x.dtype)
    return 0.9 * np.tanh(x @ mix) + 1e-4 * t


def ask(x, at, keys):
    eps = noise_of(output(x, at.t), x, at.alpha, at.prediction)
    return eps, clean_of(eps, x, at.alpha), ()


def of_diffusers(kind, schedule):
    """The scheduler of diffusers, at ten steps; skips without PyTorch."""
    pytest.importorskip("torch")
    name, more = CLASSES[kind]
    known = schedule.to_json() | more
    theirs = getattr(pytest.importorskip("diffusers"), name)
    theirs = theirs(**{x: known[x] for x in inspect.signature(theirs).parameters if x in known})
    theirs.set_timesteps(10)
    return theirs


@pytest.mark.parametrize(("spacing", "prediction"), PAIRS)
@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_ten_steps_are_those_of_diffusers(kind, prediction, spacing, assert_close):
    space, offset, one = SPACINGS[spacing]
    schedule = Schedule(
        prediction=prediction, timestep_spacing=space, steps_offset=offset, set_alpha_to_one=one
    )
    theirs = of_diffusers(kind, schedule)
    torch = pytest.importorskip("torch")
    start = np.random.default_rng(0).standard_normal((2, 3, 3, 4), np.float32)
    x = torch.tensor(start) * theirs.init_noise_sigma
    for t in theirs.timesteps:
        seen = theirs.scale_model_input(x, t).numpy()
        x = theirs.step(torch.tensor(output(seen, float(t), np)), t, x).prev_sample
    times = SAMPLERS[kind].times(schedule, 10, 0.0)
    np.testing.assert_allclose(times.t, theirs.timesteps.numpy())
    carry = SAMPLERS[kind].start(times.start * start)
    found, _ = run(kind, ask)(carry, times, keys(2))
    assert_close(found.x, x.numpy(), 2e-5)


def test_new_noise_is_that_of_diffusers(monkeypatch, assert_close):
    torch = pytest.importorskip("torch")
    theirs = of_diffusers("ddim", schedule := Schedule())
    x = torch.tensor(start := np.random.default_rng(0).standard_normal((2, 3, 3, 4), np.float32))
    for t in theirs.timesteps:
        said = torch.tensor(output(x.numpy(), float(t), np))
        x = theirs.step(said, t, x, eta=0.7, variance_noise=torch.ones_like(x)).prev_sample
    monkeypatch.setattr(samplers, "noise", lambda keys, shape: jnp.ones((len(keys), *shape)))
    times = SAMPLERS["ddim"].times(schedule, 10, 0.7)
    found, _ = jax.jit(functools.partial(samplers.ddim, ask))(samplers.Carry(start), times, keys(2))
    assert_close(found.x, x.numpy(), 2e-5)


@pytest.mark.parametrize(("kind", "eta"), [("ddim", 0.0), ("ddim", 1.0), ("pndm", 0.0), ("euler", 0.0)])  # fmt: skip
def test_normal_data_come_out_with_their_mean_and_deviation(normal, kind, eta):
    mean, steps = -0.7, 200
    model = normal.replace(schedule=Schedule(set_alpha_to_one=True))
    times = SAMPLERS[kind].times(model.schedule, steps, eta)
    denoise = unguided(Words(model, model.embed_texts([str(mean)])))
    noise = samplers.noise(keys(64, 1), (8, 8, 4))
    carry = SAMPLERS[kind].start(times.start * noise)
    found, _ = jax.jit(functools.partial(SAMPLERS[kind].steps, denoise))(carry, times, keys(64))
    # Of what is drawn, 16,384 numbers, the mean is known to 0.004; the noise at the start is not quite all there is.
    assert float(found.x.mean()) == pytest.approx(mean, abs=0.03)
    assert float(found.x.std()) == pytest.approx(model.deviation, abs=0.02)
    if not eta:
        # The flow is known as a whole.
        alpha = times.alpha[0]
        scale = model.deviation / np.sqrt(alpha * model.deviation**2 + 1 - alpha)
        exact = mean + scale * (carry.x - np.sqrt(alpha) * mean)
        np.testing.assert_allclose(found.x, exact, atol=0.02 if kind == "pndm" else 0.05)


@pytest.mark.parametrize("size", [4, 5])  # of a chunk; the second leaves a rest
@pytest.mark.parametrize(("kind", "eta"), [("ddim", 0.5), ("pndm", 0.0), ("euler", 0.0)])
def test_a_run_in_parts_is_the_whole_run_bit_by_bit(normal, kind, eta, size):
    steps = 12 - (kind == "pndm")  # 12 calls of the network
    times = SAMPLERS[kind].times(normal.schedule, steps, eta)
    denoise = unguided(Words(normal, normal.embed_texts(["0.3"])))
    take = jax.jit(functools.partial(SAMPLERS[kind].steps, denoise))
    carry = SAMPLERS[kind].start(samplers.noise(keys(2, 1), (4, 4, 4)))
    whole, (path, _) = take(carry, times, keys(2))
    seen = []
    for i in range(-(-12 // size)):
        carry, (part, _) = take(carry, times.chunk(i, size), keys(2))
        carry = jax.tree.map(np.asarray, carry)  # as it is saved
        seen.append(part)
    np.testing.assert_array_equal(carry.x, whole.x)
    np.testing.assert_array_equal(np.concatenate(seen)[:12], path)
    np.testing.assert_array_equal(path[-1].shape, carry.x.shape)


def test_an_image_does_not_depend_on_its_batch(normal):
    times = SAMPLERS["ddim"].times(normal.schedule, 5, 1.0)
    denoise = unguided(Words(normal, normal.embed_texts(["0.3"])))
    take = jax.jit(functools.partial(samplers.ddim, denoise))
    some = keys(3)
    together = take(samplers.Carry(samplers.noise(some, (4, 4, 4))), times, some)[0].x
    alone = take(samplers.Carry(samplers.noise(some[1:2], (4, 4, 4))), times, some[1:2])[0].x
    np.testing.assert_array_equal(together[1:2], alone)
    assert not np.array_equal(together[0], together[1])


@pytest.mark.parametrize(
    ("schedule", "steps", "said"),
    [
        (Schedule(), 1001, "sampler.steps is 1001; expected 1 to 1,000 steps"),
        (Schedule(), 1000, "sampler.steps is 1000; expected at most 999 for this model"),
        (Schedule(steps=20), 21, "sampler.steps is 21; expected 1 to 20"),
    ],
)
def test_more_steps_than_the_model_has_are_refused(schedule, steps, said):
    with pytest.raises(UserError, match=said):
        SAMPLERS["ddim"].times(schedule, steps, 0.0)
