"""How long work by an estimator takes, and apart from it what had to be made ready before."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SHOWN = 0.005  # s; what took less is not worth a word


class _OfThread(threading.local):
    #: What this thread has spent on making engines ready [s].
    building = 0.0


_spent = _OfThread()


@dataclass(frozen=True)
class Times:
    """What a piece of work took, in seconds to 0.1 ms."""

    #: Reading the weights and making the network.
    load_seconds: float
    #: Making engines ready: building them, or loading those that were built, and comparing them with PyTorch; compiling.
    build_seconds: float
    #: All else.
    seconds: float


class Stopwatch:
    """Times the work that this thread does with an estimator, from now on.

    Args:
        load_seconds: what was spent before on making the estimator.
    """

    def __init__(self, load_seconds: float = 0.0):
        self._load, self._began, self._built = load_seconds, time.perf_counter(), _spent.building

    def read(self) -> Times:
        """The times until now. To be called by the thread that made the stopwatch."""
        built = _spent.building - self._built
        return Times(round(self._load, 4), round(built, 4), round(time.perf_counter() - self._began - built, 4))


@contextmanager
def making_ready() -> Iterator[None]:
    """What this thread does in the block is counted as making an engine ready."""
    began = time.perf_counter()
    try:
        yield
    finally:
        _spent.building += time.perf_counter() - began


def said_before(load_seconds: float, build_seconds: float) -> str:
    """What came before the work, for people: "loaded in 0.31 s, engine ready in 4.10 s, ", or nothing."""
    times = (("loaded", load_seconds), ("engine ready", build_seconds))
    return "".join(f"{what} in {seconds:.2f} s, " for what, seconds in times if seconds >= _SHOWN)
