"""Reading `.caffemodel` files: a protobuf message `NetParameter`, taken apart by hand.

Only the fields that carry weights are read (field numbers: `caffe.proto` of the LiteFlowNet release):

    NetParameter      100 layer (new), 2 layers (legacy)
    LayerParameter      1 name, 2 type (text), 7 blobs
    V1LayerParameter    4 name, 5 type (number), 6 blobs
    BlobProto           7 shape, 5 data (float), 8 double_data, 1-4 num, channels, height, width (legacy shape)
    BlobShape           1 dim

Everything else is skipped by its wire type. Lengths are checked against the bytes that are there before anything is made of
them, so a file that lies costs no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import FileError

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)
_NEW_LAYER, _LEGACY_LAYER = 100, 2
_LEGACY_TYPES = {4: "Convolution", 39: "Deconvolution"}
_MOST_NESTED_GROUPS = 32
_MOST_DIMENSIONS = 32


@dataclass(frozen=True)
class CaffeLayer:
    """A layer that has a name; `blobs` are float32 arrays of the shapes in the file, most often weight and bias."""

    name: str
    type: str
    blobs: tuple[np.ndarray, ...]


class _Malformed(Exception):
    """Bytes that are no protobuf message. `rest` holds what is there of a field that was cut off."""

    def __init__(self, reason: str, field: int = 0, rest: memoryview | None = None):
        super().__init__(reason)
        self.field, self.rest = field, rest


def read_caffemodel(data: bytes, source: str) -> dict[str, CaffeLayer]:
    """Layers by name, in file order; of two entries with one name the one with blobs.

    Args:
        data: the whole file.
        source: what to call the file in messages.

    Raises:
        FileError: for bytes that are no `NetParameter`, naming the first layer that is damaged or cut off.
    """
    layers: dict[str, CaffeLayer] = {}
    count = 0
    try:
        for field, wire, _, value in _fields(memoryview(data)):
            if field in (_NEW_LAYER, _LEGACY_LAYER) and wire == _BYTES:
                count += 1
                layer = _layer(value, field == _LEGACY_LAYER, count, source)
                known = layers.get(layer.name)
                if known is None or not known.blobs:
                    layers[layer.name] = layer
                elif layer.blobs and not _equal(layer, known):
                    raise FileError(f"Layer '{layer.name}' stands twice in {source}, with different weights.")
    except _Malformed as problem:
        name = ""
        if problem.field in (_NEW_LAYER, _LEGACY_LAYER) and problem.rest is not None:
            name = _name(problem.rest, problem.field == _LEGACY_LAYER)
        if not layers and not name:
            raise FileError(f"{source} is not a Caffe model: {problem}.") from problem
        where = f"in layer '{name}'" if name else f"after layer {count}"
        raise FileError(f"{source} is damaged {where}: {problem}; download it again.") from problem
    if not layers:
        raise FileError(f"{source} is not a Caffe model: it holds no layers.")
    return layers


def _equal(a: CaffeLayer, b: CaffeLayer) -> bool:
    return len(a.blobs) == len(b.blobs) and all(map(np.array_equal, a.blobs, b.blobs))


def _layer(message: memoryview, legacy: bool, position: int, source: str) -> CaffeLayer:
    name_field, type_field, blobs_field = (4, 5, 6) if legacy else (1, 2, 7)
    name, kind, blobs = "", "", []
    try:
        for field, wire, number, value in _fields(message):
            if field == name_field and wire == _BYTES:
                name = _text(value)
            elif field == type_field and wire == _BYTES:
                kind = _text(value)
            elif field == type_field and wire == _VARINT:
                kind = _LEGACY_TYPES.get(number, f"V1 type {number}")
            elif field == blobs_field and wire == _BYTES:
                blobs.append(_blob(value))
    except _Malformed as problem:
        name = name or _name(message, legacy)
        if not name and position == 1:
            raise FileError(f"{source} is not a Caffe model: {problem}.") from problem
        called = f"'{name}'" if name else f"number {position}"
        raise FileError(f"{source} is damaged in layer {called}: {problem}.") from problem
    return CaffeLayer(name or f"layer {position}", kind, tuple(blobs))


def _name(message: memoryview, legacy: bool) -> str:
    """Name of a layer whose message may be cut off or damaged, or an empty string."""
    try:
        for field, wire, _, value in _fields(message):
            if field == (4 if legacy else 1) and wire == _BYTES:
                return _text(value)
    except _Malformed:
        pass
    return ""


def _blob(message: memoryview) -> np.ndarray:
    """One array. The data precede the shape in the file, so fields are collected first."""
    shape: list[int] | None = None
    legacy: dict[int, int] = {}
    data = {5: bytearray(), 8: bytearray()}
    for field, wire, number, value in _fields(message):
        if field in data and wire in (_BYTES, _FIXED32 if field == 5 else _FIXED64):
            data[field] += value
        elif field == 7 and wire == _BYTES:
            shape = _shape(value)
        elif field in (1, 2, 3, 4) and wire == _VARINT:
            legacy[field] = _signed(number)
    packed, dtype = (data[8], np.dtype("<f8")) if data[8] else (data[5], np.dtype("<f4"))
    count, odd = divmod(len(packed), dtype.itemsize)
    if odd:
        raise _Malformed(f"a blob's data end within a number ({len(packed)} bytes)")
    if shape is None:
        shape = [legacy.get(field, 1) for field in (1, 2, 3, 4)] if legacy else [count]
    if min(shape, default=0) < 0 or math.prod(shape) != count:
        raise _Malformed(f"a blob of shape {_short(shape)} has {count} values")
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, which the importer refuses
        return np.frombuffer(packed, dtype).astype(np.float32).reshape(shape)


def _shape(message: memoryview) -> list[int]:
    dimensions: list[int] = []
    for field, wire, number, value in _fields(message):
        if field == 1 and wire == _VARINT:
            dimensions.append(_signed(number))
        elif field == 1 and wire == _BYTES:
            position = 0
            while position < len(value):
                dimension, position = _varint(value, position)
                dimensions.append(_signed(dimension))
        if len(dimensions) > _MOST_DIMENSIONS:
            raise _Malformed(f"a blob has more than {_MOST_DIMENSIONS} dimensions")
    return dimensions


def _short(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _text(value: memoryview) -> str:
    try:
        text = bytes(value).decode()
    except UnicodeDecodeError as error:
        raise _Malformed("a name is not text") from error
    if not text.isprintable():
        raise _Malformed("a name is not text")
    return text


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if position >= len(data):
            raise _Malformed("it ends within a number")
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number & (1 << 64) - 1, position
        if shift >= 70:
            raise _Malformed("a number is longer than 10 bytes")


def _fields(message: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """Field number, wire type and value of each field: the number of a varint, else 0; and the slice of `message` that holds any
    other value, empty for a varint."""
    position, end = 0, len(message)
    groups: list[int] = []
    while position < end:
        tag, position = _varint(message, position)
        field, wire = tag >> 3, tag & 7
        if field == 0 or field >= 1 << 29:
            raise _Malformed(f"field number {field} does not exist")
        number, value = 0, message[:0]
        if wire == _VARINT:
            number, position = _varint(message, position)
        elif wire in (_BYTES, _FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
            if wire == _BYTES:
                length, position = _varint(message, position)
            if length > end - position:
                rest = message[position:]
                raise _Malformed(f"a field claims {length} bytes and {end - position} are left", field, rest)
            value, position = message[position : position + length], position + length
        elif wire == _GROUP and len(groups) < _MOST_NESTED_GROUPS:
            groups.append(field)
            continue
        elif wire == _END_GROUP and groups and groups.pop() == field:
            continue
        else:
            raise _Malformed(f"field {field} has wire type {wire}, which cannot stand here")
        if not groups:
            yield field, wire, number, value
    if groups:
        raise _Malformed("it ends within a group")
