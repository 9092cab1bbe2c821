"""Encoders: from an image to the latents from which a StyleGAN2 draws it, in Flax linen.

pSp, Richardson et al. 2021, "Encoding in Style" (arXiv 2008.00951): a head per latent reads one of the
last three maps of an IR-SE50 body. e4e, Tov et al. 2021, "Designing an Encoder for StyleGAN Image
Manipulation" (arXiv 2102.02766): the first head returns one latent, every other head the difference of its own.
ReStyle, Alaluf et al. 2021 (arXiv 2104.02699): either of the two reads its last attempt and corrects it.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nada_jax.errors import UserError
from nada_jax.models.irse import Body, BodyArchitecture, average_pool, body_fields, network_shapes
from nada_jax.models.ops import check_images
from nada_jax.models.stylegan2_networks import Dense

IMAGE_SIZE = 256  # pixels, of all published encoders
SIZES = (8, 16, 32, 64, 128, 256)  # sides of the images that an encoder may read
LATERALS = 2  # maps before the last that a pyramid adds


@dataclasses.dataclass(frozen=True)
class EncoderArchitecture(BodyArchitecture):
    """The numbers that fix an encoder's shapes, and what does not follow from shapes.

    Attributes:
      heads: number of convolutions of each head, one head per latent; n of them reduce a map of
        2^n pixels to one.
      w_dim: size of a latent.
      pyramid: whether heads read a feature pyramid, or the last map alone (ReStyle's simpler encoders).
      progressive: whether the first head's latent is added to all others (e4e).
      image_size: side of the images that it reads, in pixels.
      head_width: channels of the convolutions of the heads; None for `w_dim`, as officially.
    """

    heads: tuple[int, ...] = (4,) * 3 + (5,) * 4 + (6,) * 11
    w_dim: int = 512
    pyramid: bool = True
    progressive: bool = False
    image_size: int = IMAGE_SIZE
    head_width: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.image_size not in SIZES or 2 ** len(self.ends) > self.image_size:
            raise UserError(
                f"not an encoder: it reads images of {self.image_size} pixels, and halves them {len(self.ends)} times; "
                f"expected a side of {', '.join(map(str, SIZES))}, and no more halvings than it allows"
            )
        # Each stage halves the side, so the last map has 2^last pixels; a pyramid adds larger ones.
        sides = self.image_size.bit_length() - 1
        last = sides - len(self.ends)
        known = range(last, min(last + LATERALS * self.pyramid, sides - 1) + 1)
        if not 1 <= len(self.heads) <= 64 or not set(self.heads) <= set(known):
            raise UserError(
                f"not an encoder: its heads have {self.heads} convolutions, where maps of "
                f"{', '.join(str(2**n) for n in known)} pixels need {', '.join(map(str, known))}"
            )

    def _others(self) -> tuple[int, ...]:
        return *super()._others(), self.w_dim, 1 if self.head_width is None else self.head_width

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of a native file."""
        images = (1, self.image_size, self.image_size, self.in_channels)
        average = {"latent_avg": (len(self.heads), self.w_dim)}
        return network_shapes(EncoderNetwork(self), images) | average

    @classmethod
    def from_shapes(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        progressive: bool = False,
        image_size: int = IMAGE_SIZE,
    ) -> "EncoderArchitecture":
        """Reads the architecture from the shapes of native parameters.

        Args:
          shapes: flat path -> shape, as in `shapes()`; more paths than needed do no harm.
          progressive, image_size: see the class; they do not follow from shapes.

        Raises:
          UserError: the shapes are not those of an encoder.
        """
        fields = body_fields(shapes, "an encoder")
        pattern = re.compile(r"head_(\d+)\.(conv|linear)_?\d*\.(?:kernel|weight)")
        layers = [(int(m[1]), m[2]) for path in shapes if (m := pattern.fullmatch(path))]
        count = len({head for head, _ in layers})
        heads = tuple(layers.count((i, "conv")) for i in range(count))
        if "head_0.linear.weight" not in shapes:
            raise UserError("not an encoder: it has no head for its first latent")
        width, w_dim = map(int, shapes["head_0.linear.weight"])
        return cls(
            **fields,
            heads=heads,
            w_dim=w_dim,
            head_width=None if width == w_dim else width,
            image_size=image_size,
            pyramid="lateral_0.kernel" in shapes,
            progressive=progressive,
        )


class Head(nn.Module):
    """From a map to one latent: convolutions of stride 2 down to one pixel, then a dense layer."""

    convs: int
    width: int
    w_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, 2^convs, 2^convs, c] -> [b, w_dim]."""
        for i in range(self.convs):
            x = nn.Conv(self.width, (3, 3), strides=2, padding=1, name=f"conv_{i}")(x)
            x = nn.leaky_relu(x, 0.01)
        return Dense(self.w_dim, name="linear")(x[:, 0, 0])


class EncoderNetwork(nn.Module):
    """Body, pyramid and heads."""

    architecture: EncoderArchitecture

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[b, image_size, image_size, c] -> outputs of the heads, [b, l, w_dim]."""
        a = self.architecture
        maps = Body(a, name="body")(images)
        levels = [maps[-1]]
        for i, below in enumerate(maps[-2::-1][:LATERALS] if a.pyramid else ()):
            lateral = nn.Conv(maps[-1].shape[-1], (1, 1), name=f"lateral_{i}")(below)
            levels.append(_enlarge(levels[-1], lateral.shape[1]) + lateral)
        # The number of convolutions of a head says which map it reads.
        by_side = {level.shape[1]: level for level in levels}
        heads = [
            Head(n, a.head_width or a.w_dim, a.w_dim, name=f"head_{i}")(by_side[2**n])
            for i, n in enumerate(a.heads)
        ]
        return jnp.stack(heads, axis=1)


@flax.struct.dataclass
class Encoder:
    """An encoder: pSp, e4e, ReStyle, or one that was trained here (`latents.encoder_training`).

    Attributes:
      params: of the network, float32.
      latent_avg: [l, w_dim], added to the outputs of the network.
      architecture: static sizes.
    """

    KIND: ClassVar[str] = "encoder"
    ARCHITECTURE: ClassVar[type] = EncoderArchitecture

    params: dict[str, Any]
    latent_avg: jax.Array
    architecture: EncoderArchitecture = flax.struct.field(pytree_node=False)

    @property
    def num_layers(self) -> int:
        """Latents per image, l."""
        return len(self.architecture.heads)

    @property
    def iterative(self) -> bool:
        """Whether it reads an image together with its last attempt (ReStyle); see `refine`."""
        return self.architecture.in_channels == 6

    def offsets(self, images: jax.Array) -> jax.Array:
        """Latents without the average.

        Args:
          images: [b, image_size, image_size, c] in [-1, 1].

        Returns:
          [b, l, w_dim].
        """
        size = self.architecture.image_size
        expected = (size, size, self.architecture.in_channels)
        if images.shape[1:] != expected:
            b, *sides = images.shape
            raise ValueError(f"images have the shape {images.shape}; expected {(b, *expected)}")
        codes = EncoderNetwork(self.architecture).apply({"params": self.params}, images)
        return codes.at[:, 1:].add(codes[:, :1]) if self.architecture.progressive else codes

    def encode(self, images: jax.Array) -> jax.Array:
        """Latents of images, in one pass; `refine` is for encoders that are `iterative`.

        Args:
          images: [b, h, w, c] in [-1, 1], aligned as those that the encoder was trained with. Other
            sides than `image_size` are resized as for training: linear interpolation, antialiased.

        Returns:
          [b, l, w_dim].
        """
        check_images(images, self.architecture.in_channels)
        return self.latent_avg + self.offsets(_resize(images, self.architecture.image_size))


def refine(
    encoder: Encoder, images: jax.Array, draw: Callable[[jax.Array], jax.Array], steps: int = 5
) -> jax.Array:
    """Latents of images by iterative refinement, Alaluf et al. 2021 (ReStyle), eqs. 1 and 2.

    Starts from the average latent. Each step draws the current latents, and adds the correction that the
    encoder computes from both images.

    Args:
      encoder: one that is `iterative`.
      images: [b, h, w, 3] in [-1, 1]; see `Encoder.encode`.
      draw: latents [b, l, w_dim] -> images [b, h', w', 3], which are pooled to those it reads; officially
        a generator with its own noise buffers.
      steps: 5 in the paper.

    Returns:
      [b, l, w_dim].
    """
    check_images(images)
    size = encoder.architecture.image_size
    images = _resize(images, size)

    def step(_, ws):
        attempt = average_pool(draw(ws), size)
        return ws + encoder.offsets(jnp.concatenate([images, attempt], axis=-1))

    # A loop of XLA, so that five steps compile as fast as one.
    average = jnp.broadcast_to(encoder.latent_avg, (len(images), *encoder.latent_avg.shape))
    return jax.lax.fori_loop(0, steps, step, average)


def _resize(images: jax.Array, side: int) -> jax.Array:
    """[b, h, w, c] -> [b, side, side, c], like PIL's bilinear filter, with which encoders are trained."""
    b, h, w, c = images.shape
    if (h, w) == (side, side):
        return images
    return jax.image.resize(images, (b, side, side, c), "linear")


def _enlarge(x: jax.Array, side: int) -> jax.Array:
    """[b, h, h, c] -> [b, side, side, c], bilinear with aligned corners, as in pSp."""
    matrix = _between_corners(x.shape[1], side)
    return jnp.einsum("rh,bhwc,sw->brsc", matrix, x, matrix, precision="highest")


@functools.cache
def _between_corners(n: int, side: int) -> np.ndarray:
    """The matrix [side, n] of `_enlarge` along one axis."""
    places = np.linspace(0, n - 1, side)[:, None]
    return np.clip(1 - np.abs(places - np.arange(n)), 0, None).astype(np.float32)
