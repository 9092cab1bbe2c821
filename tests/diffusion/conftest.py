"""A diffusion model in closed form, for tests that need no network."""

from typing import Any

import flax
import jax.numpy as jnp
import pytest

from nada_jax.diffusion.objectives import OBJECTIVES
from nada_jax.diffusion.settings import Guidance, Sampling
from nada_jax.models.noise import PREDICTIONS, Schedule, clean_of


@flax.struct.dataclass
class Normal:
    """Data are normal around a mean that the prompt gives, so that the true estimate of the noise is known.

    Attributes:
      deviation: of the data.
      schedule: of the noise.
    """

    deviation: Any = 0.5
    schedule: Schedule = flax.struct.field(pytree_node=False, default=Schedule())
    factor: int = flax.struct.field(pytree_node=False, default=2)
    multiple: int = flax.struct.field(pytree_node=False, default=4)
    channels: int = flax.struct.field(pytree_node=False, default=4)
    size: int = flax.struct.field(pytree_node=False, default=16)

    def embed_texts(self, texts):
        """A text is a number, the mean: [n, 1, 1]."""
        return jnp.asarray([float(text or 0) for text in texts])[:, None, None]

    def predict(self, x, t, context):
        """The true noise, or velocity."""
        t = jnp.broadcast_to(t, len(x)).astype(jnp.int32)
        alpha = jnp.asarray(self.schedule.alphas, jnp.float32)[t][:, None, None, None]
        variance = alpha * self.deviation**2 + 1 - alpha
        eps = jnp.sqrt(1 - alpha) * (x - jnp.sqrt(alpha) * context[..., None]) / variance
        target = PREDICTIONS[self.schedule.prediction].target
        return target(clean_of(eps, x, alpha), eps, alpha)

    def decode(self, latents):
        """The first three channels, twice as large."""
        return jnp.repeat(jnp.repeat(latents[..., :3], 2, axis=1), 2, axis=2)


@pytest.fixture(scope="session")
def normal():
    """The model."""
    return Normal()


@pytest.fixture(scope="session")
def make_sampling():
    """make_sampling(steps=5) -> settings of DDIM without classifier-free guidance."""
    base = {"method": "ddim", "steps": 10, "scale": 1.0, "eta": 0.0, "size": 0}
    return lambda **fields: Sampling(**base | fields)


@pytest.fixture(scope="session")
def make_guidance(narrow_networks):
    """make_guidance(weight=1.0, loss={"l2": 1.0}) -> settings of guidance, by the distance from an image."""
    base = {
        "reference": "style.png", "content": "image.png", "text_source": "photo", "text_target": "sketch",
        "vgg": str(narrow_networks["vgg"]), "clip": "avatar-p8", "layers": ("relu1_1", "relu2_1"), "size": 0,
        "weight": 0.6, "boost": 1.0, "boost_from": 0.5, "free": 0.0, "until": 1.0, "through": "denoiser",
        "scaling": "noise", "repeats": 1, "repeat_from": 0.0, "repeat_until": 1.0, "backward": 0,
        "backward_rate": 0.1, "remat": False,
    }  # fmt: skip

    def make(loss=None, **fields):
        factors = dict.fromkeys(OBJECTIVES, 0.0) | (loss or {"l2": 1.0})
        return Guidance.read(base | {"loss": factors} | fields)

    return make
