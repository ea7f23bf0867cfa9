"""Things that take long to make, the last few of which are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Few(Generic[T]):
    """The last few things that were asked for, made when they are first asked for. Of threads that want one at once, one makes it;
    others are not kept waiting."""

    def __init__(self, most: int):
        self.most = most
        self._things: OrderedDict[Hashable, T] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under `key`, else what `make` gives. What it raises passes through, and nothing is kept."""
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
                return self._things[key]
            turn = self._making.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._things:  # made while this thread waited
                    return self._things[key]
            try:
                made = make()
            except BaseException:
                with self._lock:
                    self._making.pop(key, None)
                raise
            with self._lock:
                self._things[key] = made
                self._making.pop(key, None)
                while len(self._things) > self.most:
                    self._things.popitem(last=False)
            return made
