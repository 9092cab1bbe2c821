"""NVIDIA's StyleGAN2 pickles: PyTorch (ADA and the StyleGAN3 repository) and TensorFlow (StyleGAN2, ADA)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert import modules, pickles
from convert.rules import CONV, DENSE, Arrays, Rule, Transform, chain, transpose
from convert.standins import Array, Record
from nada_jax.errors import UserError
from nada_jax.models.ops import FIR

DROP_FIRST = Transform("drop axis 0", lambda x: x[0], lambda x: x[None])
PLAIN_CONSTANT = transpose(1, 2, 0)  # [c, 4, 4] -> [4, 4, c]
CONSTANT = chain(DROP_FIRST, PLAIN_CONSTANT)  # [1, c, 4, 4] -> [4, 4, c]
NOISE = Transform("drop axes 0, 1", lambda x: x[0, 0], lambda x: x[None, None])
FLIP = Transform("flip axes 0, 1", lambda x: x[::-1, ::-1], lambda x: x[::-1, ::-1])
PLUS_ONE = Transform("+ 1", lambda x: x + 1, lambda x: x - 1)  # TensorFlow keeps styles around 0
KERNEL = np.outer(FIR, FIR).astype(
    np.float32
)  # with the gain 4 of upsampling, which NVIDIA applies later

Read = tuple[list[Rule], dict[str, np.ndarray], float | None]


def _layers():
    """(side, name within its block, native name) of every convolution."""
    for n in range(2, 11):
        if n > 2:
            yield 2**n, "conv0", f"conv_{2 * n - 5}"
        yield 2**n, "conv1", f"conv_{2 * n - 4}"


def _torch_rules() -> list[Rule]:
    rules = [
        Rule("mapping.fc{i}.weight", "mapping.dense_{i}.weight", DENSE),
        Rule("mapping.fc{i}.bias", "mapping.dense_{i}.bias"),
        Rule("mapping.w_avg", "latent_avg"),
        Rule("synthesis.b4.const", "synthesis.constant", PLAIN_CONSTANT),
        Rule("synthesis.b{r}.resample_filter", None),
        Rule("synthesis.b{r}.conv{n}.resample_filter", None),
    ]
    for side, layer, native in _layers():
        official, native = f"synthesis.b{side}.{layer}", f"synthesis.{native}"
        rules += [
            Rule(f"{official}.noise_strength", f"{native}.noise_strength"),
            Rule(f"{official}.noise_const", native.replace("synthesis", "noise")),
            *_torch_modulated(official, native),
        ]
    for n in range(2, 11):
        rules += _torch_modulated(f"synthesis.b{2**n}.torgb", f"synthesis.to_rgb_{n - 2}")
    return rules


def _torch_modulated(official: str, native: str) -> list[Rule]:
    return [
        Rule(f"{official}.weight", f"{native}.weight", CONV),
        Rule(f"{official}.bias", f"{native}.bias"),
        Rule(f"{official}.affine.weight", f"{native}.modulation.weight", DENSE),
        Rule(f"{official}.affine.bias", f"{native}.modulation.bias"),
    ]


def _tensorflow_rules() -> list[Rule]:
    rules = [
        Rule("mapping/Dense{i}/weight", "mapping.dense_{i}.weight"),
        Rule("mapping/Dense{i}/bias", "mapping.dense_{i}.bias"),
        Rule("dlatent_avg", "latent_avg"),
        Rule("synthesis/4x4/Const/const", "synthesis.constant", CONSTANT),
        Rule("synthesis/noise{i}", "noise.conv_{i}", NOISE),
        Rule("lod", None),
        Rule("synthesis/lod", None),
    ]
    for side, layer, native in _layers():
        name = "Conv" if side == 4 else {"conv0": "Conv0_up", "conv1": "Conv1"}[layer]
        official, native = f"synthesis/{side}x{side}/{name}", f"synthesis.{native}"
        rules.append(Rule(f"{official}/noise_strength", f"{native}.noise_strength"))
        rules += _tensorflow_modulated(official, native, flip=layer == "conv0")
    for n in range(2, 11):
        official = f"synthesis/{2**n}x{2**n}/ToRGB"
        rules += _tensorflow_modulated(official, f"synthesis.to_rgb_{n - 2}")
    return rules


def _tensorflow_modulated(official: str, native: str, flip: bool = False) -> list[Rule]:
    kernel = Rule(f"{official}/weight", f"{native}.weight")
    return [
        kernel._replace(transform=FLIP) if flip else kernel,
        Rule(f"{official}/bias", f"{native}.bias"),
        Rule(f"{official}/mod_weight", f"{native}.modulation.weight"),
        Rule(f"{official}/mod_bias", f"{native}.modulation.bias", PLUS_ONE),
    ]


TORCH, TENSORFLOW = _torch_rules(), _tensorflow_rules()


def read(path: Path) -> Read:
    """Reads a pickle: `G_ema` of a PyTorch one, `Gs` of a TensorFlow one.

    Args:
      path: the file.

    Returns:
      The table for its arrays, the arrays by official key, and the clamp of its layers.

    Raises:
      UserError: the file is missing, damaged, would run code, or holds another kind of network.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; expected a StyleGAN2 pickle")
    content = pickles.read_pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("G_ema"), Record):
        return _read_torch(content["G_ema"], path)
    if isinstance(content, tuple) and len(content) == 3 and _is_network(content[2]):
        return _read_tensorflow(content[2], path)
    names = [key for key in content if type(key) is str] if isinstance(content, Mapping) else []
    held = ", ".join(names[:8])
    raise UserError(
        f"{path} holds no generator: expected a table with G_ema (PyTorch) or three networks "
        f"(TensorFlow), it has {held or type(content).__name__}"
    )


def _read_torch(root: Record, path: Path) -> Read:
    parts = modules.tree(root, str(path))
    arrays = modules.state_dict(parts, path)

    def every(attribute: str, within: str = "") -> set[Any]:
        states = [state for name, state in parts.items() if name.startswith(within)]
        return {_plain(state[attribute]) for state in states if attribute in state}

    _refuse(
        path,
        {
            "a StyleGAN3": "synthesis.input" in parts,
            "conditional, with labels": "mapping.embed" in parts or every("c_dim") - {0},
            "of the architecture 'resnet' or 'orig'": every("architecture") - {"skip"},
            "not of RGB pictures": every("img_channels") - {3},
        },
        {
            "activation": every("activation") - {"lrelu", "linear"},
            "lr_multiplier": every("bias_gain", "mapping.") - {0.01},
        },
    )
    check_filters(arrays, "resample_filter", KERNEL / 4, str(path))
    return TORCH, arrays, _clamp(every("conv_clamp"), path)


def _read_tensorflow(network: Record, path: Path) -> Read:
    arrays: dict[str, np.ndarray] = {}
    settings: dict[str, set[Any]] = {}

    def visit(network: Record, prefix: str) -> None:
        state = network.state
        for name, value in _table(state.get("static_kwargs")).items():
            settings.setdefault(str(name), set()).add(_plain(value))
        for name, value in _pairs(state.get("variables")):
            if isinstance(value, Array | np.ndarray | float | int):  # scalars are numbers
                array = value.array() if isinstance(value, Array) else np.asarray(value)
                arrays[prefix + name] = array
        for name, component in _table(state.get("components")).items():
            if prefix or not _is_network(component):  # a generator has two parts, and these none
                raise UserError(f"{path}: its component {name} is not the part of a generator")
            visit(component, f"{name}/")

    visit(network, "")
    modules.check_total(arrays, path)
    _refuse(
        path,
        {
            "a StyleGAN, the first one": any("/StyleMod/" in key for key in arrays),
            "conditional, with labels": any("/Label" in key for key in arrays)
            or settings.get("label_size", {0}) - {0},
            "of the architecture 'resnet' or 'orig'": any("/Skip/" in key for key in arrays)
            or settings.get("architecture", {"skip"}) - {"skip"},
            "not of RGB pictures": settings.get("num_channels", {3}) - {3},
        },
        {
            "resample_kernel": settings.get("resample_kernel", set()) - {(1, 3, 3, 1), None},
            "mapping_lrmul": settings.get("mapping_lrmul", set()) - {0.01},
            "nonlinearity": settings.get("nonlinearity", set()) - {"lrelu"},
        },
    )
    return TENSORFLOW, arrays, _clamp(settings.get("conv_clamp", set()), path)


def check_filters(arrays: Arrays, ending: str, kernel: np.ndarray, what: str) -> None:
    """UserError where an array whose key ends so is another filter than [1, 3, 3, 1], which is built in."""
    for key, array in arrays.items():
        if key.endswith(ending) and not (
            array.shape == kernel.shape and np.allclose(array, kernel, atol=1e-6)
        ):
            raise UserError(f"{what}: {key} is not the filter [1, 3, 3, 1]; only that is supported")


def _refuse(path: Path, kinds: dict[str, Any], settings: dict[str, set[Any]]) -> None:
    """Raises UserError for the first kind that is found, or the first setting with other values."""
    for kind, found in kinds.items():
        if found:
            raise UserError(
                f"{path} holds a generator that is {kind}; expected an unconditional StyleGAN2 of RGB "
                "pictures with skip connections, as published for faces, animals and LSUN"
            )
    for name, found in settings.items():
        if found:
            raise UserError(f"{path}: {name} is {found.pop()!r}, which StyleGAN2 does not have")


def _clamp(values: set[Any], path: Path) -> float | None:
    values = values - {None}
    if len(values) > 1 or not all(isinstance(value, int | float) for value in values):
        raise UserError(f"{path}: conv_clamp is {sorted(map(str, values))}; expected one number")
    return float(values.pop()) if values else None


def _is_network(value: Any) -> bool:
    return (
        isinstance(value, Record)
        and value.name == pickles.NETWORK
        and isinstance(value.state, dict)
    )


def _table(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _pairs(value: Any) -> list[tuple[str, Any]]:
    """Variables are a list of (name, array), or a table in early files."""
    items = list(value.items()) if isinstance(value, dict) else value
    pairs = isinstance(items, list) and all(isinstance(x, tuple) and len(x) == 2 for x in items)
    return [pair for pair in items if isinstance(pair[0], str)] if pairs else []


def _plain(value: Any) -> Any:
    """A setting as something that can stand in a set, and in a message."""
    if isinstance(value, list | tuple):
        return tuple("an object" if isinstance(v, list | tuple) else _plain(v) for v in value[:8])
    large = isinstance(value, int) and abs(value) > 10**9
    if large or isinstance(value, str) and len(value) > 40:
        return "an object"
    return value if isinstance(value, bool | int | float | str | None) else "an object"
