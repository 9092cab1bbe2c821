"""Reads pickles (of NVIDIA's StyleGAN2 releases, and within TorchScript archives) without running them.

A pickle is a program: it names functions and classes and has them called. Here every name is looked up in
a list of inert stand-ins, that rebuild arrays and note the names and states of objects; any other name
ends the reading. Source code in a pickle (NVIDIA's "persistent" classes carry theirs) stays a string. The
interpreter is the standard library's in Python, not the one in C: its memory grows with what the
file holds, never with a number that the file claims.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nada_jax.errors import UserError

STORAGES = {
    "FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1",
    "ByteStorage": "<u1", "BoolStorage": "|b1",
}  # fmt: skip


class Record:
    """An object whose class is not imported: the name of that class, and its state as it was stored.

    Attributes:
      name: full name of the class.
      state: what the pickle gave, mostly a dictionary.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str, state: Any = None):
        self.name, self.state = name, state

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Storage:
    """Flat memory that tensors share; bfloat16 is kept as its bits."""

    __slots__ = ("array", "bfloat16")

    def __init__(self, dtype: str, buffer: Any):
        self.bfloat16 = dtype == "bfloat16"
        self.array = np.frombuffer(buffer, "<u2" if self.bfloat16 else dtype)


def read_pickle(path: Path) -> Any:
    """Reads a pickle of a StyleGAN2 release, PyTorch's or TensorFlow's.

    Args:
      path: the file.

    Returns:
      What it holds: dictionaries (of any kind), lists, tuples, plain values, numpy arrays and `Record`s.

    Raises:
      UserError: the pickle is cut short, damaged, or names something outside of the list.
    """
    with path.open("rb") as file:
        return _run(_Unpickler(_Bounded(file, path.stat().st_size)), path)


def read_script(data: bytes, open_storage: Callable[..., Storage], path: Path) -> Any:
    """Reads the pickle of objects in a TorchScript archive.

    Args:
      data: the pickle.
      open_storage: gives the storage of (kind, key, device, count).
      path: the archive, for messages.

    Returns:
      See `read_pickle`.

    Raises:
      UserError: the pickle is damaged, or names something that a TorchScript archive does not.
    """
    return _run(_Unpickler(io.BytesIO(data), script=True, open_storage=open_storage), path)


def _run(unpickler: "_Unpickler", path: Path) -> Any:
    try:
        return unpickler.load()
    except UserError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(
            f"cannot read {path}: it is cut short, damaged, or not a pickle of a network"
        ) from error


class _Bounded:
    """A file whose reads never ask for more than it can hold, whatever the pickle says."""

    def __init__(self, file: BinaryIO, size: int):
        self.readline, self.readinto = file.readline, file.readinto
        self._file, self._size = file, size

    def read(self, n: int) -> bytes:
        if n > self._size:
            raise EOFError
        return self._file.read(n)


class _Call:
    """A function for pickles to call, and nothing else: they cannot set its attributes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


class _Dict(dict):
    """Any dictionary; attributes that a pickle gives it are left out."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle._Unpickler):
    """Interprets a pickle with `ALLOWED` names alone.

    Args:
      file: the pickle.
      script: names of TorchScript's classes are allowed as well.
      open_storage: gives the storage of a persistent id (kind, key, device, count).
    """

    def __init__(
        self, file: Any, script: bool = False, open_storage: Callable[..., Storage] | None = None
    ):
        super().__init__(file, encoding="latin1")
        self._script, self._open_storage, self._opened = script, open_storage, {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in ALLOWED:
            return ALLOWED[full]
        if module in ("torch", "torch.storage") and name in STORAGES:
            return name
        records = (
            "torch.nn.modules.",
            "__torch__." if self._script else "dnnlib.tflib.network.Network",
        )
        if full.startswith(records):
            return _record_class(full)
        raise UserError(
            f"it asks for {full}, and only tensors and plain values are read, since anything else "
            "could run code"
        )

    def persistent_load(self, pid: Any) -> Storage:
        kind, *rest = pid
        if self._open_storage is None or kind != "storage":
            raise pickle.UnpicklingError("a persistent id")
        key = str(rest[1])
        if key not in self._opened:
            self._opened[key] = self._open_storage(*rest)
        return self._opened[key]


def _record_class(full: str) -> type:
    def new(cls, *args, **kwargs):
        record = object.__new__(cls)
        Record.__init__(record, full)
        return record

    # Calling the class and `__new__` alone, the two ways of pickles, give the same.
    members = {"__slots__": (), "__new__": new, "__init__": lambda *args, **kwargs: None}
    return type("Record", (Record,), members)


def _load_from_bytes(data: bytes) -> Storage:
    """A storage that was saved on its own, in PyTorch's old format: pickles, then the memory."""
    view, opened = memoryview(data), {}

    def open_storage(kind: Any, key: Any, device: Any, count: int, *_: Any) -> Storage:
        opened[str(key)] = Storage(STORAGES[kind], bytes(0))
        return opened[str(key)]

    file = io.BytesIO(data)
    # Magic number, protocol version, system; then the object, and the keys of all storages.
    *_, storage, keys = [_Unpickler(file, open_storage=open_storage).load() for _ in range(5)]
    for key in keys:
        target = opened[str(key)]
        dtype, start = target.array.dtype, file.tell() + 8
        count = int.from_bytes(view[start - 8 : start], "little")
        end = start + count * dtype.itemsize
        if end > len(view):
            raise EOFError
        target.array = np.frombuffer(view[start:end], dtype)
        file.seek(end)
    return storage


def _tensor(storage: Storage, offset: int, size: Any, stride: Any, *_: Any) -> np.ndarray:
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    count = int(np.prod(size, dtype=object)) if size else 1
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    flat = storage.array
    if min(size + stride + (offset,)) < 0 or count > flat.size or (count and last >= flat.size):
        raise pickle.UnpicklingError("a tensor beyond its storage")
    if count == 0:
        return np.zeros(size, flat.dtype)
    array = np.lib.stride_tricks.as_strided(
        flat[offset:], size, [step * flat.itemsize for step in stride], writeable=False
    )
    if storage.bfloat16:  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _persistent(meta: Mapping[str, Any]) -> Record:
    """NVIDIA's `torch_utils.persistence`: the source beside the state is left alone."""
    return Record(str(meta["class_name"]), dict(meta["state"]))


class Array(Record):
    """A numpy array, as pickles give it: made empty, then its state (version, shape, dtype, order, bytes)."""

    __slots__ = ()

    def array(self) -> np.ndarray:
        """The array.

        Raises:
          UserError: its state does not fit together.
        """
        try:
            _, shape, dtype, fortran, raw = self.state
            return _frombuffer(raw, dtype, shape, "F" if fortran else "C")
        except (TypeError, ValueError, AttributeError, pickle.UnpicklingError) as error:
            raise UserError(f"an array in the pickle is damaged ({error})") from error


class _Dtype(Record):
    """A numpy dtype: a code such as "f4", then a state that starts (version, byte order)."""

    __slots__ = ()

    def dtype(self) -> np.dtype:
        if self.name not in (
            "f2",
            "f4",
            "f8",
            "i1",
            "i2",
            "i4",
            "i8",
            "u1",
            "u2",
            "u4",
            "u8",
            "b1",
        ):
            raise pickle.UnpicklingError(f"a numpy type {self.name:.20}, which is not a number's")
        big = isinstance(self.state, tuple) and len(self.state) > 1 and self.state[1] == ">"
        return np.dtype((">" if big else "<") + self.name)


def _frombuffer(raw: Any, dtype: _Dtype, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2
    flat = np.frombuffer(raw, dtype.dtype())
    if order == "K":  # numpy's word for any other order of axes
        return flat.reshape(tuple(shape)).transpose(axes)
    return flat.reshape(tuple(shape), order=order)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("an encoding")
    return text.encode("latin1")


def _allowed() -> dict[str, Any]:
    """Full name -> its inert stand-in."""
    table: dict[str, Any] = {
        "collections.OrderedDict": _Dict,
        "dnnlib.util.EasyDict": _Dict,
        "dnnlib.EasyDict": _Dict,
        "numpy.ndarray": "numpy.ndarray",
        "numpy.dtype": _Call(lambda code, *_: _Dtype(str(code))),
        "_codecs.encode": _Call(_encode),
        "copyreg._reconstructor": _Call(lambda cls, *_: cls()),
        "torch._utils._rebuild_tensor": _Call(_tensor),
        "torch._utils._rebuild_tensor_v2": _Call(_tensor),
        "torch._utils._rebuild_parameter": _Call(lambda data, *_: data),
        "torch.storage._load_from_bytes": _Call(_load_from_bytes),
        "torch.Size": _Call(tuple),
        "torch.device": _Call(lambda *_: None),
        "torch_utils.persistence._reconstruct_persistent_obj": _Call(_persistent),
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table[f"{module}._reconstruct"] = _Call(lambda *_: Array("numpy.ndarray"))
        table[f"{module}.scalar"] = _Call(
            lambda dtype, raw: _frombuffer(raw, dtype, (), "C").item()
        )
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        table[f"{module}._frombuffer"] = _Call(_frombuffer)
    for module in ("builtins", "__builtin__"):
        table |= {f"{module}.set": _Call(set), f"{module}.object": object}
    for name in ("intlist", "doublelist", "boollist", "tensorlist"):
        table[f"torch.jit._pickle.build_{name}"] = _Call(list)
    for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool"):
        table[f"torch.{name}"] = name
    return table


ALLOWED = _allowed()
