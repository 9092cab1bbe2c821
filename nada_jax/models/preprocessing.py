"""How a CLIP reads images: preprocessor_config.json, of which only what is built is accepted."""

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nada_jax import files
from nada_jax.errors import UserError

# Of OpenAI's training images, in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
BICUBIC = 3  # PIL's code
# A smaller standard deviation would make pixels overflow, or be one by mistake.
LEAST_STD = 1e-4
# Newer libraries write the second, with the same content under "image_processor".
FILES = ("preprocessor_config.json", "processor_config.json")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to images before the network sees them; all resize by bicubic interpolation.

    Attributes:
      mean, std: of the three colours in [0, 1], for normalising.
      squash: both sides become those of the network, instead of the shorter one and a crop of the centre;
        the same for square images.
    """

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    squash: bool = False


def read(directory: str | os.PathLike, size: int) -> Preprocessing:
    """Reads the file of a Hugging Face directory; without one, warns and takes OpenAI's.

    Args:
      directory: the directory.
      size: pixels of a side that the network reads.

    Raises:
      UserError: the file is damaged, or says what is not built.
    """
    for name in FILES:
        path = Path(directory) / name
        if path.is_file():
            content = files.read_json(path)
            try:
                return parse(content.get("image_processor", content), size)
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
    warnings.warn(
        f"{directory} has no {FILES[0]}, so it does not say how images are normalised; OpenAI's mean "
        "and standard deviation are taken",
        stacklevel=2,
    )
    return Preprocessing()


def parse(content: Mapping[str, Any], size: int) -> Preprocessing:
    """Checks the content of a preprocessor_config.json.

    Args:
      content: the fields of Hugging Face's CLIPImageProcessor; what is missing is as OpenAI has it.
      size: pixels of a side that the network reads.

    Raises:
      UserError: it says what is not built.
    """
    for name, built in {
        "do_resize": (True,),
        "resample": (BICUBIC,),
        "do_rescale": (True,),
        "rescale_factor": (1 / 255,),
    }.items():
        if (value := content.get(name, built[0])) not in built:
            hint = " (bicubic)" if name == "resample" else ""
            raise UserError(f"{name} is {value!r}; only {built[0]!r}{hint} is built")
    side, squash = _side(content.get("size", size))
    if side != size:
        raise UserError(f"size is {content['size']!r}; the network reads images of {size} pixels")
    crop = content.get("do_center_crop", True)
    if crop and _side(content.get("crop_size", size))[0] != size:
        raise UserError(
            f"crop_size is {content['crop_size']!r}; the network reads images of {size} pixels"
        )
    if not (crop or squash):
        raise UserError(
            f"do_center_crop is {crop!r} and size is {content.get('size')!r}; without a crop, only a "
            "size of equal height and width is built"
        )
    if not content.get("do_normalize", True):
        return Preprocessing((0.0,) * 3, (1.0,) * 3, squash)
    # Image processors of other models have other values where a file leaves them out.
    kind = content.get("image_processor_type", content.get("feature_extractor_type", "CLIP"))
    missing = [name for name in ("image_mean", "image_std") if name not in content]
    if missing and not str(kind).startswith("CLIP"):
        raise UserError(f"it is of a {kind} and has no {' and '.join(missing)}; expected them")
    mean = colours("image_mean", content.get("image_mean", MEAN))
    std = colours("image_std", content.get("image_std", STD), LEAST_STD)
    return Preprocessing(mean, std, squash)


def colours(name: str, value: Any, least: float = -math.inf) -> tuple[float, ...]:
    """A number for each colour; UserError unless `value` is three finite numbers from a limit on."""
    three = isinstance(value, list | tuple) and len(value) == 3
    if not three or not all(_is_number(x) and least <= x < math.inf for x in value):
        limit = f" from {least:g}" if least > -math.inf else ""
        raise UserError(f"{name} is {value!r}; expected three finite numbers{limit}")
    return tuple(map(float, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _side(size: Any) -> tuple[Any, bool]:
    """Pixels of the side, and whether both sides get them; (None, False) where nothing such is said."""
    if not isinstance(size, Mapping):
        return size, False  # older files have a plain number
    if size.keys() == {"height", "width"} and size["height"] == size["width"]:
        return size["height"], True
    return (size["shortest_edge"], False) if size.keys() == {"shortest_edge"} else (None, False)
