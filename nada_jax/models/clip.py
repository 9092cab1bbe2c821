"""CLIP (Radford et al. 2021): images and texts -> unit features of one space.

The networks are Hugging Face's Flax ones; `transformers` is imported here, in `models.clip_network` and in
`models.tokenizer` alone.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from transformers.models.clip.modeling_flax_clip import FlaxCLIPModule

from nada_jax import batches, trees
from nada_jax.errors import UserError, reading, some
from nada_jax.models import clip_network, preprocessing, resampling
from nada_jax.models.clip_network import canonical, network, param_shapes
from nada_jax.models.ops import check_images
from nada_jax.models.preprocessing import MEAN, STD
from nada_jax.models.tokenizer import Tokenizer, load_tokenizer, tokenize
from nada_jax.settings import PRECISIONS, need

# Texts are embedded in batches of these sizes only, so that a clip compiles at most twice.
TEXT_BATCHES = (8, 80)
EPS = 1e-12  # of a squared length; a feature of zeros has a finite gradient
OLD_EOS = 2  # Hugging Face's former default of eos_token_id, which means "the highest id"


@flax.struct.dataclass
class Clip:
    """A CLIP; make one with `from_params` or `nada_jax.load_clip`.

    Attributes:
      params: float32 parameters of Hugging Face's FlaxCLIPModel, nested.
      config: its configuration as canonical JSON.
      tokenizer: see `Tokenizer`.
      name: how messages and metrics call it.
      mean, std, squash: see `Preprocessing`.
      precision: "float32" or "bfloat16", in which the networks compute.
    """

    params: dict[str, Any]
    # JSON, because static fields are hashed by jit, and the configuration object cannot be.
    config: str = flax.struct.field(pytree_node=False, repr=False)
    tokenizer: Tokenizer = flax.struct.field(pytree_node=False)
    name: str = flax.struct.field(pytree_node=False, default="clip")
    mean: tuple[float, ...] = flax.struct.field(pytree_node=False, default=MEAN)
    std: tuple[float, ...] = flax.struct.field(pytree_node=False, default=STD)
    squash: bool = flax.struct.field(pytree_node=False, default=False)
    precision: str = flax.struct.field(pytree_node=False, default="float32")

    @property
    def module(self) -> FlaxCLIPModule:
        """The network without its parameters."""
        return network(self.config, self.precision)

    @property
    def image_size(self) -> int:
        """Side r of the square images that the network reads."""
        return self.module.config.vision_config.image_size

    @property
    def context(self) -> int:
        """Number of tokens that the network reads, start and end included."""
        return self.module.config.text_config.max_position_embeddings

    @property
    def dim(self) -> int:
        """Length d of a feature."""
        return self.module.config.projection_dim

    def pixels(self, images: jax.Array, antialias: bool = False) -> jax.Array:
        """Resizes the shorter side to r by bicubic interpolation, crops the centre, normalises.

        A clip that squashes resizes both sides to r instead.

        Args:
          images: [b, h, w, 3] in [-1, 1].
          antialias: widen the filter when shrinking, as newer libraries do.

        Returns:
          float32 [b, r, r, 3], what the network reads.

        Raises:
          ValueError: images of another shape, or of whole numbers, whose range is another one.
        """
        check_images(images)
        # Nothing is clamped: clamping would cut off gradients of what exceeds [-1, 1].
        sides = images.shape[1:3]
        rows, columns = (
            resampling.to_shorter_side(
                side, side if self.squash else min(sides), self.image_size, antialias
            )
            for side in sides
        )
        x = images.astype(jnp.float32)
        # A network in bfloat16 rounds its pixels by up to 4e-3 anyway; "high" (TF32 on GPUs, three products of
        # bfloat16 on TPUs) is up to 1.1e-3 off the products of float64, and several times faster than "highest".
        precision = "highest" if self.precision == "float32" else "high"
        if rows is not None:
            x = jnp.einsum("rh,bhwc->brwc", rows, x, precision=precision)
        if columns is not None:
            x = jnp.einsum("rw,bhwc->bhrc", columns, x, precision=precision)
        mean, std = np.float32(self.mean), np.float32(self.std)
        return x * (0.5 / std) + (0.5 - mean) / std

    def embed_pixels(self, pixels: jax.Array) -> jax.Array:
        """What `pixels` returned, [b, r, r, 3] -> float32 unit features [b, d]."""
        return unit(
            self.module.apply({"params": self.params}, pixels, method=clip_network.image_features)
        )

    def embed_images(self, images: jax.Array, antialias: bool = False) -> jax.Array:
        """[b, h, w, 3] in [-1, 1] -> float32 unit features [b, d]; see `pixels`."""
        return self.embed_pixels(self.pixels(images, antialias))

    def without_texts(self) -> "Clip":
        """The same for images only: without the text tower, and with weights as the networks compute with them.

        That is a quarter of the memory where the precision is bfloat16, and half of it otherwise.
        """
        image = ("vision_model", "visual_projection", "logit_scale")
        params = {name: self.params[name] for name in image}
        return self.replace(params=clip_network.for_images(params, self.precision))

    def embed_tokens(self, ids: jax.Array) -> jax.Array:
        """What `tokenize` returned, [n, context] -> float32 unit features [n, d]."""
        return unit(
            self.module.apply({"params": self.params}, ids, method=clip_network.text_features)
        )

    def embed_texts(self, texts: Sequence[str]) -> jax.Array:
        """Texts -> float32 unit features [n, d]; jitted inside, so call it outside of `jit`.

        Raises:
          UserError: a text is blank.
        """
        ids = self.tokenize(texts)
        size = next((size for size in TEXT_BATCHES if len(ids) <= size), TEXT_BATCHES[-1])
        features = [_embed_tokens(self, ids[rows]) for rows in batches.split(len(ids), size)]
        return jnp.concatenate(features)[: len(ids)]

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> ids int32 [n, context]: start, the text, end, zeros.

        A text that is too long is cut, with a warning, the first time, that shows what is left.

        Raises:
          UserError: there are no texts, or one of them is blank or of another type.
        """
        ids = tokenize(self.tokenizer, texts, self.context, f"clip {self.name!r}")
        for row, text in zip(ids, texts, strict=True):
            if row[1] == self.tokenizer.end:  # nothing but blanks and control characters
                raise UserError(f"cannot embed a blank text {text!r} with clip {self.name!r}")
        return ids


def from_params(
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    directory: str | os.PathLike | None = None,
    *,
    preprocessor: Mapping[str, Any] | None = None,
    name: str = "clip",
    precision: str = "float32",
    tokenizer: Tokenizer | None = None,
) -> Clip:
    """Builds a clip from arrays.

    Args:
      params: {flat path: array} of Hugging Face's FlaxCLIPModel, any float type.
      config: its `config.json`.
      directory: where tokenizer files and preprocessor_config.json are looked for. Without them:
        OpenAI's vocabulary, where the config has its size, and OpenAI's mean and std, with a warning.
      preprocessor: content of a preprocessor_config.json, instead of the one that is looked for.
      name: see `Clip`.
      precision: see `Clip`.
      tokenizer: instead of the one that is looked for.

    Returns:
      The clip.

    Raises:
      UserError: an unknown precision, a damaged config, arrays that do not make the network, a
        preprocessor that is not built, no tokenizer.
    """
    need(precision in PRECISIONS, "precision", precision, f"one of {', '.join(PRECISIONS)}")
    # The config, the preprocessor and the tokenizer may be a stranger's.
    with reading(name):
        if wrong := trees.misfits(params, param_shapes(config)):
            raise UserError(f"the arrays do not make clip {name!r}: {some(wrong)}")
        described = canonical(config)
        built = network(described, precision).config
        text, size = built.text_config, built.vision_config.image_size
        tokenizer = tokenizer or load_tokenizer(directory, text.vocab_size)
        if (highest := max(tokenizer.start, tokenizer.end)) >= text.vocab_size:
            raise UserError(
                f"clip {name!r} knows {text.vocab_size} tokens, but its tokenizer has number {highest}"
            )
        # The network looks for its own end token, and would read out another place.
        if text.eos_token_id not in (OLD_EOS, tokenizer.end):
            raise UserError(
                f"clip {name!r}: config.json says text_config.eos_token_id={text.eos_token_id}, but "
                f"its tokenizer ends texts with {tokenizer.end}"
            )
        if directory and preprocessor is None:
            how = preprocessing.read(directory, size)
        else:
            how = preprocessing.parse(preprocessor or {}, size)
    tree = trees.unflatten({path: jnp.asarray(x, jnp.float32) for path, x in params.items()})
    return Clip(tree, described, tokenizer, name, how.mean, how.std, how.squash, precision)


def unit(x: jax.Array) -> jax.Array:
    """Brings the last axis to length 1, in float32; a zero stays zero, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + EPS)


@jax.jit
def _embed_tokens(clip: Clip, ids: jax.Array) -> jax.Array:
    return clip.embed_tokens(ids)
