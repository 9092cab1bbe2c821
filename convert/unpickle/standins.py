"""Stand-ins for the names in pickles: functions that rebuild arrays and record the state of objects.

Their arguments are a stranger's. Nothing here imports, looks up or calls anything by a name from a file,
and nothing allocates memory by a number from a file.
"""

import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

_BY_KIND = {
    "Float": "<f4", "Half": "<f2", "Double": "<f8", "BFloat16": ml_dtypes.bfloat16,
    "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "<i1", "Byte": "<u1", "Bool": "|b1",
}  # fmt: skip
# Full names of PyTorch's classes of memory -> what an element is.
STORAGES = {
    f"{module}.{kind}Storage": np.dtype(dtype)
    for module in ("torch", "torch.storage")
    for kind, dtype in _BY_KIND.items()
}
NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")  # numpy's codes


class Record:
    """An object whose class is not imported: the name of the class, and the stored state.

    Attributes:
      name: full name of the class.
      state: as stored, mostly a dictionary.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str, state: Any = None):
        self.name, self.state = name, state


class Storage:
    """Flat memory that tensors share.

    Args:
      kind: one of `STORAGES`.
      buffer: its bytes.
    """

    __slots__ = ("array",)

    def __init__(self, kind: str, buffer: Any):
        self.array = np.frombuffer(buffer, STORAGES[kind])

    def fill(self, buffer: Any, count: int) -> None:
        """Takes `count` elements from the front of a buffer; ValueError where it is too short."""
        self.array = np.frombuffer(buffer, self.array.dtype, count) if count else self.array[:0]


class Array(Record):
    """A numpy array: made empty, then given its state (version, shape, dtype, order, bytes)."""

    __slots__ = ()

    def array(self) -> np.ndarray:
        """The array; an exception of any kind where its state does not fit together."""
        _, shape, dtype, fortran, raw = self.state
        return from_buffer(raw, dtype, shape, "F" if fortran else "C")


class Dtype(Record):
    """A numpy dtype: a code such as "f4", then given a state that starts (version, byte order)."""

    __slots__ = ()

    def dtype(self) -> np.dtype:
        """The dtype; UnpicklingError where it is not of numbers."""
        if self.name not in NUMBERS:
            raise pickle.UnpicklingError("a numpy type that is not a number's")
        big = isinstance(self.state, tuple) and self.state[1:2] == (">",)
        return np.dtype((">" if big else "<") + self.name)


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A view of a storage; UnpicklingError where it reaches beyond it."""
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple:
        raise pickle.UnpicklingError("a tensor of something else than a storage")
    if len(size) != len(stride) or len(size) > 8:  # no published tensor has more axes
        raise pickle.UnpicklingError("a tensor of impossible shape")
    flat = storage.array
    # `as_strided` checks nothing: every number is compared with the memory that there is.
    whole = all(type(n) is int and 0 <= n <= flat.size for n in (offset, *size))
    if not whole or not all(type(n) is int and 0 <= n <= 2**40 for n in stride):
        raise pickle.UnpicklingError("a tensor beyond its storage")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count == 0:
        return np.zeros(size, flat.dtype)
    if count > flat.size or last >= flat.size:
        raise pickle.UnpicklingError("a tensor beyond its storage")
    steps = [step * flat.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False)


def from_buffer(raw: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    """numpy's `_frombuffer`; an exception of any kind where the bytes do not fit the shape."""
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2
    flat = np.frombuffer(raw, dtype.dtype())
    if order == "K":  # numpy's word for any other order of axes
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def persistent(meta: Mapping[str, Any]) -> Record:
    """NVIDIA's `torch_utils.persistence`: the source code beside the state is ignored."""
    name, state = meta["class_name"], meta["state"]
    if type(name) is not str or type(state) is not dict:
        raise pickle.UnpicklingError("a persistent object without a name or a state")
    return Record(name, state)


def encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, which protocol 2 stores as text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("an encoding")
    return text.encode("latin1")


def dictionary(pairs: Any = ()) -> dict[Any, Any]:
    """An ordered or an "easy" dictionary; later opcodes fill it."""
    if pairs:
        raise pickle.UnpicklingError("a dictionary made of pairs")
    return {}


def items(values: Any = ()) -> list[Any]:
    """A list, and a set as well: nothing reads the sets in these files, and hashing could be slow."""
    return list(values)


def _table() -> dict[str, Callable[..., Any]]:
    table = {
        "collections.OrderedDict": dictionary,
        "dnnlib.util.EasyDict": dictionary,
        "dnnlib.EasyDict": dictionary,
        "numpy.ndarray": lambda *_: Array("numpy.ndarray"),
        "numpy.dtype": lambda code, *_: Dtype(code if type(code) is str else ""),
        "_codecs.encode": encode,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
        "torch.Size": items,
        "torch.device": lambda *_: None,
        "torch_utils.persistence._reconstruct_persistent_obj": persistent,
        # TorchScript annotates lists and tables with their types.
        "torch.jit._pickle.restore_type_tag": lambda value, *_: value,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table[f"{module}._reconstruct"] = lambda *_: Array("numpy.ndarray")
        table[f"{module}.scalar"] = lambda dtype, raw: from_buffer(raw, dtype, (), "C").item()
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        table[f"{module}._frombuffer"] = from_buffer
    for module in ("builtins", "__builtin__"):
        table[f"{module}.set"] = items
    for kind in ("int", "double", "bool", "tensor"):
        table[f"torch.jit._pickle.build_{kind}list"] = items
    types = ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool")
    return table | {f"torch.{kind}": lambda *_: None for kind in types}


TABLE = _table()
