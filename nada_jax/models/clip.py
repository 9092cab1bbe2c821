"""CLIP (Radford et al. 2021): images and texts -> unit features of one space.

The networks are Hugging Face's Flax ones; `transformers` is imported here and in `models.tokenizer` alone.
"""

import functools
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from transformers import CLIPConfig
from transformers.models.clip.modeling_flax_clip import FlaxCLIPModule

from nada_jax import batches, trees
from nada_jax.errors import UserError, reading, some
from nada_jax.models import resampling
from nada_jax.models.tokenizer import Tokenizer, load_tokenizer
from nada_jax.settings import PRECISIONS, need

# Of OpenAI's training images, in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# Texts are embedded in batches of these sizes only, so that a clip compiles at most twice.
TEXT_BATCHES = (8, 80)
EPS = 1e-12  # of a squared length; a feature of zeros has a finite gradient
_said: set[tuple[str, str]] = (
    set()
)  # (clip, what is left of a text) of all warnings: texts are embedded again
OLD_EOS = 2  # Hugging Face's former default of eos_token_id, which means "the highest id"


@flax.struct.dataclass
class Clip:
    """A CLIP; make one with `from_params` or `nada_jax.load_clip`.

    Attributes:
      params: float32 parameters of Hugging Face's FlaxCLIPModel, nested.
      config: its configuration as canonical JSON.
      tokenizer: see `Tokenizer`.
      name: how messages and metrics call it.
      mean, std: of the three colours in [0, 1], for normalising.
      precision: "float32" or "bfloat16", in which the networks compute.
    """

    params: dict[str, Any]
    # JSON, because static fields are hashed by jit, and the configuration object cannot be.
    config: str = flax.struct.field(pytree_node=False, repr=False)
    tokenizer: Tokenizer = flax.struct.field(pytree_node=False)
    name: str = flax.struct.field(pytree_node=False, default="clip")
    mean: tuple[float, ...] = flax.struct.field(pytree_node=False, default=MEAN)
    std: tuple[float, ...] = flax.struct.field(pytree_node=False, default=STD)
    precision: str = flax.struct.field(pytree_node=False, default="float32")

    @property
    def module(self) -> FlaxCLIPModule:
        """The network without its parameters."""
        return _module(self.config, self.precision)

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

        Args:
          images: [b, h, w, 3] in [-1, 1].
          antialias: widen the filter when shrinking, as newer libraries do.

        Returns:
          float32 [b, r, r, 3], what the network reads.
        """
        # Nothing is clamped: clamping would cut off gradients of what exceeds [-1, 1].
        sides = images.shape[1:3]
        rows, columns = (
            resampling.to_shorter_side(side, min(sides), self.image_size, antialias)
            for side in sides
        )
        x = images.astype(jnp.float32)
        if rows is not None:
            x = jnp.einsum("rh,bhwc->brwc", rows, x, precision="highest")
        if columns is not None:
            x = jnp.einsum("rw,bhwc->bhrc", columns, x, precision="highest")
        mean, std = np.float32(self.mean), np.float32(self.std)
        return x * (0.5 / std) + (0.5 - mean) / std

    def embed_pixels(self, pixels: jax.Array) -> jax.Array:
        """What `pixels` returned, [b, r, r, 3] -> float32 unit features [b, d]."""
        return unit(self.module.apply({"params": self.params}, pixels, method=_image_features))

    def embed_images(self, images: jax.Array, antialias: bool = False) -> jax.Array:
        """[b, h, w, 3] in [-1, 1] -> float32 unit features [b, d]; see `pixels`."""
        return self.embed_pixels(self.pixels(images, antialias))

    def without_texts(self) -> "Clip":
        """The same without the text tower, which is half of the memory; it embeds images only."""
        image = ("vision_model", "visual_projection", "logit_scale")
        return self.replace(params={name: self.params[name] for name in image})

    def embed_tokens(self, ids: jax.Array) -> jax.Array:
        """What `tokenize` returned, [n, context] -> float32 unit features [n, d]."""
        return unit(self.module.apply({"params": self.params}, ids, method=_text_features))

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
          UserError: there is no text, or one is blank.
        """
        if isinstance(texts, str) or not texts:
            raise UserError(f"expected a list of texts for clip {self.name!r}, got {texts!r}")
        # Any padding would do: the network attends backwards only, and is read out at the end token.
        ids = np.zeros((len(texts), self.context), np.int32)
        cut = []
        for row, text in zip(ids, texts, strict=True):
            if not text.strip():
                raise UserError(f"cannot embed a blank text {text!r} with clip {self.name!r}")
            tokens = self.tokenizer.encode(text)
            kept = tokens[: self.context - 2]
            if len(kept) < len(tokens):
                left = self.tokenizer.decode(kept).strip()
                if (self.name, left) not in _said:
                    _said.add((self.name, left))
                    cut.append((len(tokens) + 2, left))
            row[: len(kept) + 2] = [self.tokenizer.start, *kept, self.tokenizer.end]
        if cut:
            (length, kept), others = cut[0], len(cut) - 1
            reads = f"clip {self.name!r} reads ({self.context})"
            more = f", and {others} more like it" if others else ""
            warnings.warn(
                f'text of {length} tokens is longer than {reads}; kept: "{kept}"{more}',
                stacklevel=3,
            )
        return ids


def from_params(
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    directory: str | os.PathLike | None = None,
    *,
    name: str = "clip",
    precision: str = "float32",
    tokenizer: Tokenizer | None = None,
) -> Clip:
    """Builds a clip from arrays.

    Args:
      params: {flat path: array} of Hugging Face's FlaxCLIPModel, any float type.
      config: its `config.json`.
      directory: where tokenizer files and preprocessor_config.json are looked for. Without them:
        OpenAI's vocabulary, where the config has its size, and OpenAI's mean and std.
      name: see `Clip`.
      precision: see `Clip`.
      tokenizer: instead of the one that is looked for.

    Returns:
      The clip.

    Raises:
      UserError: an unknown precision, a damaged config, arrays that do not make the network, no
        tokenizer.
    """
    need(precision in PRECISIONS, "precision", precision, f"one of {', '.join(PRECISIONS)}")
    # The config, the preprocessor and the tokenizer may be a stranger's.
    with reading(name):
        if wrong := trees.misfits(params, param_shapes(config)):
            raise UserError(f"the arrays do not make clip {name!r}: {some(wrong)}")
        described = _canonical(config)
        text = _module(described, precision).config.text_config
        tokenizer = tokenizer or load_tokenizer(directory, text.vocab_size)
        # The network looks for its own end token, and would read out another place.
        if text.eos_token_id not in (OLD_EOS, tokenizer.end):
            raise UserError(
                f"clip {name!r}: config.json says text_config.eos_token_id={text.eos_token_id}, but "
                f"its tokenizer ends texts with {tokenizer.end}"
            )
        beside = Path(directory or "") / "preprocessor_config.json"
        preprocessor = read_json(beside) if directory and beside.is_file() else {}
        mean = tuple(preprocessor.get("image_mean", MEAN))
        std = tuple(preprocessor.get("image_std", STD))
    tree = trees.unflatten({path: jnp.asarray(x, jnp.float32) for path, x in params.items()})
    return Clip(tree, described, tokenizer, name, mean, std, precision)


def param_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{flat path: shape} of the parameters that a config.json describes; nothing is computed.

    Raises:
      UserError: it does not describe a CLIP.
    """
    module = _module(_canonical(config), "float32")
    size = module.config.vision_config.image_size
    context = module.config.text_config.max_position_embeddings

    def init():
        ids, pixels = jnp.zeros((1, context), jnp.int32), jnp.zeros((1, size, size, 3))
        return module.init(jax.random.key(0), ids, pixels, None, jnp.arange(context)[None])

    try:
        tree = jax.eval_shape(init)["params"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"config.json does not describe a CLIP: {error}") from error
    return {path: tuple(leaf.shape) for path, leaf in trees.flatten(tree).items()}


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UserError: the file is missing, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def unit(x: jax.Array) -> jax.Array:
    """Brings the last axis to length 1, in float32; a zero stays zero, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + EPS)


def _canonical(config: Mapping[str, Any]) -> str:
    if config.get("model_type", "clip") != "clip":
        raise UserError(f"config.json describes a {config['model_type']!r} model; expected 'clip'")
    return CLIPConfig.from_dict(dict(config)).to_json_string(use_diff=False)


@functools.cache
def _module(config: str, precision: str) -> FlaxCLIPModule:
    return FlaxCLIPModule(CLIPConfig.from_dict(json.loads(config)), dtype=jnp.dtype(precision))


def _image_features(module: FlaxCLIPModule, pixels: jax.Array) -> jax.Array:
    with nn.intercept_methods(_embed_patches):
        return module.visual_projection(module.vision_model(pixels).pooler_output)


def _embed_patches(call: Callable, args: tuple, named: dict, context: Any) -> jax.Array:
    """The network's one convolution, whose stride is its kernel's side, as one matrix product."""
    # The gradient by pixels is another product, instead of a convolution dilated by the patch size.
    conv = context.module
    if not isinstance(conv, nn.Conv) or context.method_name != "__call__":
        return call(*args, **named)
    kernel = conv.get_variable("params", "kernel").astype(conv.dtype)
    (b, h, w, c), (p, _, _, d) = args[0].shape, kernel.shape
    patches = args[0].reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(b, h // p, w // p, -1).astype(conv.dtype) @ kernel.reshape(-1, d)


def _text_features(module: FlaxCLIPModule, ids: jax.Array) -> jax.Array:
    positions = jnp.arange(ids.shape[1])[None]
    return module.text_projection(module.text_model(ids, None, positions).pooler_output)


@jax.jit
def _embed_tokens(clip: Clip, ids: jax.Array) -> jax.Array:
    return clip.embed_tokens(ids)
