"""Trains an encoder for a generator, on images that the generator draws itself: no data are needed.

The losses are those of e4e, Tov et al. 2021 (arXiv 2102.02766), and one that only drawn images allow: their
latents are known.
"""

from collections.abc import Callable
from typing import Annotated, Any

import flax
import jax
import jax.numpy as jnp
import optax

from nada_jax.errors import UserError
from nada_jax.losses import pixel
from nada_jax.models.encoder import Encoder, EncoderArchitecture, EncoderNetwork
from nada_jax.models.irse import average_pool
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.models.vgg import Vgg
from nada_jax.settings import Count, NonNegative, Rule, Section, Share

Metrics = dict[str, jax.Array]

LARGEST = 256  # side in pixels of the images that encoders read, as officially; smaller generators need less
# Latents of pSp's heads that read the last map of the body, and the one before; all others read the largest.
COARSE, MIDDLE = 3, 4
CONSTANT = ("mean", "var")  # statistics of batch normalisation, which stay 0 and 1
SAMPLES = 4096  # latents behind the variance of w
EPS = 1e-8  # under a root, whose gradient at 0 is infinite

RANGE = Rule(
    lambda x: len(x) == 2 and 0 <= x[0] <= x[1] <= 2, "two numbers in 0..2, the smaller first"
)
PART = Rule(lambda x: 0 < x <= 1, "a share above 0, up to 1")


class Source(Section, name="generator"):
    """The generator, and the latents that it draws for training; `config.generator`."""

    weights: str
    mixing: Share
    truncation: Annotated[tuple[float, ...], RANGE]


class Sizes(Section, name="encoder"):
    """The sizes of the encoder; `config.encoder`."""

    stem: Count
    widths: tuple[int, ...]
    reduction: Count
    head_width: Count

    def architecture(self, generator: Generator) -> EncoderArchitecture:
        """The encoder's architecture for a generator; UserError where there is none."""
        size = min(generator.size, LARGEST)
        halvings = 1 + sum(a != b for a, b in zip(self.widths, self.widths[1:], strict=False))
        last = size.bit_length() - 1 - halvings
        levels = [min(last + i, size.bit_length() - 2) for i in range(3)]
        heads = [
            levels[(i >= COARSE) + (i >= COARSE + MIDDLE)] for i in range(generator.num_layers)
        ]
        try:
            return EncoderArchitecture(
                stem=self.stem,
                widths=self.widths,
                reduction=self.reduction,
                heads=tuple(heads),
                w_dim=generator.architecture.w_dim,
                progressive=True,
                image_size=size,
                head_width=self.head_width,
            )
        except UserError as error:
            raise UserError(
                f"encoder.widths is {self.widths} and encoder.reduction {self.reduction}, for a generator of "
                f"{generator.size} pixels: {error}"
            ) from error


class Loss(Section, name="loss"):
    """The factor of each term; `config.loss`."""

    latent: NonNegative
    l2: NonNegative
    lpips: NonNegative
    delta: NonNegative

    def check(self) -> None:
        """At least one term has to say what the images show."""
        if not (self.latent or self.l2 or self.lpips):
            raise UserError(
                "loss.latent, loss.l2 and loss.lpips are 0; expected one above 0, which compares what the encoder finds"
            )


class Lpips(Section, name="lpips"):
    """The perceptual distance; `config.lpips`."""

    weights: str
    share: Annotated[float, PART]


class StepSettings(Section):
    """All of a config that the step reads; `configs/train_encoder.py` explains every field."""

    batch_size: Count
    ema: NonNegative
    generator: Source
    encoder: Sizes
    loss: Loss
    lpips: Lpips


@flax.struct.dataclass
class State:
    """A training between two steps.

    Attributes:
      step: number of finished steps, int32.
      encoder: the encoder that trains.
      moments: the state of the optimiser.
      ema: the exponential moving average of its parameters, or None where none is kept.
    """

    step: jax.Array
    encoder: Encoder
    moments: Any
    ema: Any

    @property
    def result(self) -> Encoder:
        """The encoder that is measured and saved."""
        return self.encoder if self.ema is None else self.encoder.replace(params=self.ema)


def init_state(
    encoder: Encoder, optimizer: optax.GradientTransformation, settings: "StepSettings"
) -> State:
    """The state before the first step."""
    ema = jax.tree.map(jnp.copy, encoder.params) if settings.ema else None
    return State(jnp.int32(0), encoder, optimizer.init(encoder.params), ema)


@flax.struct.dataclass
class Frozen:
    """What the step reads and never changes.

    Attributes:
      generator: draws the images.
      vgg: of the perceptual distance, or None where its factor is 0.
      variance: of w about its mean, a number; the unit of the loss of latents.
    """

    generator: Generator
    vgg: Vgg | None
    variance: jax.Array


def freeze(generator: Generator, vgg: Vgg | None, key: jax.Array) -> Frozen:
    """Puts together what the step reads.

    Args:
      generator, vgg: see `Frozen`.
      key: of the latents whose variance is measured.
    """
    ws = draw_latents(generator, key, SAMPLES)[:, 0]
    return Frozen(generator, vgg, jnp.mean((ws - generator.latent_avg) ** 2))


def init_encoder(
    architecture: EncoderArchitecture, generator: Generator, key: jax.Array
) -> Encoder:
    """An encoder with random weights, from which training starts.

    Batch normalisation keeps the statistics 0 and 1: only its scales and biases train. So that signals
    neither grow nor fade through the blocks, each begins as its shortcut, with the scale 0 behind its last
    convolution (Zhang et al. 2019, "Fixup Initialization", arXiv 1901.09321).
    """
    size, channels = architecture.image_size, architecture.in_channels
    network = EncoderNetwork(architecture)
    params = network.init(key, jnp.zeros((1, size, size, channels)))["params"]
    for name, block in params["body"].items():
        if name.startswith("block_"):
            block["norm_1"]["scale"] = jnp.zeros_like(block["norm_1"]["scale"])
    average = jnp.tile(generator.latent_avg, (len(architecture.heads), 1))
    return Encoder(params, average, architecture)


def trains(params: Any) -> Any:
    """A tree like the parameters of an encoder: whether each array trains."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in CONSTANT, params)


def draw(generator: Generator, key: jax.Array, count: int, source: Source) -> jax.Array:
    """Latents to train on, [b, l, w_dim]: some mix two styles, each is truncated by a degree of its own."""
    latents, degrees = jax.random.split(key)
    ws = draw_latents(generator, latents, count, source.mixing)
    low, high = source.truncation
    return generator.truncate(
        ws, jax.random.uniform(degrees, (count, 1, 1), minval=low, maxval=high)
    )


def make_train_step(
    settings: StepSettings, optimizer: optax.GradientTransformationExtraArgs
) -> Callable[[State, Frozen, jax.Array], tuple[State, Metrics]]:
    """Builds the training step.

    Args:
      settings: static choices.
      optimizer: of the parameters of the encoder.

    Returns:
      train_step(state, frozen, run_key) -> (state, metrics). A step draws its numbers from
      fold_in(run_key, state.step), so a resumed run is the run that was not interrupted.
    """

    def train_step(state: State, frozen: Frozen, run_key: jax.Array):
        key = jax.random.fold_in(run_key, state.step)
        ws = draw(frozen.generator, key, settings.batch_size, settings.generator)
        images = frozen.generator.synthesize(ws)

        def total(params):
            terms = compare(state.encoder.replace(params=params), frozen, ws, images, settings)
            return sum(getattr(settings.loss, name) * x for name, x in terms.items()), terms

        params = state.encoder.params
        (loss, terms), grads = jax.value_and_grad(total, has_aux=True)(params)
        updates, moments = optimizer.update(grads, state.moments, params, chosen=None)
        params = optax.apply_updates(params, updates)
        metrics = {"loss": loss, "norm": optax.tree.norm(params)} | terms
        ema = None
        if settings.ema:
            ema = optax.incremental_update(params, state.ema, 1 - 0.5 ** (1 / settings.ema))
        return State(state.step + 1, state.encoder.replace(params=params), moments, ema), metrics

    return train_step


def compare(
    encoder: Encoder, frozen: Frozen, ws: jax.Array, images: jax.Array, settings: StepSettings
) -> Metrics:
    """The terms of the loss, without their factors: means over a batch.

    `latent` is the squared difference from the latents that drew the images, over the variance of w; `l2` and
    `lpips` compare the images with those drawn anew, at the side that the encoder reads; `delta` is the
    length of the differences between latents, eq. 2 of e4e, which keeps them where edits work.

    Args:
      encoder: what trains.
      frozen: see `Frozen`.
      ws: latents [b, l, w_dim].
      images: what they draw, [b, h, w, 3].
      settings: static choices; terms of factor 0 are left out.

    Returns:
      Term -> scalar.
    """
    loss, side = settings.loss, encoder.architecture.image_size
    found = encoder.encode(images)
    terms = {}
    if loss.latent:
        terms["latent"] = jnp.mean((found - ws) ** 2) / frozen.variance
    if loss.l2 or loss.lpips:
        target = average_pool(images, side)
        again = average_pool(frozen.generator.synthesize(found), side)
    if loss.l2:
        terms["l2"] = jnp.mean(pixel.l2(target, again))
    if loss.lpips:
        # The VGG takes several times as long as encoder and generator together; a part of a batch is one of
        # its kind, since its images are independent.
        part = max(1, round(settings.lpips.share * len(images)))
        terms["lpips"] = jnp.mean(frozen.vgg.lpips(target[:part], again[:part]))
    if loss.delta:
        deltas = found[:, 1:] - found[:, :1]
        terms["delta"] = jnp.mean(jnp.sqrt(jnp.sum(deltas**2, axis=-1) + EPS))
    return terms


def reconstruct(
    encoder: Encoder, generator: Generator, vgg: Vgg | None, images: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Draws images again from the latents that an encoder finds in them.

    Args:
      encoder, generator: which belong together.
      vgg: see `Frozen`.
      images: [b, h, w, 3] in [-1, 1].

    Returns:
      Images [b, size, size, 3], and `mse` and, with a VGG, `lpips`, [b] each, at the side that the encoder reads.
    """
    again = generator.synthesize(encoder.encode(images))
    one, other = (average_pool(x, encoder.architecture.image_size) for x in (images, again))
    figures = {"mse": pixel.l2(one, other)}
    return again, figures | ({} if vgg is None else {"lpips": vgg.lpips(one, other)})
