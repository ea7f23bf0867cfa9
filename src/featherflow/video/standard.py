"""Standard input and output as streams of bytes, where a process has them."""

from __future__ import annotations

import sys
from typing import IO, BinaryIO

from ..errors import InputError


def standard_input() -> BinaryIO:
    """What frames are read from for the name `-`.

    Raises:
        InputError: where the process has no standard input, or it is closed.
    """
    if (raw := _bytes_of(sys.stdin)) is None:
        raise InputError("There is no standard input to read frames from: it is closed.")
    return raw


class CountedInput:
    """What is read, and how many bytes that were."""

    def __init__(self, file: BinaryIO):
        self._file, self.count = file, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data


def standard_output() -> BinaryIO:
    """What frames are written to for the name `-`.

    Raises:
        InputError: where the process has no standard output, or it is closed.
    """
    if (raw := _bytes_of(sys.stdout)) is None:
        raise InputError("There is no standard output to write frames to: it is closed.")
    return raw


def _bytes_of(stream: IO[str] | None) -> BinaryIO | None:
    raw = getattr(stream, "buffer", None)  # None too where a caller put something else in its place
    return None if raw is None or raw.closed else raw
