"""Memory that the next pair of frames needs again."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt, from its malloc.h
_KEPT = 512 << 20  # bytes at the end of the heap
_LARGEST = 32 << 20  # bytes; glibc itself goes up to this by and by


def keep_freed_memory() -> None:
    """Let the C library keep what this process frees, up to 512 MiB, where it would give it to the system and ask for it anew.

    The system hands every page out empty, which takes a tenth of the time of a pair. For programs, before they compute: a library
    leaves it to the program that it is part of. Where an environment variable tells glibc what to do, and with other C libraries,
    all stays as it is.
    """
    told = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if told or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
