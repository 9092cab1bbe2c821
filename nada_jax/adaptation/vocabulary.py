"""The source text, read off the pictures of the source generator: CLIP ranks a vocabulary against them."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from nada_jax.errors import UserError, reading
from nada_jax.models.clip import Clip

VOCABULARY = Path(__file__).parents[1] / "assets" / "vocabulary.txt"


def vocabulary(file: str = "") -> list[str]:
    """The descriptions that may be read, one a line of a text file; what follows a # is a comment.

    Args:
      file: by default the one of this package.

    Raises:
      UserError: it cannot be read, or holds fewer than two descriptions.
    """
    path = Path(file).expanduser() if file else VOCABULARY
    with reading(path):
        lines = path.read_text(encoding="utf-8").splitlines()
        texts = list(dict.fromkeys(line.partition("#")[0].strip() for line in lines))
        texts = [text for text in texts if text]
        if len(texts) < 2:
            raise UserError(
                f"it holds {len(texts)} descriptions; expected two lines of text or more"
            )
    return texts


def embed(clips: Sequence[Clip], texts: Sequence[str]) -> list[jax.Array]:
    """Unit features [n, d] of n descriptions in each clip."""
    return [clip.embed_texts(texts) for clip in clips]


def scores(
    pictures: Sequence[jax.Array], texts: Sequence[jax.Array], weights: Sequence[float]
) -> jax.Array:
    """How well each description fits a set of pictures.

    Args:
      pictures: their mean unit feature in each clip, [d].
      texts: features of n descriptions in each clip, [n, d].
      weights: of the clips.

    Returns:
      [n], the mean cosine over pictures and, by weight, clips.
    """
    fits = [w * t @ p for p, t, w in zip(pictures, texts, weights, strict=True)]
    return jnp.sum(jnp.stack(fits), axis=0) / sum(weights)
