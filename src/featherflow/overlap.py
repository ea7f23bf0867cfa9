"""Reading, computing and writing at the same time, in bounded memory: what comes first and last runs in threads of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_END = object()


def ahead(items: Iterable, most: int = 2) -> Iterator:
    """The same items, fetched by a thread of their own, at most so many ahead. What fetching raises is raised in its place."""
    iterator = iter(items)
    worker = ThreadPoolExecutor(1, "ahead")
    try:
        waiting = deque(worker.submit(next, iterator, _END) for _ in range(most))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(worker.submit(next, iterator, _END))
            yield item
    finally:
        worker.shutdown(wait=False, cancel_futures=True)


@contextmanager
def behind(work: Callable, most: int = 2) -> Iterator[Callable]:
    """A function that leaves `work` to a thread of its own, in order, and waits only while more than `most` calls are due.

    All calls are done when the block ends. What a call raises is raised by a later one, or at the end of the block, and those that
    are due by then are not begun.
    """
    worker = ThreadPoolExecutor(1, "behind")
    waiting: deque = deque()
    failed = False

    def step(*arguments) -> None:
        nonlocal failed
        if failed:
            return
        try:
            work(*arguments)
        except BaseException:
            failed = True
            raise

    def hand_over(*arguments) -> None:
        waiting.append(worker.submit(step, *arguments))
        while len(waiting) > most:
            waiting.popleft().result()

    try:
        yield hand_over
        while waiting:
            waiting.popleft().result()
    finally:
        worker.shutdown(wait=True, cancel_futures=True)
