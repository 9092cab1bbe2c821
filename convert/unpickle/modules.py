"""PyTorch modules without their classes: trees of records, out of NVIDIA's pickles and TorchScript archives."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.unpickle import pickles
from convert.unpickle.standins import Record, Storage
from nada_jax.errors import UserError

# Bounds of the dotted paths of modules: parts and characters. Published networks stay far below; a small
# file could name very long paths very often.
DEPTH, LENGTH = 16, 256
PERSISTENT = b"torch_utils.persistence"  # the module that pickles of NVIDIA's classes name


def read_torchscript(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a TorchScript (JIT) archive, and none of its code.

    Args:
      path: the file, as OpenAI's CLIPs are published.

    Returns:
      Arrays by dotted path of attributes, as in the module's state dict (and tensors that are plain
      attributes).

    Raises:
      UserError: the archive is damaged or names something that a TorchScript archive does not.
    """
    return state_dict(tree(_read_archive(path, records="__torch__."), str(path)), path)


def has_persistent(path: Path) -> bool:
    """Whether an archive by `torch.save`, which is whole, holds networks of NVIDIA's classes."""
    with zipfile.ZipFile(path) as archive:
        return any(
            name.endswith("/data.pkl") and PERSISTENT in archive.read(name)
            for name in archive.namelist()
        )


def read_persistent(path: Path) -> Any:
    """Reads an archive with networks of NVIDIA's classes, as PTI saves them.

    Args:
      path: the file.

    Returns:
      See `pickles.read_pickle`.

    Raises:
      UserError: the archive is damaged or names something that NVIDIA's pickles do not.
    """
    return _read_archive(path, records=pickles.NETWORK)


def _read_archive(path: Path, records: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        # The directory has the name under which the file was saved first.
        root = next(n for n in archive.namelist() if n.endswith(".pkl")).split("/")[0]

        def open_storage(kind: str, key: Any, *_: Any) -> Storage:
            return Storage(kind, archive.read(f"{root}/data/{key}"))

        if f"{root}/data.pkl" not in archive.namelist():
            raise UserError(f"cannot read {path}: it is a PyTorch archive without its data.pkl")
        data = archive.read(f"{root}/data.pkl")
        return pickles.read_archive(data, open_storage, path, records)


def tree(root: Any, what: str) -> dict[str, dict[str, Any]]:
    """Lists the modules of a tree of PyTorch modules.

    Args:
      root: a `Record`, of a TorchScript module or of one with `_parameters`, `_buffers` and `_modules`.
      what: how messages call it.

    Returns:
      The state of every module by dotted path; the root's is "".

    Raises:
      UserError: it is not a tree of modules.
    """
    found: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    waiting = [("", root)]  # a list instead of recursion, whose depth a file could exhaust
    while waiting:
        path, record = waiting.pop()
        if not isinstance(record, Record) or not isinstance(record.state, dict):
            raise UserError(f"{what}: {path or 'its content'} is not a module")
        if id(record) in seen or path.count(".") >= DEPTH:
            raise UserError(f"{what}: the module {path} occurs in it twice, or too deep")
        seen.add(id(record))
        found[path] = record.state
        # TorchScript has no `_modules`: there, modules are attributes among others.
        children = record.state.get("_modules", record.state)
        for name, value in children.items() if isinstance(children, dict) else ():
            if isinstance(value, Record) and isinstance(value.state, dict):
                waiting.append((_join(path, name, what), value))
    return found


def state_dict(parts: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, np.ndarray]:
    """Collects the arrays of the modules that `tree` listed.

    Args:
      parts: the state of every module.
      path: the file that they come from.

    Returns:
      Arrays by dotted path.

    Raises:
      UserError: they take far more memory than the file.
    """
    arrays = {}
    for module, state in parts.items():
        tables = [state.get(name) for name in ("_parameters", "_buffers")]
        for table in [table for table in tables if isinstance(table, dict)] or [state]:
            for name, value in table.items():
                if isinstance(value, np.ndarray):
                    arrays[_join(module, name, str(path))] = value
    check_total(arrays, path)
    return arrays


def _join(path: str, name: Any, what: str) -> str:
    if type(name) is not str or len(path) + len(name) > LENGTH:
        raise UserError(f"{what}: {path or 'the module'} has a part without a sensible name")
    return f"{path}.{name}" if path else name


def check_total(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Raises UserError where a small file names one memory many times."""
    # Twice: networks may share weights once.
    if sum(array.nbytes for array in arrays.values()) > 2 * path.stat().st_size:
        raise UserError(f"{path} claims tensors larger than the file")
