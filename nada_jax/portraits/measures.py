"""Figures of images before and after an edit."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.latents.projection import Networks, differences, see
from nada_jax.losses.identity import identity
from nada_jax.models.clip import Clip
from nada_jax.weights import loading

Figures = Mapping[str, np.ndarray]  # each [b]


def load_measures(
    networks: Networks, judge: str, text: str
) -> Callable[[np.ndarray, np.ndarray], Figures]:
    """A function of images before and after, [b, size, size, 3] each, to figures [b].

    `mse`, `lpips` and `identity` (a cosine) between the two, as far as the networks are given; `clip_before` and
    `clip_after`, the cosines to the text, unless it is "", as the judge sees them.
    """
    wanted = None
    if networks.judge is not None and text:
        whole = loading.load_clip(judge, field="judge")
        wanted = whole.embed_texts([text])[0]

    def measure(before: np.ndarray, after: np.ndarray) -> Figures:
        found = jax.device_get(_compare(networks, before, after))
        if wanted is not None:
            for when, drawn in {"before": before, "after": after}.items():
                found[f"clip_{when}"] = np.asarray(cosines(networks.judge, drawn, wanted))
        return found

    return measure


@jax.jit
def _compare(networks: Networks, before: jax.Array, after: jax.Array) -> Figures:
    found = differences(networks, see(networks, before), after)
    if networks.identity is not None:
        faces = (networks.identity.embed_images(x) for x in (before, after))
        found["identity"] = 1 - identity(*faces)
    return found


@jax.jit
def cosines(clip: Clip, drawn: jax.Array, wanted: jax.Array) -> jax.Array:
    """Cosines [b] of images to the feature of a text [d]."""
    return clip.embed_images(drawn, antialias=True) @ wanted


@jax.jit
def gain(
    judge: Clip, before: jax.Array, after: jax.Array, wanted: jax.Array
) -> dict[str, jax.Array]:
    """`gained` and `mse` of rows, by a judge; `wanted` are features of texts [b, d]."""
    seen = (judge.embed_images(x, antialias=True) for x in (after, before))
    after_cosine, before_cosine = (jnp.sum(x * wanted, axis=1) for x in seen)
    return {
        "gained": after_cosine - before_cosine,
        "mse": jnp.mean((after - before) ** 2, axis=(1, 2, 3)),
    }


def judged(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Of scores [n]: their mean change, `judged`, and the share of those that have risen, `nearer`."""
    change = after - before
    return {"judged": float(change.mean()), "nearer": float((change > 0).mean())}
