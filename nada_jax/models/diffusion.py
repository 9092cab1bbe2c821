"""Latent diffusion (Rombach et al. 2022, arXiv 2112.10752): Stable Diffusion 1 and 2, and smaller models of their classes.

The networks are the Flax ones of `diffusers` and `transformers`; `diffusers` is imported here alone, and only where there
is a model, since it is an optional requirement.
"""

import contextlib
import functools
import json
from collections.abc import Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_flax_clip import FlaxCLIPTextModule

from nada_jax import batches, trees
from nada_jax.errors import UserError
from nada_jax.models import diffusion_config, diffusion_layers
from nada_jax.models.noise import Schedule, noise_of
from nada_jax.models.ops import check_images
from nada_jax.models.tokenizer import Tokenizer, tokenize

REQUIREMENTS = "requirements-diffusion.txt"
INITIALISERS = {  # by the last part of a path
    "kernel": nn.initializers.lecun_normal(),
    "bias": nn.initializers.zeros,
    "scale": nn.initializers.ones,
    "embedding": nn.initializers.normal(0.02),  # of CLIP's tokens and positions
}
TEXT_BATCH = 8  # texts are embedded in batches of this size, so that a model compiles once


@flax.struct.dataclass
class Diffusion:
    """A latent diffusion model; make one with `nada_jax.load_diffusion`.

    Images are NHWC in [-1, 1], latents NHWC of about unit variance.

    Attributes:
      params: float32 parameters of the Flax classes, nested: "unet", "vae", "text_encoder".
      config: canonical JSON of its configuration files; see `diffusion_config.canonical`.
      tokenizer: see `Tokenizer`.
      padding: token behind the end of a text.
      name: how messages call it.
      precision: "float32" or "bfloat16", in which UNet and text encoder compute; the VAE does in float32.
      remat: whether gradients keep only the inputs of blocks and compute the rest again: less memory, more time.
    """

    params: dict[str, Any] = flax.struct.field(repr=False)
    config: str = flax.struct.field(pytree_node=False, repr=False)
    tokenizer: Tokenizer = flax.struct.field(pytree_node=False, repr=False)
    padding: int = flax.struct.field(pytree_node=False, default=0)
    name: str = flax.struct.field(pytree_node=False, default="diffusion")
    precision: str = flax.struct.field(pytree_node=False, default="float32")
    remat: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def networks(self) -> SimpleNamespace:
        """The networks without their parameters: `unet`, `vae`, `text_encoder`; and their `configs`."""
        return networks(self.config, self.precision)

    @property
    def configs(self) -> dict[str, Any]:
        """The configuration files, by the name of their folder."""
        return json.loads(self.config)

    @property
    def schedule(self) -> Schedule:
        """The noise that it was trained on."""
        return Schedule.parse(self.networks.configs["scheduler"])

    @property
    def factor(self) -> int:
        """Pixels along a side of an image for one of its latents."""
        return 2 ** (len(self.networks.configs["vae"]["block_out_channels"]) - 1)

    @property
    def multiple(self) -> int:
        """What sides of latents have to be multiples of, as the UNet halves them."""
        return 2 ** (len(self.networks.configs["unet"]["block_out_channels"]) - 1)

    @property
    def channels(self) -> int:
        """Channels of latents."""
        return self.networks.configs["vae"]["latent_channels"]

    @property
    def size(self) -> int:
        """Side in pixels of the images that it was trained on."""
        return self.networks.configs["unet"]["sample_size"] * self.factor

    @property
    def context(self) -> int:
        """Number of tokens t that the text encoder reads, start and end included."""
        return self.networks.text_encoder.config.max_position_embeddings

    @property
    def text_dim(self) -> int:
        """Length d of a token's features."""
        return self.networks.text_encoder.config.hidden_size

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> ids int32 [n, t]; "" is the prompt that says nothing. See `tokenizer.tokenize`."""
        name = f"the diffusion model {self.name!r}"
        return tokenize(self.tokenizer, texts, self.context, name, self.padding)

    def embed_tokens(self, ids: jax.Array) -> jax.Array:
        """What `tokenize` returned, [n, t] -> float32 features of every token [n, t, d]."""
        network = self.networks.text_encoder
        params = {"params": self.params["text_encoder"]}
        # A mask of ones is what the network takes for none; it attends backwards all the same.
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        found = network.apply(params, ids, jnp.ones_like(ids), positions)
        return found.last_hidden_state.astype(jnp.float32)

    def embed_texts(self, texts: Sequence[str]) -> jax.Array:
        """Texts -> float32 [n, t, d]; jitted inside, so call it outside of `jit`."""
        ids = self.tokenize(texts)
        found = batches.apply(functools.partial(_embed_tokens, self), TEXT_BATCH, ids)
        return jnp.asarray(found)

    def predict(self, x: jax.Array, t: jax.Array, context: jax.Array) -> jax.Array:
        """What the UNet says of noisy latents.

        Args:
          x: latents [b, h, w, c].
          t: times [b], or one for all.
          context: features of texts [b, t, d].

        Returns:
          float32 [b, h, w, c]; noise or velocity, by `schedule.prediction`.
        """
        t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
        params = {"params": self.params["unet"]}
        found = self._apply(self.networks.unet, params, jnp.moveaxis(x, -1, 1), t, context).sample
        return jnp.moveaxis(found, 1, -1).astype(jnp.float32)

    def estimate(self, x: jax.Array, t: jax.Array, context: jax.Array) -> jax.Array:
        """The noise that the UNet estimates, float32 [b, h, w, c]; the arguments are those of `predict`, t whole numbers."""
        schedule = self.schedule
        alphas = jnp.asarray(schedule.alphas, jnp.float32)
        alpha = alphas[jnp.broadcast_to(jnp.asarray(t), x.shape[:1])][:, None, None, None]
        return noise_of(self.predict(x, t, context), x, alpha, schedule.prediction)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Latents [b, h, w, c] -> images [b, factor * h, factor * w, 3], about [-1, 1], in float32."""
        vae, factor = self.networks.vae, self.networks.configs["vae"]["scaling_factor"]
        z = jnp.moveaxis(latents.astype(jnp.float32) / factor, -1, 1)
        found = self._apply(vae, {"params": self.params["vae"]}, z, method=vae.decode).sample
        return jnp.moveaxis(found, 1, -1)

    def encode(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Images [b, h, w, 3] in [-1, 1] -> latents [b, h / factor, w / factor, c], in float32.

        Args:
          images: sides are multiples of the factor.
          key: draws from the distribution of latents; without it, they are its mean.
        """
        mean, logvar = self.moments(images)
        if key is not None:
            mean += jnp.exp(logvar / 2) * jax.random.normal(key, mean.shape)
        return mean * self.networks.configs["vae"]["scaling_factor"]

    def moments(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and logarithm of the variance of latents before scaling; see `encode`."""
        check_images(images)
        vae = self.networks.vae
        x = jnp.moveaxis(images.astype(jnp.float32), -1, 1)
        found = self._apply(vae, {"params": self.params["vae"]}, x, method=vae.encode).latent_dist
        return found.mean, found.logvar  # Flax's class gives these with channels last

    def _apply(self, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """`network.apply`, with layers of our own in place of some."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(nn.intercept_methods(diffusion_layers.intercept))
            if self.remat:
                stack.enter_context(nn.intercept_methods(diffusion_layers.Rematerialised()))
            return network.apply(*args, **kwargs)


@jax.jit
def _embed_tokens(model: Diffusion, ids: jax.Array) -> jax.Array:
    return model.embed_tokens(ids)


def _diffusers() -> ModuleType:
    """diffusers, with the classes in Flax; UserError where it is not installed, or too new."""
    try:
        import diffusers

        # Each of its modules would say, each time it is made, that the classes in Flax will go.
        diffusers.utils.logging.set_verbosity_error()
        from diffusers.models.unets import unet_2d_condition_flax  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"a diffusion model needs the package diffusers, below 0.40, with its classes in Flax; install it with "
            f"`pip install -r {REQUIREMENTS}` ({error})"
        ) from error
    return diffusers


@functools.cache
def networks(config: str, precision: str) -> SimpleNamespace:
    """The networks of a canonical config, without parameters; UNet and text encoder compute in a precision."""
    diffusers, configs = _diffusers(), json.loads(config)
    fields = {
        part: {name: tuple(x) if isinstance(x, list) else x for name, x in configs[part].items()}
        for part in ("unet", "vae")
    }
    text = CLIPTextConfig.from_dict(configs["text_encoder"])
    return SimpleNamespace(
        unet=diffusers.FlaxUNet2DConditionModel(**fields["unet"], dtype=jnp.dtype(precision)),
        vae=diffusers.FlaxAutoencoderKL(**fields["vae"], dtype=jnp.float32),
        text_encoder=FlaxCLIPTextModule(text, dtype=jnp.dtype(precision)),
        configs=configs,
    )


def init(config: str, key: jax.Array) -> dict[str, Any]:
    """Random parameters of a canonical config, drawn as the Flax classes do: "unet", "vae", "text_encoder"."""
    # Array by array: the classes' own way runs the whole network, which takes XLA most of a minute to compile.
    params = {}
    for i, (part, shapes) in enumerate(param_shapes(config).items()):
        flat = {}
        for j, (path, shape) in enumerate(shapes.items()):
            leaf, own = path.rpartition(".")[2], jax.random.fold_in(jax.random.fold_in(key, i), j)
            flat[path] = INITIALISERS[leaf](own, shape)
        params[part] = trees.unflatten(flat)
    return params


def param_shapes(config: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """Part -> {flat path: shape} of the parameters of a canonical config; nothing is computed.

    Raises:
      UserError: the configuration files describe no such networks.
    """
    built = networks(config, "float32")
    key, ids = (
        jax.random.key(0),
        jnp.zeros((1, built.text_encoder.config.max_position_embeddings), int),
    )
    parts = {
        "unet": built.unet.init_weights,
        "vae": built.vae.init_weights,
        "text_encoder": lambda key: built.text_encoder.init(key, ids, ids, ids)["params"],
    }
    try:
        trees_of_shapes = {part: jax.eval_shape(init, key) for part, init in parts.items()}
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UserError(f"the configuration files describe no diffusion model: {error}") from error
    return {
        part: {path: tuple(leaf.shape) for path, leaf in trees.flatten(tree).items()}
        for part, tree in trees_of_shapes.items()
    }


def canonical(configs: Mapping[str, Mapping[str, Any]]) -> str:
    """See `diffusion_config.canonical`; the text encoder's defaults are filled in, too."""
    parts = json.loads(diffusion_config.canonical(configs))
    text = CLIPTextConfig.from_dict(parts["text_encoder"])
    parts["text_encoder"] = json.loads(text.to_json_string(use_diff=False))
    return json.dumps(parts, sort_keys=True)
