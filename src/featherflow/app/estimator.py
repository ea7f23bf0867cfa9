"""Pairs wait in one queue; one thread estimates them, pairs of one size and one kind together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from ..inference.estimator import kept_estimator
from .settings import Settings


class BusyError(Exception):
    """The queue is full."""


@dataclass(frozen=True)
class Options:
    """What is asked for, beside the frames; see `featherflow.estimate`."""

    model: str
    backward: bool = False
    refine: int = 0
    iterations: int | None = None
    enlarge: float | None = None


@dataclass(frozen=True)
class Estimate:
    """Flow `(H, W, 2)` float32 [px], the backward flow if it was asked for, and the pair's share of the time [s]."""

    flow: np.ndarray
    backward: np.ndarray | None
    seconds: float


@dataclass(eq=False)
class _Job:
    options: Options
    frame1: np.ndarray
    frame2: np.ndarray
    result: Future = field(default_factory=Future)

    @property
    def kind(self) -> tuple[Options, tuple[int, ...]]:
        return self.options, self.frame1.shape

    @property
    def pixels(self) -> int:
        return self.frame1.shape[0] * self.frame1.shape[1]


class Estimator:
    """The queue and its thread.

    Jobs leave the queue in the order in which they came, except that a job takes those of its own kind with it: up to
    `batch` pairs, and no more pixels together than one pair may have. A batch that fails is tried again pair by pair.
    """

    def __init__(self, settings: Settings, observe: Callable[[Options, int, float], None] = lambda *_: None):
        """`observe` is told of each batch: its options, pairs and seconds."""
        self._settings = settings
        self._observe = observe
        self._batch = settings.batch or (8 if _on_gpu(settings.device) else 1)
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="featherflow-estimator", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Pairs in the queue."""
        with self._changed:
            self._drop_cancelled()
            return len(self._jobs)

    @property
    def full(self) -> bool:
        return self.waiting >= self._settings.queue

    def submit(self, options: Options, frame1: np.ndarray, frame2: np.ndarray) -> Future:
        """Put a pair, `(H, W, 3)` uint8 RGB each, in the queue. The future gives an `Estimate`; cancelling it removes the job.

        Raises:
            BusyError: when as many pairs wait as may, or when they hold 16 times the pixels of the largest frame.
        """
        job = _Job(options, frame1, frame2)
        with self._changed:
            self._drop_cancelled()
            held = sum(other.pixels for other in self._jobs)
            full = len(self._jobs) >= self._settings.queue
            if full or self._closed or (self._jobs and held + job.pixels > 16 * self._settings.max_pixels):
                raise BusyError
            self._jobs.append(job)
            self._changed.notify()
        return job.result

    def close(self) -> None:
        """Finish what is in the queue, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop_cancelled(self) -> None:
        # Not by a callback of the future: job and future would hold each other, and their frames, until the garbage collection.
        for job in [job for job in self._jobs if job.result.cancelled()]:
            self._jobs.remove(job)

    def _run(self) -> None:
        while batch := self._next():
            self._estimate(batch)
            del batch  # an idle service holds no frames

    def _next(self) -> list[_Job]:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            batch: list[_Job] = []
            for job in list(self._jobs):
                most = min(self._batch, max(self._settings.max_pixels // job.pixels, 1))
                if not batch or (job.kind == batch[0].kind and len(batch) < most):
                    self._jobs.remove(job)
                    batch.append(job)
            return batch

    def _estimate(self, batch: list[_Job]) -> None:
        batch = [job for job in batch if job.result.running() or job.result.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            started = time.perf_counter()
            flows, backwards = self._flows(batch)
            seconds = time.perf_counter() - started
        except Exception as error:
            if len(batch) == 1:
                batch[0].result.set_exception(error)
            else:
                for job in batch:
                    self._estimate([job])
            return
        self._observe(batch[0].options, len(batch), seconds)
        for job, flow, backward in zip(batch, flows, backwards, strict=True):
            job.result.set_result(Estimate(flow, backward, seconds / len(batch)))

    def _flows(self, batch: list[_Job]) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        options = batch[0].options
        estimator = kept_estimator(
            options.model,
            device=self._settings.device,
            iterations=options.iterations,
            refine=options.refine,
            enlarge=options.enlarge,
        )
        first, second = [job.frame1 for job in batch], [job.frame2 for job in batch]
        if not options.backward:
            return _apart(estimator(first, second)), [None] * len(batch)
        flows, backwards = estimator.both(first, second)
        return _apart(flows), list(_apart(backwards))


def _apart(flows: np.ndarray) -> list[np.ndarray]:
    """The flows of a batch, none of which keeps the memory of the others."""
    return [flows[0]] if len(flows) == 1 else [flow.copy() for flow in flows]


def _on_gpu(device: str | None) -> bool:
    import torch

    return torch.cuda.is_available() if device is None else not device.startswith("cpu")
