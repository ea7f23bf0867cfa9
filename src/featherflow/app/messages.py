"""What the service and its worker processes say to each other over pipes: JSON and arrays of numbers, nothing that runs."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

_LENGTH = struct.Struct("<I")
_KINDS = "biuf"
_MOST_BYTES = 1 << 32  # of one array


def send(file: IO[bytes], content: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Write one message."""
    arrays = [np.ascontiguousarray(array) for array in arrays]
    head = json.dumps({"content": content, "arrays": [[array.dtype.str, list(array.shape)] for array in arrays]}).encode()
    file.write(_LENGTH.pack(len(head)) + head)
    for array in arrays:
        if array.size:
            file.write(array.data.cast("B"))
    file.flush()


def receive(file: io.BufferedReader) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read one message.

    Raises:
        EOFError: when the other side is gone. ValueError: for what is no message.
    """
    (length,) = _LENGTH.unpack(_read(file, _LENGTH.size))
    head = json.loads(_read(file, length))
    arrays = []
    for kind, shape in head["arrays"]:
        dtype = np.dtype(kind)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in _KINDS or not 0 <= size <= _MOST_BYTES:
            raise ValueError("an array of a kind that is not sent")
        arrays.append(np.frombuffer(_read(file, size), dtype).reshape(shape) if size else np.empty(shape, dtype))
    return head["content"], arrays


def _read(file: io.BufferedReader, length: int) -> bytearray:
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        count = file.readinto(view[done:])
        if not count:
            raise EOFError
        done += count
    return data
