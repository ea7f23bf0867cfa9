"""Reading `.t7` files: Lua Torch's binary format, numbers, strings, tables and tensors only. Nothing in a file is run.

An object is a type number (int32) and what follows it, all little-endian:

    0 nil   1 number (float64)   2 string (int32 length, bytes)   5 boolean (int32)
    3 table     index; then the count and as many keys and values
    4 object    index; then version and class name (a string each), and its content
    6, 7, 8     functions, which hold code and are refused

A table or object whose index was met before is that one again, and nothing follows. A tensor's content is its dimensions (int32),
sizes, strides and offset (int64 each), and its storage, an object of its own; a storage's is its length (int64) and numbers. The
content of every other class is a table of its fields; before that of nn.DataParallelTable, from version 2, is a table of GPUs.

Lengths are checked against the bytes that are there before anything is made of them, so a file that lies costs no memory.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field

import numpy as np

from ..errors import FileError, WeightsError

_NIL, _NUMBER, _STRING, _TABLE, _OBJECT, _BOOLEAN = range(6)
_FUNCTIONS = (6, 7, 8)
_DTYPES = {
    "Byte": "<u1", "Char": "<i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Half": "<f2", "Float": "<f4", "Double": "<f8",
}  # fmt: skip
_ARRAY_CLASS = re.compile(r"torch\.(Cuda)?(Byte|Char|Short|Int|Long|Half|Float|Double|)(Tensor|Storage)")
_PARALLEL = "nn.DataParallelTable"
_MOST_DEPTH = 100
_MOST_DIMENSIONS = 32
_MOST_COPIES = 4  # times the file, that its tensors may take: several may stand on one storage


@dataclass
class Torch7Object:
    """An object of a class that is no tensor, e.g. "nn.Sequential"."""

    kind: str
    fields: dict = field(default_factory=dict)


class _Malformed(Exception):
    """Bytes that are no Torch7 file."""


def is_torch7(data: bytes) -> bool:
    """Whether these bytes begin as a file that holds an object or a table."""
    return data[:4] in (b"\x03\0\0\0", b"\x04\0\0\0") and data[4:8] == b"\x01\0\0\0"


def read_torch7(data: bytes, source: str) -> object:
    """The value of a file: None, float or int, str, bool, dict, NumPy array, or `Torch7Object` of such fields.

    Args:
        data: the whole file.
        source: what to call the file in messages.

    Raises:
        FileError: for bytes that are no Torch7 file, or are damaged or cut off.
        WeightsError: for a file that holds functions.
    """
    reader = _Reader(data, source)
    try:
        return reader.value()
    except _Malformed as problem:
        raise FileError(f"{source} is no Torch7 file, or is damaged or truncated: {problem}.") from problem


class _Reader:
    def __init__(self, data: bytes, source: str):
        self.data, self.position, self.source = memoryview(data), 0, source
        self.known: dict[int, object] = {}
        self.depth = self.copied = 0

    def take(self, length: int) -> memoryview:
        left = len(self.data) - self.position
        if not 0 <= length <= left:
            raise _Malformed(f"it claims {length} bytes at byte {self.position} and {left} are left")
        self.position += length
        return self.data[self.position - length : self.position]

    def int32(self) -> int:
        return struct.unpack("<i", self.take(4))[0]

    def int64s(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}q", self.take(8 * count))

    def text(self) -> str:
        return bytes(self.take(self.int32())).decode("latin-1")

    def value(self) -> object:
        kind = self.int32()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            number = struct.unpack("<d", self.take(8))[0]
            return int(number) if number.is_integer() else number
        if kind == _STRING:
            return self.text()
        if kind == _BOOLEAN:
            return self.int32() != 0
        if kind in _FUNCTIONS:
            raise WeightsError(f"{self.source} holds functions beside its weights and was refused: nothing in a file is run.")
        if kind not in (_TABLE, _OBJECT):
            raise _Malformed(f"type {kind} at byte {self.position - 4} does not exist")
        index = self.int32()
        if index in self.known:
            return self.known[index]
        self.depth += 1
        if self.depth > _MOST_DEPTH:
            raise _Malformed(f"it is nested more than {_MOST_DEPTH} deep")
        result = self.table(index) if kind == _TABLE else self.object(index)
        self.depth -= 1
        return result

    def table(self, index: int) -> dict:
        table: dict = {}
        self.known[index] = table  # before its entries, which may point back to it
        count = self.int32()
        if not 0 <= count <= (len(self.data) - self.position) // 8:  # the least that a key and a value take
            raise _Malformed(f"a table claims {count} entries at byte {self.position}")
        for _ in range(count):
            key = self.value()
            if not isinstance(key, bool | int | float | str):
                raise _Malformed("a key of a table is neither number nor text")
            table[key] = self.value()
        return table

    def object(self, index: int) -> object:
        version = self.text()
        name = self.text() if re.fullmatch(r"V \d+", version) else version  # old files have no version
        if array := _ARRAY_CLASS.fullmatch(name):
            # A Cuda class without a type of its own holds float32.
            dtype = np.dtype(_DTYPES[array[2] or "Float"])
            if not (array[1] or array[2]):
                raise _Malformed(f"the class {name} does not exist")
            self.known[index] = result = self.storage(dtype) if array[3] == "Storage" else self.tensor(dtype)
            return result
        if not name.isprintable() or len(name) > 200:
            raise _Malformed("the name of a class is no name")
        result = self.known[index] = Torch7Object(name)
        if name == _PARALLEL and version not in (name, "V 0", "V 1"):
            self.value()
        content = self.value()
        if not isinstance(content, dict):
            raise _Malformed(f"an object of class {name} has no fields")
        result.fields = content
        return result

    def storage(self, dtype: np.dtype) -> np.ndarray:
        (length,) = self.int64s(1)
        data = self.take(length * dtype.itemsize)
        return np.frombuffer(data, dtype) if length else np.empty(0, dtype)

    def tensor(self, dtype: np.dtype) -> np.ndarray:
        dimensions = self.int32()
        if not 0 <= dimensions <= _MOST_DIMENSIONS:
            raise _Malformed(f"a tensor has {dimensions} dimensions")
        sizes, strides = self.int64s(dimensions), self.int64s(dimensions)
        (offset,) = self.int64s(1)  # counted from 1
        storage = self.value()
        if storage is None or dimensions == 0:
            return np.empty(0, dtype)
        if not isinstance(storage, np.ndarray) or storage.ndim != 1 or storage.dtype != dtype:
            raise _Malformed("a tensor has no storage of its type")
        if min(sizes) < 0 or min(strides) < 0 or offset < 1:
            raise _Malformed(f"a tensor has sizes {sizes}, strides {strides} and offset {offset}")
        if math.prod(sizes) == 0:
            return np.empty(0, dtype)  # NumPy makes no array whose other sides are longer than memory
        last = offset - 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if last >= len(storage) or math.prod(sizes) > len(storage):
            raise _Malformed(f"a tensor of sizes {sizes} reaches beyond its {len(storage)} numbers")
        self.copied += math.prod(sizes) * dtype.itemsize
        if self.copied > _MOST_COPIES * len(self.data):
            raise _Malformed(f"its tensors take more than {_MOST_COPIES} times its own size")
        # Along a side of one number nothing is stepped, so that any stride may stand there, even one that no machine can hold.
        strides = tuple(stride * dtype.itemsize if size > 1 else 0 for size, stride in zip(sizes, strides, strict=True))
        return np.lib.stride_tricks.as_strided(storage[offset - 1 :], sizes, strides).copy()


# ------------------------------------------------------------------------------------------------ networks


def convolutions(value: object, source: str, met: set[int] | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight `(out, in, h, w)` and bias `(out,)` of the convolutions of a chain, first to last.

    Takes nested `nn.Sequential` of convolutions (of nn or cudnn, also those whose weight is a matrix) and ReLUs; of copies in an
    `nn.DataParallelTable` the first.

    Raises:
        WeightsError: for any other layer, a convolution without proper weight and bias, or a chain that stands in several places:
            chains of references to chains could stand for more layers than there are bytes in the world.
    """
    met = set() if met is None else met
    if not isinstance(value, Torch7Object):
        raise WeightsError(f"{source} holds no network.")
    kind = value.kind.rpartition(".")[2]
    if kind in ("Sequential", "DataParallelTable"):
        if id(value) in met:
            raise WeightsError(f"{source} holds a chain of layers that stands in several places.")
        met.add(id(value))
        modules = value.fields.get("modules")
        if not isinstance(modules, dict):
            raise WeightsError(f"{source} holds a chain of layers without layers.")
        if kind == "DataParallelTable":
            modules = {1: modules.get(1)}
        if sorted(map(repr, modules)) != sorted(map(repr, range(1, len(modules) + 1))):
            raise WeightsError(f"{source} holds a chain whose layers are not numbered 1 to {len(modules)}.")
        return [pair for position in range(1, len(modules) + 1) for pair in convolutions(modules[position], source, met)]
    if kind == "ReLU":
        return []
    if kind not in ("SpatialConvolution", "SpatialConvolutionMM"):
        raise WeightsError(f"{source} holds a layer {value.kind}; a chain of convolutions and ReLUs was expected.")
    weight, bias = value.fields.get("weight"), value.fields.get("bias")
    if not isinstance(weight, np.ndarray) or not isinstance(bias, np.ndarray) or weight.dtype.kind != "f":
        raise WeightsError(f"{source} holds a convolution without weight or bias.")
    if weight.ndim == 2:
        given = [value.fields.get(key) for key in ("nOutputPlane", "nInputPlane", "kH", "kW")]
        shape = [side for side in given if isinstance(side, int) and side > 0]
        if len(shape) < len(given) or math.prod(shape) != weight.size:
            numbers = [side if isinstance(side, int) else "?" for side in given]  # tables that hold one another print without end
            raise WeightsError(f"{source} holds a convolution whose weight does not fit its numbers {numbers}.")
        weight = weight.reshape(shape)
    if weight.ndim != 4 or bias.shape != weight.shape[:1]:
        raise WeightsError(f"{source} holds a convolution with a weight of shape {weight.shape} and a bias of {bias.shape}.")
    return [(weight.astype(np.float32), bias.astype(np.float32))]
