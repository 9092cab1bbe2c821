"""IR-SE50, the residual network with squeeze and excitation of ArcFace, for inference, in Flax linen.

Deng et al. 2019, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (arXiv 1801.07698);
Hu et al. 2018, "Squeeze-and-Excitation Networks" (arXiv 1709.01507). Face identity and the encoders of
`models.encoder` share its body.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nada_jax import trees
from nada_jax.errors import UserError
from nada_jax.models.ops import check_images

# Of IR-50: stages of 3, 4, 14 and 3 blocks.
WIDTHS = (64,) * 3 + (128,) * 4 + (256,) * 14 + (512,) * 3
# The face in an image that is aligned as FFHQ is and pooled to the side ALIGNED; as in pSp.
ALIGNED, ROWS, COLUMNS = 256, slice(35, 223), slice(32, 220)


@dataclasses.dataclass(frozen=True)
class BodyArchitecture:
    """The numbers that fix the shapes of a body.

    Attributes:
      in_channels: channels of the images.
      stem: width before the first block.
      widths: width of each block; a stage is a run of equal widths, and each halves the side.
      reduction: width of a block over that of its squeezed vector.
    """

    in_channels: int = 3
    stem: int = 64
    widths: tuple[int, ...] = WIDTHS
    reduction: int = 16

    def __post_init__(self):
        fits = 1 <= len(self.widths) <= 64 and len(self.ends) <= 7
        if not fits or not 1 <= self.reduction <= min(self.widths) or min(self._others()) < 1:
            raise UserError(
                "not an IR-SE50 body: expected 1 to 64 blocks of positive width in at most 7 stages, it "
                f"has the widths {self.widths}, reduced by {self.reduction}, and {self._others()} around"
            )

    def _others(self) -> tuple[int, ...]:
        """Sizes of the layers before and after the blocks."""
        return self.in_channels, self.stem

    @property
    def ends(self) -> tuple[int, ...]:
        """The last block of each stage."""
        last = len(self.widths) - 1
        return tuple(i for i in range(last) if self.widths[i] != self.widths[i + 1]) + (last,)


def body_fields(shapes: Mapping[str, tuple[int, ...]], what: str) -> dict[str, Any]:
    """Reads the attributes of a `BodyArchitecture` from the shapes of native parameters.

    Args:
      shapes: flat path -> shape; more paths than needed do no harm.
      what: how messages call the network.

    Raises:
      UserError: the shapes are not those of a body.
    """
    pattern = re.compile(r"body\.block_(\d+)\.conv_1\.kernel")
    blocks = sorted(int(match[1]) for path in shapes if (match := pattern.fullmatch(path)))
    whole = bool(blocks) and blocks == list(range(len(blocks)))
    if not whole or not {"body.stem.kernel", "body.block_0.squeeze.kernel"} <= shapes.keys():
        raise UserError(
            f"not {what}: it has the residual blocks {blocks}, where an IR-SE50 body has them from 0 "
            "on, with squeeze and excitation, behind one convolution"
        )
    widths = tuple(int(shapes[f"body.block_{i}.conv_1.kernel"][3]) for i in blocks)
    *_, in_channels, stem = shapes["body.stem.kernel"]
    squeezed = shapes["body.block_0.squeeze.kernel"][3]
    return {
        "in_channels": int(in_channels),
        "stem": int(stem),
        "widths": widths,
        "reduction": widths[0] // max(int(squeezed), 1),
    }


@dataclasses.dataclass(frozen=True)
class Irse50Architecture(BodyArchitecture):
    """The numbers that fix the shapes of the identity network.

    Attributes:
      side: of the last map in pixels.
      features: length d of a feature.
    """

    side: int = 7
    features: int = 512

    def _others(self) -> tuple[int, ...]:
        return *super()._others(), self.side, self.features

    @property
    def image_size(self) -> int:
        """Side of the image that the network reads."""
        return self.side * 2 ** len(self.ends)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of a native file."""
        pixels = (1, self.image_size, self.image_size, self.in_channels)
        return network_shapes(IdentityNetwork(self), pixels)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "Irse50Architecture":
        """Reads the architecture from the shapes of native parameters; UserError where it cannot."""
        fields = body_fields(shapes, "a face identity network")
        if "dense.kernel" not in shapes:
            raise UserError("not a face identity network: it has no dense layer behind its body")
        side, *_, features = shapes["dense.kernel"]
        return cls(**fields, side=int(side), features=int(features))


class BatchNorm(nn.Module):
    """Batch normalisation with the statistics of the training."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros, ones, shape = nn.initializers.zeros, nn.initializers.ones, x.shape[-1:]
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean, var = self.param("mean", zeros, shape), self.param("var", ones, shape)
        # 1e-5 is PyTorch's default. Scale and deviation are joined first: one pass over x less.
        return (x - mean) * (scale * jax.lax.rsqrt(var + 1e-5)) + bias


class PReLU(nn.Module):
    """Leaky ReLU with a learnt slope for each channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:])
        return jnp.where(x < 0, slope * x, x)


class Block(nn.Module):
    """Residual block of ArcFace ("IR"), with squeeze and excitation."""

    width: int
    stride: int
    reduction: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, h, w, i] -> [b, h / stride, w / stride, width]."""
        # Padded explicitly: "SAME" pads strided convolutions at one side, PyTorch at both.
        conv = functools.partial(nn.Conv, padding=1, use_bias=False)
        y = BatchNorm(name="norm_0")(x)
        y = PReLU(name="prelu")(conv(self.width, (3, 3), name="conv_0")(y))
        y = conv(self.width, (3, 3), strides=self.stride, name="conv_1")(y)
        y = BatchNorm(name="norm_1")(y)
        pointwise = functools.partial(nn.Conv, kernel_size=(1, 1), use_bias=False)
        gate = jnp.mean(y, axis=(1, 2), keepdims=True)
        gate = nn.relu(pointwise(self.width // self.reduction, name="squeeze")(gate))
        y = y * nn.sigmoid(pointwise(self.width, name="excite")(gate))
        # The official shortcut of equal widths is a max pooling of 1 x 1, which picks pixels; before a
        # 1 x 1 convolution the same picking is its stride.
        shortcut = x[:, :: self.stride, :: self.stride]
        if x.shape[-1] != self.width:
            shortcut = pointwise(self.width, name="shortcut")(shortcut)
            shortcut = BatchNorm(name="shortcut_norm")(shortcut)
        return y + shortcut


class Body(nn.Module):
    """The convolutions of IR-SE50."""

    architecture: BodyArchitecture

    @nn.compact
    def __call__(self, images: jax.Array) -> list[jax.Array]:
        """Images [b, h, w, c] -> outputs of the stages: [b, h / 2, w / 2, width], [b, h / 4, ...], ..."""
        a, maps = self.architecture, []
        x = nn.Conv(a.stem, (3, 3), padding=1, use_bias=False, name="stem")(images)
        x = PReLU(name="stem_prelu")(BatchNorm(name="stem_norm")(x))
        for i, width in enumerate(a.widths):
            # The first block of a stage halves the side.
            stride = 2 if i == 0 or i - 1 in a.ends else 1
            x = Block(width, stride, a.reduction, name=f"block_{i}")(x)
            if i in a.ends:
                maps.append(x)
        return maps


class IdentityNetwork(nn.Module):
    """Body, and one dense layer over all pixels of the last map."""

    architecture: Irse50Architecture

    @nn.compact
    def __call__(self, pixels: jax.Array) -> jax.Array:
        """[b, image_size, image_size, 3] -> [b, d], not of unit length."""
        x = BatchNorm(name="norm")(Body(self.architecture, name="body")(pixels)[-1])
        x = nn.DenseGeneral(self.architecture.features, axis=(1, 2, 3), name="dense")(x)
        return BatchNorm(name="feature_norm")(x)


@flax.struct.dataclass
class Irse50:
    """Face identity, which person an image shows: ArcFace as pSp and StyleCLIP use it.

    Attributes:
      params: float32.
      architecture: static sizes.
    """

    KIND: ClassVar[str] = "irse50"
    ARCHITECTURE: ClassVar[type] = Irse50Architecture

    params: dict[str, Any]
    architecture: Irse50Architecture = flax.struct.field(pytree_node=False)

    def pixels(self, images: jax.Array) -> jax.Array:
        """Cuts the faces out of images that are aligned as FFHQ is.

        Args:
          images: [b, h, w, 3] in [-1, 1].

        Returns:
          What the network reads, [b, 112, 112, 3]: images pooled to 256 pixels, cropped, and pooled
          again.
        """
        check_images(images)
        faces = average_pool(images, ALIGNED)[:, ROWS, COLUMNS]
        return average_pool(faces, self.architecture.image_size)

    def embed_pixels(self, pixels: jax.Array) -> jax.Array:
        """What `pixels` returned, [b, 112, 112, 3] -> unit features [b, d]."""
        features = IdentityNetwork(self.architecture).apply({"params": self.params}, pixels)
        return features / jnp.linalg.norm(features, axis=-1, keepdims=True)

    def embed_images(self, images: jax.Array) -> jax.Array:
        """Aligned images [b, h, w, 3] in [-1, 1] -> unit features [b, d]; see `pixels`."""
        return self.embed_pixels(self.pixels(images))


def average_pool(images: jax.Array, side: int) -> jax.Array:
    """Means over areas that cover the image and may overlap (PyTorch's adaptive average pooling).

    Args:
      images: [b, h, w, c].
      side: pixels per side of the result; more than h or w repeats pixels.

    Returns:
      [b, side, side, c]; pixel i along an axis of n is the mean from floor(i n / side) to
      ceil((i + 1) n / side), exclusive.
    """
    b, h, w, c = images.shape
    if (h, w) == (side, side):
        return images
    rows, columns = _areas(h, side), _areas(w, side)
    return jnp.einsum("rh,bhwc,sw->brsc", rows, images, columns, precision="highest")


@functools.cache
def _areas(n: int, side: int) -> np.ndarray:
    """The matrix [side, n] of `average_pool` along one axis."""
    i = np.arange(side)[:, None]
    first, behind = i * n // side, -(-(i + 1) * n // side)
    inside = (np.arange(n) >= first) & (np.arange(n) < behind)
    return (inside / (behind - first)).astype(np.float32)


def network_shapes(network: nn.Module, inputs: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Flat path -> shape of every parameter of a network, without computing any.

    Args:
      network: the module.
      inputs: shape of the arrays that it reads.
    """
    x = jax.ShapeDtypeStruct(inputs, jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    return {path: leaf.shape for path, leaf in trees.flatten(params).items()}
