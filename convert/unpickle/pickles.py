"""Reads pickles (of NVIDIA's StyleGAN2 releases, and within PyTorch's archives) without running them.

A pickle is a program that names functions and classes and calls them. Here a name stays a name: a call
looks it up in `standins`, a table of functions that rebuild arrays or record the state of an object, and a
name outside the table ends the reading. Source code in a pickle (NVIDIA's "persistent" classes carry
theirs) stays a string.
"""

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from struct import unpack
from typing import Any, BinaryIO

from convert.unpickle import standins
from convert.unpickle.standins import Record, Storage
from nada_jax.errors import UserError

SLACK = 2**20  # bytes that calls may use beyond twice the file
NETWORK = "dnnlib.tflib.network.Network"
OpenStorage = Callable[..., Storage]  # of the kind, key, device and count of a persistent id


def read_pickle(path: Path) -> Any:
    """Reads a pickle of a StyleGAN2 release, PyTorch's or TensorFlow's.

    Args:
      path: the file.

    Returns:
      What it holds: dictionaries (of any kind), lists, tuples, plain values, numpy arrays and `Record`s.

    Raises:
      UserError: the pickle is cut short, damaged, or names something outside of the table.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        return _run(_Unpickler(_Bounded(file, size), size), path)


def read_archive(data: bytes, open_storage: OpenStorage, path: Path, records: str) -> Any:
    """Reads the pickle of objects in an archive of PyTorch.

    Args:
      data: the pickle.
      open_storage: gives a storage.
      path: the archive, for messages.
      records: see `_Unpickler`.

    Returns:
      See `read_pickle`.

    Raises:
      UserError: the pickle is damaged, or names something outside of the table.
    """
    unpickler = _Unpickler(io.BytesIO(data), len(data), records)
    unpickler.open_storage = open_storage
    return _run(unpickler, path)


def scan(file: BinaryIO, size: int) -> None:
    """Goes through a pickle that another reader will take, whatever it names.

    Args:
      file: at the start of the pickle, and afterwards at its end.
      size: of the file in bytes.

    Raises:
      Exception: of any kind; a table has a key that is neither a number, a text nor a class, or the pickle
        is damaged.
    """
    _Scanner(_Bounded(file, size), size).load()


def _run(unpickler: "_Unpickler", path: Path) -> Any:
    try:
        return unpickler.load()
    except UserError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except MemoryError:
        raise  # `reading` reports it: the file may be whole
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


class _Name(str):
    """A function or class that a pickle names."""

    __slots__ = ()


# The standard library's interpreter in Python, not the one in C: opcodes can be removed from it, and its
# memory grows with the content of the file, not with what the file claims.
class _Unpickler(pickle._Unpickler):
    """Interprets a pickle with the names of `standins` alone.

    Args:
      file: the pickle.
      size: of the file in bytes; what calls may use follows from it.
      records: classes whose objects become `Record`s: their name, or how it starts if it ends in ".".
      names: what a call gives, by full name.
    """

    dispatch = dict(pickle._Unpickler.dispatch)
    for _opcode in (
        "EXT1",
        "EXT2",
        "EXT4",
        "INST",
        "OBJ",
        "PERSID",
    ):  # published files have none of them
        del dispatch[getattr(pickle, _opcode)[0]]
    open_storage: OpenStorage | None = None

    def __init__(self, file: Any, size: int, records: str = NETWORK, names: Any = None):
        super().__init__(
            file, encoding="latin1"
        )  # of Python 2, in which TensorFlow's files were made
        self._left, self._records, self._opened = 2 * size + SLACK, records, {}
        self._names = NAMES if names is None else names

    def find_class(self, module: str, name: str) -> _Name:
        full = _Name(f"{module}.{name}")
        if full not in self._names and full not in standins.STORAGES and not self._is_record(full):
            raise UserError(
                f"it asks for {full:.80}, and only tensors and plain values are read, since anything "
                "else could run code"
            )
        return full

    def _is_record(self, full: str) -> bool:
        if self._records.endswith("."):
            return full.startswith(self._records)
        return full == self._records or full.startswith("torch.nn.modules.")

    def persistent_load(self, pid: Any) -> Storage | None:
        kind, storage, key, *rest = pid
        named = type(storage) is _Name and storage in standins.STORAGES
        if self.open_storage is None or kind != "storage" or not named or type(key) is not str:
            raise pickle.UnpicklingError("a persistent id")
        if key not in self._opened:
            self._opened[key] = self.open_storage(storage, key, *rest)
        return self._opened[key]

    def _call(self, name: Any, args: Any) -> Any:
        if type(name) is not _Name or type(args) is not tuple:
            raise pickle.UnpicklingError("a call of something that is no name")
        # A call may copy its arguments, and 64 bytes are about the smallest object.
        self._left -= 64 + sum(sys.getsizeof(arg) for arg in args)
        if self._left < 0:
            raise pickle.UnpicklingError("more calls than a file of this size needs")
        return Record(str(name)) if self._is_record(name) else self._names[name](*args)

    def _store(self, target: Any, items: list[Any]) -> None:
        """Alternating keys and values into a dictionary."""
        _check_keys(items[::2], target, dict)
        target.update(zip(items[::2], items[1::2], strict=True))

    # The opcodes that reach beyond numbers, texts, lists and tuples, each by its name in `pickle`.

    def _reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _newobj_ex(self) -> None:
        if self.stack.pop() != {}:
            raise pickle.UnpicklingError("a call with named arguments")
        self._reduce()

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state
        elif type(self.stack[-1]) is not dict:  # attributes of an ordered dictionary are left out
            raise pickle.UnpicklingError("a state of something that has none")

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._store(self.stack[-1], [key, value])

    def _setitems(self) -> None:
        items = self.pop_mark()
        self._store(self.stack[-1], items)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._store(self.stack[-1], items)

    def _additems(self) -> None:
        items = self.pop_mark()
        _check_keys(items, self.stack[-1], set)
        self.stack[-1].update(items)

    def _frozenset(self) -> None:
        items = self.pop_mark()
        _check_keys(items)
        self.append(frozenset(items))

    def _bytearray8(self) -> None:
        (size,) = unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch |= {
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _newobj_ex,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: _setitems,
        pickle.DICT[0]: _dict,
        pickle.ADDITEMS[0]: _additems,
        pickle.FROZENSET[0]: _frozenset,
        pickle.BYTEARRAY8[0]: _bytearray8,
    }


class _Scanner(_Unpickler):
    """Takes every name, and calls nothing."""

    def _is_record(self, full: str) -> bool:
        return True

    def persistent_load(self, pid: Any) -> None:
        return None

    def _store(self, target: Any, items: list[Any]) -> None:
        # Lightning has classes for keys; a name hashes like a text.
        _check_keys([key for key in items[::2] if type(key) is not _Name])


def _check_keys(keys: list[Any], target: Any = None, kind: type | None = None) -> None:
    """Raises UnpicklingError for keys other than numbers and texts, and for targets of another kind."""
    if kind is not None and type(target) is not kind:
        raise pickle.UnpicklingError("items of something that holds none")
    # Hashing nested tuples, each of which holds the next one twice, takes time without end.
    for key in keys:
        if type(key) not in (str, bytes, int, bool, float, type(None)):
            raise pickle.UnpicklingError("a key that is neither a number nor a text")


def load_from_bytes(data: Any) -> Storage:
    """A storage that was saved on its own, in PyTorch's old format: pickles, then the memory.

    It names storages alone, so it cannot hold another one.
    """
    opened: dict[str, Storage] = {}

    def open_storage(kind: str, key: Any, device: Any, count: Any, *view: Any) -> Storage:
        if any(view):
            raise pickle.UnpicklingError("a view of a storage")
        opened[key] = Storage(kind, b"")
        return opened[key]

    file, unpickled = io.BytesIO(data), []
    # Magic number, protocol, system; then the object, and the keys of all storages.
    for _ in range(5):
        unpickler = _Unpickler(file, len(data), names={})
        unpickler.open_storage = open_storage
        unpickled.append(unpickler.load())
    storage, keys = unpickled[3:]
    _check_keys(keys)
    for key in keys:
        (count,) = unpack("<q", file.read(8))
        opened[key].fill(memoryview(data)[file.tell() :], count)
        file.seek(opened[key].array.nbytes, io.SEEK_CUR)
    if type(storage) is not Storage:
        raise pickle.UnpicklingError("no storage")
    return storage


NAMES = standins.TABLE | {"torch.storage._load_from_bytes": load_from_bytes}
