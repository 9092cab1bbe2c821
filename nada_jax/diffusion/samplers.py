"""Samplers: functions of (denoise, carry, times, key) that follow the noise down to an image.

All latents are on the scale x = sqrt(alpha) x_0 + sqrt(1 - alpha) eps of `models.noise`, on which the networks were
trained. Each sampler takes the steps of `times`, which may be a part of all of them: what it returns is what it goes on
from. The numbers are those of the schedulers of diffusers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.models.noise import PREDICTIONS, Schedule, noise_of, noisy
from nada_jax.settings import need


@flax.struct.dataclass
class Times:
    """The steps of a sampler, n of them; or one of them, as a sampler hands it to `denoise`.

    Attributes:
      t: what the network is told, float32 [n].
      alpha: of the latents that the network sees [n].
      before, after: alpha that the step starts from and ends with [n]; `before` is `alpha` but for a step of pndm.
      deviation: of the noise that the step adds [n]; None where it adds none.
      index: of the step, int32 [n].
      total: number of steps.
      prediction: what the network predicts; see `Schedule`.
      start: deviation of the noise that the first step starts from.
      filled: whether steps with an index from `total` on follow, which are none and fill the last chunk.
    """

    t: jax.Array
    alpha: jax.Array
    before: jax.Array
    after: jax.Array
    deviation: jax.Array | None
    index: jax.Array
    total: int = flax.struct.field(pytree_node=False)
    prediction: str = flax.struct.field(pytree_node=False)
    start: float = flax.struct.field(pytree_node=False, default=1.0)
    filled: bool = flax.struct.field(pytree_node=False, default=False)

    def chunk(self, i: int, size: int) -> "Times":
        """Steps i * size to (i + 1) * size. All chunks have that size, so that one program takes them."""
        rows = np.arange(i * size, (i + 1) * size)
        clipped = np.minimum(rows, self.total - 1)
        chosen = jax.tree.map(lambda x: x[clipped], self)
        return chosen.replace(index=rows.astype(np.int32), filled=self.total % size != 0)


@flax.struct.dataclass
class Carry:
    """What a step hands to the next.

    Attributes:
      x: latents [b, h, w, c]; behind the last step those of the image.
      start: pndm alone: the latents that its first step started from.
      outputs: pndm alone: what the network said at the last three steps, the latest first [3, b, h, w, c].
    """

    x: jax.Array
    start: jax.Array | None = None
    outputs: jax.Array | None = None


Aux = Any
# (latents [b, h, w, c], a row of `Times`, keys [b]) -> the estimate of the noise, the clean latents that it implies, and
# what the path is to keep. The two estimates may be of other latents than those that were given, with the same alpha.
Denoise = Callable[[jax.Array, Times, jax.Array], tuple[jax.Array, jax.Array, Aux]]


def ddim(denoise: Denoise, carry: Carry, times: Times, key: jax.Array) -> tuple[Carry, Aux]:
    """DDIM, Song et al. 2021 (arXiv 2010.02502), eq. 12.

    x' = sqrt(a') x_0 + sqrt(1 - a' - s^2) eps + s z, with a' = `after` and the noise z of deviation s.

    Args:
      denoise: see `Denoise`; guided or not.
      carry: latents.
      times: the steps [n].
      key: of each image [b].

    Returns:
      What the next step starts from; and what `denoise` keeps of each step [n, ...].
    """

    def step(carry: Carry, at: Times, keys: jax.Array) -> tuple[Carry, Aux]:
        within, fresh = _split(keys)
        eps, clean, kept = denoise(carry.x, at, within)
        if at.deviation is None:
            return Carry(noisy(clean, eps, at.after)), kept
        share = jnp.sqrt(jnp.maximum(1 - at.after - at.deviation**2, 0))  # rounding may be below 0
        x = jnp.sqrt(at.after) * clean + share * eps
        return Carry(x + at.deviation * noise(fresh, x.shape[1:])), kept

    return _scan(step, carry, times, key)


def euler(denoise: Denoise, carry: Carry, times: Times, key: jax.Array) -> tuple[Carry, Aux]:
    """Euler's method for the probability flow; `ddim` along the steps of `euler_times`, which says why."""
    return ddim(denoise, carry, times, key)


def pndm(denoise: Denoise, carry: Carry, times: Times, key: jax.Array) -> tuple[Carry, Aux]:
    """PLMS, Liu et al. 2022 (arXiv 2202.09778), eq. 12, without the Runge-Kutta steps, as Stable Diffusion has it.

    Steps of DDIM by a sum of what the network said at the last four steps. The second step takes the first one again, by
    the mean of what the network says at its two ends. Arguments and results are those of `ddim`.
    """

    def step(carry: Carry, at: Times, keys: jax.Array) -> tuple[Carry, Aux]:
        within, _ = _split(keys)
        eps, clean, kept = denoise(carry.x, at, within)
        # The latents that the estimates belong to, which need not be those that were given.
        x = noisy(clean, eps, at.alpha)
        # Sums are of what the network predicts, noise or velocity, as in diffusers.
        output = PREDICTIONS[at.prediction].target(clean, eps, at.alpha)
        seen = jnp.concatenate([output[None], carry.outputs])
        # Step 1 leaves no output behind, so that step i has seen those of i steps, or of three at most.
        summed = jnp.tensordot(jnp.asarray(PLMS)[jnp.minimum(at.index, 4)], seen, 1)
        again = at.index == 1
        start = jnp.where(at.index == 0, x, carry.start)
        x = jnp.where(again, start, x)
        eps = noise_of(summed, x, at.before, at.prediction)
        # Not by x_0, which the sum has nothing to say of; DDIM's step, solved for it.
        root = jnp.sqrt(at.after / at.before)
        x = root * x + (jnp.sqrt(1 - at.after) - root * jnp.sqrt(1 - at.before)) * eps
        outputs = jnp.where(again, carry.outputs, seen[:3])
        return Carry(x, start, outputs), kept

    return _scan(step, carry, times, key)


# Weights of what the network says and has said at steps 0, 1, 2, 3 and all further ones: Euler, Heun, Adams-Bashforth.
PLMS = np.array(
    (
        (1, 0, 0, 0),
        (1 / 2, 1 / 2, 0, 0),
        (3 / 2, -1 / 2, 0, 0),
        (23 / 12, -16 / 12, 5 / 12, 0),
        (55 / 24, -59 / 24, 37 / 24, -9 / 24),
    ),
    np.float32,
)


def ddim_times(schedule: Schedule, steps: int, eta: float = 0.0) -> Times:
    """The steps of `ddim`.

    Args:
      schedule: of the model.
      steps: how many.
      eta: share of the noise of DDPM that each step adds, in 0..1.

    Raises:
      UserError: the model was not trained on so many steps.
    """
    t = _spaced(schedule, steps)
    alpha, after = _alphas(schedule, t), _alphas(schedule, t - schedule.steps // steps)
    variance = (1 - after) / (1 - alpha) * (1 - alpha / after)
    deviation = eta * np.sqrt(variance) if eta else None
    return _times(schedule, t, alpha, alpha, after, deviation)


def pndm_times(schedule: Schedule, steps: int, eta: float = 0.0) -> Times:
    """The steps of `pndm`, one more than `steps` where there are two or more; see `ddim_times`."""
    t = _spaced(schedule, steps)
    step = schedule.steps // steps
    if steps > 1:
        t = np.concatenate([t[:1], t[1:2], t[1:]])
    before, after = t.copy(), t - step
    if steps > 1:
        before[1], after[1] = t[1] + step, t[1]
    return _times(schedule, t, *(_alphas(schedule, x) for x in (t, before, after)))


def euler_times(schedule: Schedule, steps: int, eta: float = 0.0) -> Times:
    """Steps of Euler, Karras et al. 2022 (arXiv 2206.00364), alg. 1: those of `ddim` in other words; see `ddim_times`.

    With sigma^2 = 1 / alpha - 1, Euler's y' = y + (sigma' - sigma) eps for y = x / sqrt(alpha) is DDIM's step without
    noise. The steps differ: they may lie between times of the training, and the last ends without any noise.
    """
    t = _spaced(schedule, steps)
    if schedule.timestep_spacing == "linspace":
        t = np.linspace(schedule.steps - 1, 0, steps)
    sigmas = np.sqrt(1 / schedule.alphas - 1)
    alpha = 1 / (np.interp(t, np.arange(schedule.steps), sigmas) ** 2 + 1)
    found = _times(schedule, t, alpha, alpha, np.append(alpha[1:], 1.0))
    leading = schedule.timestep_spacing == "leading"
    return found if leading else found.replace(start=float(np.sqrt(1 - alpha[0])))


def _spaced(schedule: Schedule, steps: int) -> np.ndarray:
    """Times from the last to the first, int64 [steps], as `timestep_spacing` says."""
    need(1 <= steps <= schedule.steps, "sampler.steps", steps, f"1 to {schedule.steps:,} steps")
    if schedule.timestep_spacing == "leading":
        t = np.arange(steps)[::-1] * (schedule.steps // steps) + schedule.steps_offset
    elif schedule.timestep_spacing == "linspace":
        t = np.round(np.linspace(schedule.steps - 1, 0, steps))
    else:
        t = np.round(schedule.steps - np.arange(steps) * (schedule.steps / steps)) - 1
    most = schedule.steps - schedule.steps_offset
    need(t[0] < schedule.steps, "sampler.steps", steps, f"at most {most:,} for this model")
    return t.astype(np.int64)


def _alphas(schedule: Schedule, t: np.ndarray) -> np.ndarray:
    """Alpha at times [n]; before the first of them it is that of an image."""
    return np.where(t >= 0, schedule.alphas[np.clip(t, 0, schedule.steps - 1)], schedule.final)


def _times(
    schedule: Schedule,
    t: np.ndarray,
    alpha: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    deviation: np.ndarray | None = None,
) -> Times:
    arrays = jax.tree.map(np.float32, (t, alpha, before, after, deviation))
    return Times(*arrays, np.arange(len(t), dtype=np.int32), len(t), schedule.prediction)


def noise(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal numbers [b, *shape] by the keys [b] of images, each by its own."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _split(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two keys of each."""
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


def _scan(
    step: Callable[[Carry, Times, jax.Array], tuple[Carry, Aux]],
    carry: Carry,
    times: Times,
    key: jax.Array,
) -> tuple[Carry, Aux]:
    """Takes steps, each with keys of its own, and passes over those that are none."""

    def body(carry: Carry, at: Times) -> tuple[Carry, Aux]:
        keys = jax.vmap(jax.random.fold_in, (0, None))(key, at.index)

        def live(carry: Carry) -> tuple[Carry, Aux]:
            return step(carry, at, keys)

        def none(carry: Carry) -> tuple[Carry, Aux]:
            kept = jax.eval_shape(live, carry)[1]
            return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), kept)

        if not times.filled:
            return live(carry)
        return jax.lax.cond(at.index < at.total, live, none, carry)

    return jax.lax.scan(body, carry, times)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A row of the table.

    Attributes:
      times: (schedule, steps, eta) -> the steps.
      steps: the function of (denoise, carry, times, key).
      start: latents -> what the first step starts from.
      noisy: whether it adds noise of its own where eta is above 0.
    """

    times: Callable[[Schedule, int, float], Times]
    steps: Callable[[Denoise, Carry, Times, jax.Array], tuple[Carry, Aux]]
    start: Callable[[jax.Array], Carry] = Carry
    noisy: bool = False


def _with_history(x: jax.Array) -> Carry:
    return Carry(x, x, jnp.zeros((3, *x.shape)))


SAMPLERS = {
    "ddim": Sampler(ddim_times, ddim, noisy=True),
    "pndm": Sampler(pndm_times, pndm, _with_history),
    "euler": Sampler(euler_times, euler),
}
