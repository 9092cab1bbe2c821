"""The noise of a diffusion model: how much of it there is at each time, and what a network's output says of it.

A noisy sample is x_t = sqrt(alpha_t) x_0 + sqrt(1 - alpha_t) eps, Ho et al. 2020 (arXiv 2006.11239), eq. 4; alpha is what
the paper calls alpha-bar.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.errors import UserError

MOST_STEPS = 100_000  # of training; published models have 1,000
LARGEST_BETA = 0.999  # of the squared cosine, as its authors clip it


def _linear(start: float, end: float, steps: int) -> np.ndarray:
    return np.linspace(start, end, steps)


def _scaled_linear(start: float, end: float, steps: int) -> np.ndarray:
    return np.linspace(start**0.5, end**0.5, steps) ** 2


def _squared_cosine(_start: float, _end: float, steps: int) -> np.ndarray:
    """Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17; it has no start and end."""
    alphas = np.cos((np.linspace(0, 1, steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - alphas[1:] / alphas[:-1], LARGEST_BETA)


BETAS: dict[str, Callable[[float, float, int], np.ndarray]] = {  # (start, end, steps) -> [steps]
    "linear": _linear,
    "scaled_linear": _scaled_linear,  # of Stable Diffusion
    "squaredcos_cap_v2": _squared_cosine,
}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network's output means.

    Attributes:
      noise: (output, x, alpha) -> the estimate of the noise.
      target: (clean, noise, alpha) -> the output that would be right.
    """

    noise: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    target: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


PREDICTIONS = {
    "epsilon": Prediction(lambda output, x, alpha: output, lambda clean, noise, alpha: noise),
    # Salimans & Ho 2022 (arXiv 2202.00512), appendix D.
    "v_prediction": Prediction(
        lambda output, x, alpha: jnp.sqrt(alpha) * output + jnp.sqrt(1 - alpha) * x,
        lambda clean, noise, alpha: jnp.sqrt(alpha) * noise - jnp.sqrt(1 - alpha) * clean,
    ),
}
SPACINGS = ("leading", "trailing", "linspace")
# Fields of scheduler_config.json that change the noise itself, and what they have to be here.
PLAIN = {"trained_betas": None, "rescale_betas_zero_snr": False}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The noise that a model was trained on; the fields are those of diffusers' scheduler_config.json.

    Attributes:
      beta_start, beta_end, beta_schedule: variance of the noise that each step adds; a key of `BETAS`.
      steps: of training, `num_train_timesteps`; times are 0 to steps - 1.
      prediction: `prediction_type`, a key of `PREDICTIONS`.
      steps_offset: added to the times of a sampler.
      set_alpha_to_one: whether the last step of a sampler ends without noise, or with that of time 0.
      timestep_spacing: how a sampler chooses its times out of these.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    steps: int = 1000
    prediction: str = "epsilon"
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    timestep_spacing: str = "leading"

    def __post_init__(self):
        kinds = {"beta_schedule": BETAS, "prediction": PREDICTIONS, "timestep_spacing": SPACINGS}
        for name, known in kinds.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}; expected {' or '.join(known)}")
        if type(self.steps) is not int or not 1 < self.steps <= MOST_STEPS:
            raise UserError(f"num_train_timesteps is {self.steps!r}; expected 2 to {MOST_STEPS:,}")
        if type(self.steps_offset) is not int or not 0 <= self.steps_offset < self.steps:
            raise UserError(f"steps_offset is {self.steps_offset!r}; expected 0 or 1")
        betas = self.beta_start, self.beta_end
        if not all(type(beta) is float and 0 < beta < 1 for beta in betas):
            raise UserError(
                f"beta_start and beta_end are {betas}; expected numbers between 0 and 1"
            )

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> "Schedule":
        """Reads a scheduler_config.json of any of diffusers' schedulers; what is theirs alone is left out.

        Raises:
          UserError: its noise is not one of `BETAS`, or a value is not possible.
        """
        for name, plain in PLAIN.items():
            if config.get(name, plain) != plain:
                raise UserError(f"{name} is {config[name]!r}, which is not built; expected {plain}")
        # The defaults of diffusers, which are not those of Stable Diffusion.
        known = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
        known |= {
            "steps_offset": 0,
            "set_alpha_to_one": config.get("_class_name") != "PNDMScheduler",
        }
        theirs = {"steps": "num_train_timesteps", "prediction": "prediction_type"}
        for field in dataclasses.fields(cls):
            name = theirs.get(field.name, field.name)
            if config.get(name) is not None:
                known[field.name] = config[name]
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """As a scheduler_config.json of diffusers."""
        names = {"steps": "num_train_timesteps", "prediction": "prediction_type"}
        own = {names.get(name, name): x for name, x in dataclasses.asdict(self).items()}
        return {"_class_name": "DDIMScheduler", "clip_sample": False, **own}

    @property
    def alphas(self) -> np.ndarray:
        """The share of the sample in a noisy one's variance at each time, float64 [steps]."""
        return _alphas(self.beta_schedule, self.beta_start, self.beta_end, self.steps)

    @property
    def final(self) -> float:
        """The same behind the last step of a sampler."""
        return 1.0 if self.set_alpha_to_one else float(self.alphas[0])


@functools.cache
def _alphas(kind: str, start: float, end: float, steps: int) -> np.ndarray:
    alphas = np.cumprod(1 - BETAS[kind](start, end, steps))
    alphas.setflags(write=False)  # one array for all who ask
    return alphas


def noise_of(output: jax.Array, x: jax.Array, alpha: jax.Array, prediction: str) -> jax.Array:
    """The noise that a network estimates.

    Args:
      output: of the network, like x.
      x: noisy samples.
      alpha: of their times; it broadcasts to x.
      prediction: a key of `PREDICTIONS`.

    Returns:
      eps, like x.
    """
    return PREDICTIONS[prediction].noise(output, x, alpha)


def clean_of(eps: jax.Array, x: jax.Array, alpha: jax.Array) -> jax.Array:
    """The clean sample that an estimate of the noise implies, Song et al. 2021 (arXiv 2010.02502), eq. 9.

    Args:
      eps: estimated noise, like x.
      x: noisy samples.
      alpha: of their times; it broadcasts to x.

    Returns:
      x_0, like x.
    """
    return (x - jnp.sqrt(1 - alpha) * eps) / jnp.sqrt(alpha)


def noisy(clean: jax.Array, eps: jax.Array, alpha: jax.Array) -> jax.Array:
    """Adds noise to clean samples; the inverse of `clean_of`."""
    return jnp.sqrt(alpha) * clean + jnp.sqrt(1 - alpha) * eps
