"""The projector of StyleGAN2: latents and noise from which a generator draws a given image, by optimisation.

Karras et al. 2020 (arXiv 1912.04958), section 5 and appendix D, in W as there, in W+ or in StyleSpace.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.latents.codes import Codes
from nada_jax.latents.descent import EVERY, Descent, Figures
from nada_jax.latents.spaces import SPACES
from nada_jax.losses import pixel
from nada_jax.models.clip import Clip
from nada_jax.models.irse import Irse50
from nada_jax.models.stylegan2 import Generator
from nada_jax.models.vgg import Vgg

SAMPLES = 10_000  # of w, for its mean and its spread
SIDE = 256  # pixels, of the images that LPIPS compares; smaller ones stay as they are
NOISE_RAMP = 0.75  # share of the steps after which w gets no more noise
REGULARIZATION = 1e5  # of the noise buffers, so that no image hides in them
SMALLEST = 8  # pixels of the smallest scale at which buffers are regularised

Report = Callable[[int, float, float], None]  # of progress; see `Descent.run`


@flax.struct.dataclass
class Networks:
    """The networks of an inversion; those that are None are not used.

    Attributes:
      generator: draws.
      lpips: perceptual distance, with the linear layers of LPIPS.
      encoder: from images to W+, for the methods and starts that need it.
      identity, judge: compare the results with the images, for figures alone.
      refinements: passes of an encoder that is iterative.
    """

    generator: Generator
    lpips: Vgg | None = None
    encoder: Any = None
    identity: Irse50 | None = None
    judge: Clip | None = None
    refinements: int = flax.struct.field(pytree_node=False, default=5)


@flax.struct.dataclass
class Target:
    """Images, and what is compared with them in each step.

    Attributes:
      images: [b, size, size, 3] in [-1, 1].
      features: of `Vgg.lpips_target`; None without a network.
    """

    images: jax.Array
    features: list[jax.Array] | None


@jax.jit
def see(networks: Networks, images: jax.Array) -> Target:
    """Computes once what all steps need of the images [b, size, size, 3]."""
    lpips = networks.lpips
    return Target(images, None if lpips is None else lpips.lpips_target(_reduce(images)))


def differences(networks: Networks, target: Target, drawn: jax.Array) -> Figures:
    """How far images are from their targets.

    Args:
      networks: with LPIPS or without.
      target: of b images.
      drawn: [b, size, size, 3].

    Returns:
      `mse` on [-1, 1] at full size, and `lpips` at 256 pixels or the smaller size of the images, each [b].
    """
    found = {"mse": pixel.l2(drawn, target.images)}
    if networks.lpips is not None:
        found["lpips"] = networks.lpips.lpips_from(target.features, _reduce(drawn))
    return found


def _reduce(images: jax.Array) -> jax.Array:
    """Means over areas, down to `SIDE` pixels: [b, h, h, 3] -> [b, h', h', 3]."""
    b, h, w, c = images.shape
    n = max(h // SIDE, 1)  # sides of generators are powers of 2
    return jnp.mean(images.reshape(b, h // n, n, w // n, n, c), axis=(2, 4)) if n > 1 else images


@jax.jit
def spread(generator: Generator) -> tuple[jax.Array, jax.Array]:
    """Mean of w [w_dim], and the root of its mean squared distance to it (not per number), over `SAMPLES`."""
    z = jax.random.normal(jax.random.key(123), (SAMPLES, generator.architecture.z_dim))
    w = generator.map(z)
    mean = jnp.mean(w, axis=0)
    return mean, jnp.sqrt(jnp.mean(jnp.sum((w - mean) ** 2, axis=1)))


@flax.struct.dataclass
class _Context:
    """What the loss reads: networks, targets, ws [b, l, w_dim] of the start, deviation of the noise on w, factor of L2."""

    networks: Networks
    target: Target
    start: jax.Array
    w_noise: jax.Array
    l2: jax.Array


def project(
    networks: Networks,
    target: Target,
    start: jax.Array,
    space: str,
    *,
    steps: int,
    lr: float,
    w_noise: float,
    l2: float,
    noise: bool,
    keys: jax.Array,
    every: int = EVERY,
    report: Report | None = None,
) -> Codes:
    """Finds the latents of images.

    Args:
      networks: at least the generator, and LPIPS unless `l2` is above 0.
      target: b images of the generator's size.
      start: ws [b, l, w_dim].
      space: "w", "w+" or "style".
      steps: 1,000 officially.
      lr: peak of the rate of Adam; 0.1 officially.
      w_noise: deviation of the noise on each number of w at the first step, in units of the spread of w; 0.05
        officially.
      l2: factor of the mean squared difference of pixels beside LPIPS; 0 officially.
      noise: whether noise buffers are optimised with the latents, or stay those of the generator.
      keys: PRNG keys [b].
      every, report: see `Descent.run`.

    Returns:
      The latents, with their noise buffers where `noise` says so.
    """
    generator = networks.generator
    networks = networks.replace(encoder=None, identity=None, judge=None)  # the loss reads none
    context = _Context(networks, target, start, w_noise * spread(generator)[1], jnp.float32(l2))
    latents, buffers = _begin(generator, start, keys, space, noise)
    found, _, _ = _DESCENTS[space].run(
        {"latents": latents, "noise": buffers},
        context,
        peaks=lr,
        steps=steps,
        keys=keys,
        every=every,
        report=report,
    )
    if space == "style":
        return Codes(styles=found["latents"], noise=found["noise"])
    return Codes(ws=generator.broadcast(found["latents"]), noise=found["noise"])


@functools.partial(jax.jit, static_argnums=(3, 4))
def _begin(
    generator: Generator, start: jax.Array, keys: jax.Array, space: str, noise: bool
) -> tuple[Any, dict[str, jax.Array]]:
    """The variables of a space, and random noise buffers."""
    buffers = {}
    # Keys of the buffers are counted down from the last number: step t takes number t.
    for i, (name, side) in enumerate(generator.architecture.noise_sizes().items() if noise else ()):
        one = functools.partial(_normal, shape=(side, side), number=2**32 - 1 - i)
        buffers[name] = jax.vmap(one)(keys)
    return SPACES[space].start(generator, start), buffers


def _normal(key: jax.Array, shape: tuple[int, ...], number: int) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, np.uint32(number)), shape)


def _loss(
    space: str, variables: Mapping[str, Any], context: _Context, share: jax.Array, keys: jax.Array
) -> tuple[jax.Array, Figures]:
    """The loss of the projector; see `Descent`."""
    generator = context.networks.generator
    styles = SPACES[space].styles(generator, variables["latents"], context.start)
    noisy = _shift(generator, styles, _w_noise(space, context, share, keys))
    drawn = generator.synthesize_styles(noisy, variables["noise"] or "const")
    found = differences(context.networks, context.target, drawn)
    hidden = roughness(variables["noise"])
    loss = found.get("lpips", 0) + context.l2 * found["mse"] + REGULARIZATION * hidden
    return loss, found


def _w_noise(space: str, context: _Context, share: jax.Array, keys: jax.Array) -> jax.Array:
    """Noise on w [b, l, w_dim], which ends after `NOISE_RAMP`; in W all layers have the same."""
    generator = context.networks.generator
    shape = (1 if space == "w" else generator.num_layers, generator.architecture.w_dim)
    drawn = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    scale = context.w_noise * jnp.maximum(0, 1 - share / NOISE_RAMP) ** 2
    return jnp.broadcast_to(scale[:, None, None] * drawn, context.start.shape)


def _shift(generator: Generator, styles: Mapping[str, jax.Array], w: jax.Array) -> Any:
    """The styles, moved as adding `w` to the latents would move them.

    Styles are affine in w, so this is the official noise in W and W+; and it is noise of the right size and
    correlations in StyleSpace, whose layers have units of their own.
    """
    moved, still = generator.styles(w), generator.styles(jnp.zeros_like(w[:1]))
    return {name: x + moved[name] - still[name] for name, x in styles.items()}


def roughness(noise: Mapping[str, jax.Array]) -> jax.Array:
    """Regularisation of noise buffers, Karras et al. 2020, appendix D.

    Args:
      noise: buffers [b, side, side] by name.

    Returns:
      Per image [b], the sum of the squared correlations of each buffer with itself, shifted by one pixel along
      each axis, at every scale from its own down to 8 pixels; 0 for an empty table.
    """
    total = jnp.zeros(())
    for x in noise.values():
        while True:
            for axis in (1, 2):
                total += jnp.mean(x * jnp.roll(x, 1, axis), axis=(1, 2)) ** 2
            if x.shape[1] <= SMALLEST:
                break
            b, h, w = x.shape
            x = jnp.mean(x.reshape(b, h // 2, 2, w // 2, 2), axis=(2, 4))
    return total


def renormalise(noise: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Buffers [b, side, side], each with mean 0 and mean square 1."""
    centred = {name: x - jnp.mean(x, axis=(1, 2), keepdims=True) for name, x in noise.items()}
    return {
        name: x * jax.lax.rsqrt(jnp.mean(x**2, axis=(1, 2), keepdims=True))
        for name, x in centred.items()
    }


def _renormalised(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {"latents": variables["latents"], "noise": renormalise(variables["noise"])}


# One for each space: each is compiled once for all batches.
_DESCENTS = {
    space: Descent(functools.partial(_loss, space), project=_renormalised)
    for space in ("w", "w+", "style")
}
