"""VGG-16 and VGG-19 (Simonyan & Zisserman 2015, arXiv 1409.1556): the features of their convolutions.

`conv{b}_{i}` is convolution i of block b before its ReLU, `relu{b}_{i}` after it, and `pool{b}` halves the
resolution after block b.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nada_jax.errors import UserError
from nada_jax.losses import perceptual
from nada_jax.models.ops import check_images
from nada_jax.models.winograd import conv

BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions of each block, by depth
LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
POOLING = ("max", "average")
PREPROCESSING = ("torchvision", "caffe")
# Of ImageNet. The first two, for images in [-1, 1], are the scaling layer of LPIPS.
MEAN = 2 * np.array((0.485, 0.456, 0.406), np.float32) - 1
STD = 2 * np.array((0.229, 0.224, 0.225), np.float32)
CAFFE_MEAN = np.array((103.939, 116.779, 123.68), np.float32)  # of blue, green and red in 0..255


def convolutions(depth: int) -> list[str]:
    """Names of the convolutions of VGG-`depth`, in their order."""
    return [f"conv{b}_{i + 1}" for b, n in enumerate(BLOCKS[depth], 1) for i in range(n)]


@dataclasses.dataclass(frozen=True)
class VggArchitecture:
    """The numbers that fix the shapes of a VGG, and the preprocessing of its images.

    Attributes:
      widths: of every convolution in the file, from the first on.
      depth: 16 or 19. A VGG that ends within the first three convolutions of block 3 is the same in
        both, and counts as 16.
      preprocessing: "torchvision" (RGB in [0, 1], mean and deviation of ImageNet) or "caffe" (BGR in
        0..255 less the mean; the original weights, which Keras has too).
      linear: whether it has the linear layers of LPIPS.
    """

    widths: tuple[int, ...]
    depth: int = 16
    preprocessing: str = "torchvision"
    linear: bool = False

    def __post_init__(self):
        if self.depth not in BLOCKS or self.preprocessing not in PREPROCESSING:
            raise UserError(
                f"a VGG of depth {self.depth!r} for {self.preprocessing!r} images is not known; "
                f"expected depth 16 or 19, and {' or '.join(PREPROCESSING)}"
            )
        if not isinstance(self.widths, tuple) or not all(isinstance(w, int) for w in self.widths):
            raise UserError(f"widths of a VGG are {self.widths!r}; expected whole numbers")
        if not 1 <= len(self.widths) <= len(convolutions(self.depth)):
            raise UserError(f"a VGG-{self.depth} does not have {len(self.widths)} convolutions")
        whole = len(self.widths) == len(convolutions(self.depth))
        if self.linear and not (self.depth == 16 and whole and self.preprocessing == "torchvision"):
            raise UserError(
                "the linear layers of LPIPS were trained on the whole VGG-16 of torchvision; this is "
                f"a VGG-{self.depth} with {len(self.widths)} convolutions and {self.preprocessing} "
                "preprocessing"
            )

    def layers(self) -> list[str]:
        """Names of all layers, in their order."""
        names = []
        for name in convolutions(self.depth)[: len(self.widths)]:
            block = int(name[4])
            # A pool ends a block, so it exists only where another block follows.
            if name.endswith("_1") and block > 1:
                names.append(f"pool{block - 1}")
            names += [name, name.replace("conv", "relu")]
        whole = len(self.widths) == len(convolutions(self.depth))
        return [*names, "pool5"] if whole else names

    @property
    def unit(self) -> float:
        """What features are multiplied by to be in units of pixel values in 0..255, as those of the original weights."""
        return 1.0 if self.preprocessing == "caffe" else float(127.5 * STD.mean())

    def reach(self, layer: str) -> tuple[int, int]:
        """What a feature of a layer sees of an image.

        Args:
          layer: out of `layers()`.

        Returns:
          Its stride, the side in pixels of the square that it stands for; and how many pixels it sees beyond that square
          on each side.
        """
        stride, beyond = 1, 0
        for name in self.layers()[: self.layers().index(layer) + 1]:
            if name.startswith("pool"):
                stride *= 2
            elif name.startswith("conv"):
                beyond += stride
        return stride, beyond

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Flat path -> shape of every array of a native VGG file."""
        shapes, before = {}, 3
        for name, width in zip(convolutions(self.depth), self.widths, strict=False):
            shapes[f"{name}.kernel"] = (3, 3, before, width)
            shapes[f"{name}.bias"] = (width,)
            before = width
        if self.linear:
            for i, layer in enumerate(LPIPS_LAYERS):
                shapes[f"lin_{i}"] = shapes[f"{layer.replace('relu', 'conv')}.bias"]
        return shapes

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, tuple[int, ...]], preprocessing: str = "torchvision"
    ) -> "VggArchitecture":
        """Reads the architecture from the shapes of native parameters.

        Args:
          shapes: flat path -> shape, as in `shapes()`; more paths than needed do no harm.
          preprocessing: see the class; it does not follow from shapes.

        Raises:
          UserError: the shapes are not those of a VGG, or of its first convolutions.
        """
        found = {
            match[1]: int(shape[3])
            for path, shape in shapes.items()
            if (match := re.fullmatch(r"(conv\d_\d)\.kernel", path)) and len(shape) == 4
        }
        # Only blocks of VGG-19 have a fourth convolution.
        depth = 19 if any(name.endswith("_4") for name in found) else 16
        names = convolutions(depth)
        absent = [name for name in names[: len(found) or 1] if name not in found]
        if absent:
            raise UserError(
                f"not a VGG: it has {len(found)} convolutions, but no {absent[0]} among them; expected "
                f"those of VGG-{depth} from {names[0]} on"
            )
        widths = tuple(found[name] for name in names if name in found)
        return cls(widths, depth, preprocessing, linear=any(p.startswith("lin_") for p in shapes))


@flax.struct.dataclass
class Vgg:
    """A VGG: weights that pass through jit and grad, and a static architecture.

    Attributes:
      params: {"conv1_1": {"kernel": [3, 3, i, o], "bias": [o]}, ...}, and with LPIPS "lin_0" ... "lin_4"
        [c]; float32.
      architecture: static sizes and preprocessing.
    """

    KIND: ClassVar[str] = "vgg"
    ARCHITECTURE: ClassVar[type] = VggArchitecture

    params: dict[str, Any]
    architecture: VggArchitecture = flax.struct.field(pytree_node=False)

    def features(
        self, images: jax.Array, layers: Sequence[str], pooling: str = "max", wrap: bool = False
    ) -> dict[str, jax.Array]:
        """Features of chosen layers.

        Args:
          images: [b, h, w, 3] in [-1, 1]; the preprocessing of the weights is applied here.
          layers: names out of `architecture.layers()`.
          pooling: "max", or "average" (Gatys et al. 2016: smoother images when they are optimised).
          wrap: convolutions see the opposite side beyond a border, and not zeros. Shifting an image round by a multiple
            of a layer's stride then shifts its features, where all sizes before its pools are even.

        Returns:
          Layer -> [b, h', w', c], where h' and w' are halved, rounded down, by each pool before.

        Raises:
          UserError: unknown layers or pooling, or images too small for a layer.
        """
        known = self.architecture.layers()
        if unknown := [layer for layer in layers if layer not in known]:
            raise UserError(
                f"this VGG-{self.architecture.depth} has no layer {unknown[0]!r}; it has "
                + ", ".join(known)
            )
        if pooling not in POOLING:
            raise UserError(f"pooling is {pooling!r}; expected one of {', '.join(POOLING)}")
        # Layers after the deepest are not computed.
        deepest = max((known.index(layer) for layer in layers), default=-1)
        x, found = preprocess(images, self.architecture.preprocessing), {}
        for layer in known[: deepest + 1]:
            if layer.startswith("conv"):
                padding = ((1, 1), (1, 1))
                if wrap:
                    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), "wrap")
                    padding = ((0, 0), (0, 0))
                x = conv(x, self.params[layer]["kernel"], padding) + self.params[layer]["bias"]
            elif layer.startswith("relu"):
                x = jax.nn.relu(x)
            elif min(x.shape[1:3]) < 2:
                raise UserError(
                    f"images of {images.shape[1]} x {images.shape[2]} pixels are too small for "
                    f"{known[deepest]} of a VGG; {layer} cannot halve them again"
                )
            else:
                x = _pool(x, pooling)
            if layer in layers:
                found[layer] = x
        return found

    def lpips(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """LPIPS, the learned perceptual distance of Zhang et al. 2018; see `losses.perceptual.lpips`.

        Args:
          a, b: images [b, h, w, 3] in [-1, 1], at least 16 pixels high and wide.

        Returns:
          Distance per image [b].

        Raises:
          UserError: this VGG has no linear layers of LPIPS, or the images are too small.
        """
        return self.lpips_from(self.lpips_target(b), a)

    def lpips_target(self, images: jax.Array) -> list[jax.Array]:
        """What `lpips_from` needs of the images [b, h, w, 3] that many others are compared with."""
        return [perceptual.unit(x) for x in self._lpips_features(images)]

    def lpips_from(self, target: Sequence[jax.Array], images: jax.Array) -> jax.Array:
        """`lpips` of images [b, h, w, 3] to those of which `lpips_target` is given: half of the work."""
        weights = [self.params[f"lin_{i}"] for i in range(len(LPIPS_LAYERS))]
        return perceptual.distance(self._lpips_features(images), target, weights)

    def _lpips_features(self, images: jax.Array) -> list[jax.Array]:
        if not self.architecture.linear:
            raise UserError(
                "this VGG has no linear layers of LPIPS; convert the state dict of "
                "lpips.LPIPS(net='vgg'), or torchvision's VGG-16 together with the file "
                "weights/v0.1/vgg.pth of the package lpips"
            )
        found = self.features(images, LPIPS_LAYERS)
        return [found[layer] for layer in LPIPS_LAYERS]


def preprocess(images: jax.Array, preprocessing: str) -> jax.Array:
    """Prepares images as for the training of the weights.

    Args:
      images: [b, h, w, 3] in [-1, 1].
      preprocessing: see `VggArchitecture`.

    Returns:
      [b, h, w, 3].
    """
    check_images(images)
    if preprocessing == "caffe":
        return (images[..., ::-1] + 1) * 127.5 - CAFFE_MEAN
    return (images - MEAN) / STD


def _pool(x: jax.Array, pooling: str) -> jax.Array:
    """Maximum or mean of 2 x 2 pixels: [b, h, w, c] -> [b, h // 2, w // 2, c]."""
    b, h, w, c = x.shape
    # As a reduction over an axis: the gradient of XLA's window reduction is slow on CPU.
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    return jnp.max(x, axis=(2, 4)) if pooling == "max" else jnp.mean(x, axis=(2, 4))
