"""The source text, chosen by CLIP: a vocabulary is ranked against images of the source generator."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from nada_jax import files
from nada_jax.errors import UserError, reading

VOCABULARY = Path(__file__).parents[1] / "assets" / "vocabulary.txt"


def read(file: str = "") -> list[str]:
    """The candidate descriptions, one per line of a text file; text after a # is a comment.

    Args:
      file: by default the one of this package.

    Raises:
      UserError: it cannot be read, is not UTF-8, or holds fewer than two descriptions.
    """
    path = files.expand(file) if file else VOCABULARY
    with reading(path):
        lines = files.read_text(path).splitlines()
        texts = list(dict.fromkeys(line.partition("#")[0].strip() for line in lines))
        texts = [text for text in texts if text]
        if len(texts) < 2:
            raise UserError(
                f"it holds {len(texts)} descriptions; expected two lines of text or more"
            )
    return texts


def scores(
    images: Sequence[jax.Array], texts: Sequence[jax.Array], weights: Sequence[float]
) -> jax.Array:
    """How well each description fits a set of images.

    Args:
      images: their mean unit feature in each clip, [d].
      texts: features of n descriptions in each clip, [n, d].
      weights: of the clips.

    Returns:
      [n], the mean cosine over images and, by weight, clips.
    """
    fits = [w * t @ p for p, t, w in zip(images, texts, weights, strict=True)]
    return jnp.sum(jnp.stack(fits), axis=0) / sum(weights)
