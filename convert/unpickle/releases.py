"""NVIDIA's StyleGAN2s: what is checked in them, and the arrays of their generators."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert.unpickle import contents, modules, pickles
from convert.unpickle.standins import Array, Record
from nada_jax.errors import UserError


class Release(NamedTuple):
    """A generator out of a pickle.

    Attributes:
      library: "torch" or "tensorflow", whose names the arrays have.
      arrays: by official key.
      conv_clamp: bound of what its layers put out, or None.
    """

    library: str
    arrays: dict[str, np.ndarray]
    conv_clamp: float | None


def find(content: Any, path: Path) -> Release | None:
    """Finds a generator among pickled networks.

    Args:
      content: what `reader.load` returned: a network; a table with `G_ema`, and mostly others; or
        TensorFlow's (G, D, Gs), whose last one is averaged, as `G_ema` is.
      path: the file, for messages.

    Returns:
      The generator; None where there is none.

    Raises:
      UserError: it is of another kind.
    """
    if isinstance(content, tuple) and len(content) == 3:
        content = content[2]
    networks = content if isinstance(content, Mapping) else {"": content}
    generators = {
        str(name): x
        for name, x in networks.items()
        if isinstance(x, Record)
        and (_is_network(x) or name == "G_ema" or x.name.endswith("Generator"))
    }
    root = contents.choose(generators, path, "generator")
    if root is None:
        return None
    return _read_tensorflow(root, path) if _is_network(root) else _read_torch(root, path)


def _read_torch(root: Record, path: Path) -> Release:
    parts = modules.tree(root, str(path))
    return from_state_dict(modules.state_dict(parts, path), path, parts)


def from_state_dict(
    arrays: dict[str, np.ndarray],
    path: Path,
    parts: Mapping[str, Mapping[str, Any]] | None = None,
) -> Release:
    """Takes the state dict of a generator of NVIDIA's PyTorch code.

    Args:
      arrays: by official key.
      path: the file, for messages.
      parts: the attributes of each of its modules, where the file has them.

    Returns:
      The generator; without `parts`, its `conv_clamp` is unknown and None.

    Raises:
      UserError: it is of another kind.
    """

    # Settings are attributes of the modules that use them: all values of one name, as a set.
    def every(attribute: str, within: str = "") -> set[Any]:
        states = [state for name, state in (parts or {}).items() if name.startswith(within)]
        return {_plain(state[attribute]) for state in states if attribute in state}

    def has(beginning: str, end: str = "") -> bool:
        return any(key.startswith(beginning) and key.endswith(end) for key in arrays)

    _refuse(
        path,
        {
            "a StyleGAN3": has("synthesis.input."),
            "conditional, with labels": has("mapping.embed.") or every("c_dim") - {0},
            "of the architecture 'resnet' or 'orig'": every("architecture") - {"skip"}
            or has("synthesis.b", ".skip.weight")
            or has("synthesis.b4.")
            and not has("synthesis.b4.torgb."),
            "not of RGB images": every("img_channels") - {3},
        },
        {
            "activation": every("activation") - {"lrelu", "linear"},
            "lr_multiplier": every("bias_gain", "mapping.") - {0.01},
        },
    )
    return Release("torch", arrays, _clamp(every("conv_clamp"), path))


def _read_tensorflow(network: Record, path: Path) -> Release:
    arrays: dict[str, np.ndarray] = {}
    settings: dict[str, set[Any]] = {}

    def visit(network: Record, prefix: str) -> None:
        state = network.state
        for name, value in _table(state.get("static_kwargs")).items():
            settings.setdefault(str(name), set()).add(_plain(value))
        for name, value in _pairs(state.get("variables")):
            if isinstance(value, Array | np.ndarray | float | int):  # scalars come as numbers
                array = value.array() if isinstance(value, Array) else np.asarray(value)
                arrays[prefix + name] = array
        for name, component in _table(state.get("components")).items():
            # A generator has two parts, and these have none: depth that a file claims has an end.
            if prefix or not _is_network(component):
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
            "not of RGB images": settings.get("num_channels", {3}) - {3},
        },
        {
            "resample_kernel": settings.get("resample_kernel", set()) - {(1, 3, 3, 1), None},
            "mapping_lrmul": settings.get("mapping_lrmul", set()) - {0.01},
            "nonlinearity": settings.get("nonlinearity", set()) - {"lrelu"},
        },
    )
    return Release("tensorflow", arrays, _clamp(settings.get("conv_clamp", set()), path))


def _refuse(path: Path, kinds: dict[str, Any], settings: dict[str, set[Any]]) -> None:
    """Raises UserError for the first kind that is found, or the first setting with other values."""
    for kind, found in kinds.items():
        if found:
            raise UserError(
                f"{path} holds a generator that is {kind}; expected an unconditional StyleGAN2 of RGB "
                "images with skip connections, as published for faces, animals and LSUN"
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
    """A setting as a value that can be hashed and shown: a stranger's tuples may nest without end."""
    if isinstance(value, list | tuple):
        return tuple("an object" if isinstance(v, list | tuple) else _plain(v) for v in value[:8])
    # An integer of a stranger may have more digits than a message has room for.
    large = isinstance(value, int) and abs(value) > 10**9
    if large or isinstance(value, str) and len(value) > 40:
        return "an object"
    # A class of its own could have a slow or misleading hash.
    return value if isinstance(value, bool | int | float | str | None) else "an object"
