"""How far drawn images are from the style that guided them, from their prompt, and from what they were without a guide."""

import functools
from typing import Any, Self

import flax
import jax
import numpy as np

from nada_jax.diffusion.objectives import Goals, describe
from nada_jax.evaluation.features import embed
from nada_jax.losses import pixel
from nada_jax.losses.style import KINDS, relative, with_length
from nada_jax.models.clip import Clip
from nada_jax.models.vgg import Vgg
from nada_jax.weights import loading

MEANINGS = {  # of the figures, beside those of the kinds of style
    "prompt": "cosine to the prompt, by the judge",
    "named": "cosine to the words that name the style, by the judge",
    "reference": "cosine to the style image, by the judge, which has not guided by it",
    "content": "cosine to the image of the prompt alone, by the judge",
    "mse": "mean squared difference from that image",
}


@flax.struct.dataclass
class Judge:
    """Looks at images by networks, one of which took no part in drawing them.

    Attributes:
      vgg: sees styles; the one that guides.
      clip: sees the rest.
      styles: kind -> statistics and lengths of the style, see `losses.style.with_length`.
      wanted: figure -> unit feature of its text or image, [d].
      layers: of the VGG.
    """

    vgg: Vgg
    clip: Clip
    styles: dict[str, Any]
    wanted: dict[str, jax.Array]
    layers: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def load(
        cls, judge: str, goals: Goals, vgg: Vgg, reference: np.ndarray, texts: dict[str, str]
    ) -> Self:
        """Loads the CLIP, and describes style and texts.

        Args:
          judge: its name.
          goals: say which layers see the style.
          vgg: the network.
          reference: the style image [1, h, w, 3], as large as the images.
          texts: figure -> text.

        Raises:
          UserError: there is no such CLIP.
        """
        clip = loading.load_clip(judge, field="judge")
        features = clip.embed_texts(list(texts.values()))
        found = {
            kind: with_length(kind, _describe(vgg, kind, goals.layers, reference)) for kind in KINDS
        }
        known = dict(zip(texts, features, strict=True))
        known["reference"] = embed(clip, reference)[0]
        return cls(vgg, clip.without_texts(), found, known, goals.layers)

    def measure(self, image: np.ndarray, alone: np.ndarray) -> dict[str, float]:
        """Figure -> value: distances from the style as shares of its length, by kind, and those of `MEANINGS`.

        Args:
          image: [h, w, 3] in [-1, 1].
          alone: the image of the same seed that nothing guided, likewise.
        """
        found = jax.device_get(_measure(self, image[None], alone[None]))
        return {name: float(x[0]) for name, x in found.items()}


@functools.partial(jax.jit, static_argnums=(1, 2))
def _describe(vgg: Vgg, kind: str, layers: tuple[str, ...], images: jax.Array) -> Any:
    return describe(vgg, kind, layers, images)


@jax.jit
def _measure(judge: Judge, images: jax.Array, alone: jax.Array) -> dict[str, jax.Array]:
    found = {
        kind: relative(kind, describe(judge.vgg, kind, judge.layers, images), *style)
        for kind, style in judge.styles.items()
    }
    seen, before = (judge.clip.embed_images(x, antialias=True) for x in (images, alone))
    found |= {name: seen @ feature for name, feature in judge.wanted.items()}
    return found | {"content": (seen * before).sum(axis=-1), "mse": pixel.l2(images, alone)}
