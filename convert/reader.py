"""Reads PyTorch checkpoints as numpy arrays, without running code from them."""

import argparse
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from nada_jax.errors import UserError


def import_torch() -> ModuleType:
    """The torch module; UserError that says what to install where there is none."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "PyTorch is needed to read and write its checkpoints: "
            "pip install -r requirements-convert.txt"
        ) from error
    return torch


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a `.pt`, `.pth` or `.bin` file that `torch.save` wrote.

    Only tensors, plain Python values and `argparse.Namespace` (rosinality's `args`) are rebuilt.

    Args:
      path: the file.

    Returns:
      The table it holds, nested as it was; tensors as numpy arrays (bfloat16, which numpy lacks, as
      float32), namespaces as dictionaries.

    Raises:
      UserError: torch is missing, or the file is missing, cut short, no checkpoint, a TorchScript
        archive, no table, or asks for code to be run.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a PyTorch checkpoint")
    if path.is_dir():
        raise UserError(f"{path} is a directory; expected a PyTorch checkpoint file")
    torch = import_torch()
    try:
        if _is_torchscript(path):
            raise UserError(
                f"{path} is a TorchScript (JIT) archive, which is not read yet; a plain state dict "
                "is needed: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
            )
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters is raised
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(f"cannot read {path}: {_reason(path, error)}") from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise UserError(f"{path} holds a {kind}; expected a table of tensors (a state dict)")
    content = _to_numpy(content, torch)
    if wrong := [key for key in content if not isinstance(key, str)]:
        raise UserError(f"{path} has the key {wrong[0]!r}; expected names of tensors")
    return content


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        return "the file is empty"
    if head == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        return "the file is cut short (its zip directory is missing); download or copy it again"
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return (
            f"it asks for {refused[1]}, and only tensors and plain values are read, since anything "
            "else could run code; save its state dict instead"
        )
    return "it is cut short or is not a PyTorch checkpoint"


def _to_numpy(value: Any, torch: ModuleType) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {key: _to_numpy(item, torch) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_numpy(item, torch) for item in value)
    return value
