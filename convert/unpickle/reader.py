"""Reads PyTorch checkpoints as numpy arrays, without running code from them."""

import argparse
import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sized
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from convert.unpickle import modules, pickles
from convert.unpickle.standins import Record
from nada_jax.errors import UserError

SLACK = 2**24  # bytes of code that a TorchScript archive may hold compressed
# What DataParallel, torch.compile, FSDP and checkpointing of activations put into keys, wherever they wrap.
WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of PyTorch's magic number
# A class that checkpoints of PyTorch Lightning name, as those of Stable Diffusion: it is the key of what it kept.
CALLBACK = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys of the storages that follow


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
    """Reads a checkpoint that is a table, as `load` does.

    Raises:
      UserError: what `load` raises, or it is no table by names.
    """
    content = load(path)
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path} holds {described(content)}; expected a table of tensors (a state dict)"
        )
    if wrong := [key for key in content if not isinstance(key, str)]:
        raise UserError(f"{path} has the key {wrong[0]!r}; expected names of tensors")
    return content


def load(path: str | os.PathLike) -> Any:
    """Reads a file that `torch.save`, `torch.jit.save` or `pickle.dump` wrote, whatever its ending.

    Only tensors, plain Python values and `argparse.Namespace` are rebuilt; of a TorchScript archive, as
    OpenAI's CLIPs are published, the tensors alone; NVIDIA's networks as `Record`s.

    Args:
      path: the file.

    Returns:
      What it holds, nested as it was; tensors as numpy arrays (bfloat16 and smaller types, which numpy
      lacks, as float32), namespaces as dictionaries.

    Raises:
      UserError: torch is missing, or the file is missing, cut short, damaged, compressed, no checkpoint,
        or asks for code to be run.
    """
    path = Path(path)
    if not path.is_file():
        why = "is a directory" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {why}; expected a PyTorch checkpoint file")
    zipped = zipfile.is_zipfile(path)
    if zipped and _check_zip(path):
        return modules.read_torchscript(path)
    if zipped and modules.has_persistent(path):
        return modules.read_persistent(path)
    if not zipped and _is_plain_pickle(path):
        return pickles.read_pickle(path)
    torch = import_torch()
    try:
        _scan(path, zipped)
        # rosinality keeps the options of its training as a Namespace, which PyTorch refuses by itself; any class that
        # does nothing stands for Lightning's.
        known = [argparse.Namespace, (_Nothing, CALLBACK)]
        with torch.serialization.safe_globals(known), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters is raised
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError:
        raise  # `reading` reports it: the file may be whole
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(f"cannot read {path}: {_reason(path, error)}") from error
    try:
        return _ToNumpy(torch, path).convert(content)
    except RecursionError as error:
        raise UserError(f"cannot read {path}: its lists are nested too deeply") from error


def state_dict(
    content: Any, path: Path, what: str, expected: str = "a plain state dict"
) -> dict[str, np.ndarray]:
    """Takes what a file holds, or a part of it, for a state dict.

    Args:
      content: what `read` returned, or a part of it.
      path: the file, for messages.
      what: the network, for messages.
      expected: the content, for messages.

    Returns:
      The same table, `unwrapped`.

    Raises:
      UserError: it is no table, is empty, or holds something else than tensors.
    """
    if not isinstance(content, Mapping) or not content:
        empty = content is None or isinstance(content, Sized) and not len(content)
        wrong = ["nothing" if empty else described(content)]
    else:
        wrong = [
            str(key)
            for key, x in content.items()
            if not (isinstance(key, str) and isinstance(x, np.ndarray))
        ]
    if wrong:
        raise UserError(
            f"{path} holds no {what}: expected {expected} (tensors alone), it has "
            + ", ".join(wrong[:8])
        )
    return unwrapped(content, path)


def unwrapped(table: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    """Takes the names of PyTorch's wrappers out of the keys of a table; see `WRAPPERS`.

    Args:
      table: a state dict.
      path: the file, for messages.

    Returns:
      What it has under texts; "module.conv.weight" as "conv.weight".

    Raises:
      UserError: two keys would become one.
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(key, str):
            name = WRAPPERS.sub("", key)
            if name in found:
                raise UserError(f"{path} has {name} twice, with a wrapper's name in it and without")
            found[name] = value
    return found


def described(content: Any) -> str:
    """How messages name what a file holds, where it is no table."""
    if isinstance(content, Record):
        return f"a pickled {content.name:.80}"
    return f"a {type(content).__name__}"


def _is_plain_pickle(path: Path) -> bool:
    """Whether a file is a pickle by Python itself, not of PyTorch's old format, which starts with one."""
    with path.open("rb") as file:
        head = file.read(len(LEGACY_START))
    pickled = path.suffix.lower() == ".pkl" or head[:1] == pickle.PROTO
    return pickled and head != LEGACY_START


def _check_zip(path: Path) -> bool:
    """Whether an archive is TorchScript; UserError where it is damaged or unpacks to far more."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            names = [entry.filename for entry in entries]
            # PyTorch compresses code alone, never tensors.
            packed = any(
                entry.compress_type != zipfile.ZIP_STORED and "/code/" not in entry.filename
                for entry in entries
            )
            bomb = packed or unpacked > 2 * path.stat().st_size + SLACK
            # PyTorch does not compare check sums, and would take flipped bits for weights.
            bad = None if bomb else archive.testzip()
    except Exception as error:  # zipfile raises many kinds
        raise UserError(f"cannot read {path}: it is a damaged archive ({error})") from error
    if bomb:
        raise UserError(
            f"cannot read {path}: it is compressed, to {unpacked:,} bytes unpacked, and PyTorch compresses "
            "no tensors"
        )
    # Which of two files of one name is read differs between zip libraries, so checks could be evaded.
    if len(set(names)) < len(names):
        raise UserError(f"cannot read {path}: it holds two files of one name")
    if bad:
        raise UserError(
            f"cannot read {path}: {bad} in it is damaged (wrong check sum); download or copy it again"
        )
    return any(entry.filename.endswith("/constants.pkl") for entry in entries)


def _scan(path: Path, zipped: bool) -> None:
    """Refuses what would keep PyTorch's own reader busy for ever; see `pickles.scan`."""
    size = path.stat().st_size
    if zipped:
        with zipfile.ZipFile(path) as archive:
            data = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            pickles.scan(io.BytesIO(archive.read(data)), size)
        return
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            if file.tell() < size:
                pickles.scan(file, size)


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
            "else could run code; save its state dict instead: torch.save(model.state_dict(), FILE)"
        )
    return "it is cut short, damaged, or not a PyTorch checkpoint"


class _Nothing:
    """Stands for a class of another package."""


class _ToNumpy:
    """Turns tensors into arrays and namespaces into dictionaries, each object once.

    A small file can name one list, or one piece of memory, very many times; what comes out stays within
    what the file can hold.
    """

    def __init__(self, torch: ModuleType, path: Path):
        self._torch, self._path = torch, path
        self._left = 2 * path.stat().st_size  # weights that share memory may count twice
        self._done: dict[int, Any] = {}

    def convert(self, value: Any) -> Any:
        if id(value) not in self._done:
            # The value is kept beside its result: an id is only good while its object lives.
            self._done[id(value)] = (value, self._convert(value))
        return self._done[id(value)][1]

    def _convert(self, value: Any) -> Any:
        if isinstance(value, self._torch.Tensor):
            self._left -= value.numel() * value.element_size()
            if self._left < 0:
                raise UserError(f"{self._path} claims tensors larger than the file")
            value = value.detach()
            plain = (self._torch.float16, self._torch.float32, self._torch.float64)
            lacking = value.is_floating_point() and value.dtype not in plain
            return (value.float() if lacking else value).numpy()
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, Mapping):
            return {key: self.convert(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.convert(item) for item in value)
        return value
