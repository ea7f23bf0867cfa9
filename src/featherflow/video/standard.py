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
    return _bytes_of(sys.stdin, "standard input to read frames from")


def standard_output() -> BinaryIO:
    """What frames are written to for the name `-`.

    Raises:
        InputError: where the process has no standard output, or it is closed.
    """
    return _bytes_of(sys.stdout, "standard output to write frames to")


def _bytes_of(stream: IO[str] | None, what: str) -> BinaryIO:
    raw = getattr(stream, "buffer", None)  # None too where a caller put something else in its place
    if raw is None or raw.closed:
        raise InputError(f"There is no {what}: it is closed.")
    return raw
