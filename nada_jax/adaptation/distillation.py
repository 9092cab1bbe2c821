"""The term "sds": a text-to-image diffusion model says how adapted images should change to be of the target text."""

from typing import Annotated, Self

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.adaptation.steering import Text
from nada_jax.errors import UserError
from nada_jax.losses.distillation import distillation
from nada_jax.models.diffusion import Diffusion
from nada_jax.models.noise import noisy
from nada_jax.settings import Number, Rule, Section, one_of
from nada_jax.weights import loading

BASELINES = ("source", "noise")
# w(t) by the share alpha of the clean image's variance in the noised one.
WEIGHTINGS = {
    "variance": lambda alpha: 1 - alpha,  # of the noise, as in the paper
    "none": jnp.ones_like,
}
TIMES = Rule(
    lambda x: len(x) == 2 and 0 <= x[0] <= x[1] <= 1, "two shares in 0..1, the lower one first"
)


class Sds(Section, name="sds"):
    """A diffusion model, and how it is asked; `config.sds`."""

    weights: str
    baseline: Annotated[str, one_of(BASELINES)]
    scale: Number
    times: Annotated[tuple[float, ...], TIMES]
    weighting: Annotated[str, one_of(WEIGHTINGS)]
    negative: str


@flax.struct.dataclass
class Distillation:
    """A diffusion model that knows what images are to show.

    Attributes:
      diffusion: the model, without its text encoder.
      contexts: embedded texts [3, l, d]: negative, target, source.
      section: the settings.
    """

    diffusion: Diffusion
    contexts: jax.Array
    section: Sds = flax.struct.field(pytree_node=False)

    @classmethod
    def load(cls, section: Sds, *, text: Text, precision: str) -> Self:
        """Loads the model and reads the texts.

        Args:
          section: the settings.
          text: what images show, and are to show; example images and further texts are for CLIPs.
          precision: in which the denoiser computes.

        Raises:
          UserError: the model cannot be loaded, or reads source and target as the same.
        """
        field = section.path("weights")
        model = loading.load_diffusion(section.weights, precision=precision, field=field)
        texts = section.negative, text.target, text.source
        _, target, source = model.tokenize(texts)
        if section.baseline == "source" and np.array_equal(target, source):
            raise UserError(
                f"text.source={text.source!r} and text.target={text.target!r} are the same to the tokenizer of "
                f"{field}={section.weights!r}, so that sds.baseline='source' would change nothing; expected other "
                "texts"
            )
        contexts = model.embed_texts(texts)
        # The step reads no texts, and the encoder of Stable Diffusion's is half a gigabyte.
        params = {name: x for name, x in model.params.items() if name != "text_encoder"}
        return cls(model.replace(params=params), contexts, section)

    def loss(self, source: jax.Array, adapted: jax.Array, key: jax.Array) -> jax.Array:
        """`losses.distillation` of images noised at random times: [b].

        Args:
          source, adapted: images [b, h, w, 3] in about -1..1.
          key: draws a time and noise for each pair.
        """
        model, section, b = self.diffusion, self.section, len(adapted)
        alphas = jnp.asarray(model.schedule.alphas, jnp.float32)
        first, last = (round(share * (len(alphas) - 1)) for share in section.times)
        time_key, noise_key = jax.random.split(key)
        t = jax.random.randint(time_key, (b,), first, last + 1)
        latents = model.encode(self._fitted(adapted))
        noise = jax.random.normal(noise_key, latents.shape)
        _, target, before = self.contexts
        seen, texts = [latents], [target]
        if section.baseline == "source":
            seen, texts = [latents, model.encode(self._fitted(source))], [target, before]
        estimates = self._estimate(seen, texts, noise, t, alphas[t])
        # The same noise and time for both: what the model gets wrong about either image cancels.
        baseline = estimates[:, 1] if section.baseline == "source" else noise
        weight = WEIGHTINGS[section.weighting](alphas[t])
        return distillation(latents, estimates[:, 0] - baseline, weight)

    def _estimate(
        self,
        seen: list[jax.Array],
        texts: list[jax.Array],
        noise: jax.Array,
        t: jax.Array,
        alpha: jax.Array,
    ) -> jax.Array:
        """The noise in n batches of latents, each guided by a text of its own, [b, n, h, w, c], by one call."""
        n, (b, *shape) = len(seen), noise.shape
        # The denoiser is not differentiated: the loss would not use it.
        clean = jax.lax.stop_gradient(jnp.stack(seen, axis=1))
        x = noisy(clean, noise[:, None], alpha[:, None, None, None, None])
        # What belongs to an image lies side by side, so that several devices which share the batch keep their images.
        x = jnp.concatenate([x, x], axis=1).reshape(-1, *shape)
        context = jnp.stack([*[self.contexts[0]] * n, *texts])  # [2n, l, d]
        context = jnp.broadcast_to(context, (b, *context.shape)).reshape(-1, *context.shape[1:])
        found = self.diffusion.estimate(x, jnp.repeat(t, 2 * n), context)
        without, given = jnp.moveaxis(found.reshape(b, 2, n, *shape), 1, 0)
        return without + self.section.scale * (given - without)

    def _fitted(self, images: jax.Array) -> jax.Array:
        """Images as large as those that the model was trained on."""
        side = self.diffusion.size
        return jax.image.resize(images, (len(images), side, side, images.shape[-1]), "cubic")
