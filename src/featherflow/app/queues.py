"""Pairs wait in two queues, of small and of large frames; a worker process for each estimates them, pairs of one kind together."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from .settings import Settings
from .workers import DeadlineError, Worker, WorkerDiedError

_SMALL = 8  # frames of up to this share of the largest frame's pixels do not wait for larger ones


class BusyError(Exception):
    """The queue is full."""


@dataclass(frozen=True)
class Options:
    """What is asked for, beside the frames; see `featherflow.estimate`."""

    model: str
    backward: bool = False
    refine: int | None = None
    iterations: int | None = None
    enlarge: float | None = None
    #: Takes the backward flow, which comes with it.
    confidence: bool = False


@dataclass(frozen=True)
class Estimate:
    """Flow `(H, W, 2)` float32 [px], the backward flow and the confidence `(H, W)` if they were asked for, and the pair's share of
    the time [s]."""

    flow: np.ndarray
    backward: np.ndarray | None
    seconds: float
    confidence: np.ndarray | None = None


#: Flows `(B, H, W, 2)`, backward flows and confidences where they are asked for, of options, frames `(B, H, W, 3)` twice, and a
#: deadline.
Compute = Callable[[Options, np.ndarray, np.ndarray, float], list[np.ndarray]]


@dataclass(eq=False)
class _Job:
    options: Options
    frame1: np.ndarray
    frame2: np.ndarray
    deadline: float
    result: Future = field(default_factory=Future)

    @property
    def kind(self) -> tuple[Options, tuple[int, ...]]:
        return self.options, self.frame1.shape

    @property
    def pixels(self) -> int:
        return self.frame1.shape[0] * self.frame1.shape[1]


class PairQueue:
    """The queues and their threads, each with a worker process.

    Jobs leave a queue in the order in which they came, except that a job takes those of its own kind with it: up to
    `batch` pairs, and no more pixels together than one pair may have. A batch that fails is tried again pair by pair. A batch that
    is not ready when the last of its pairs is no longer waited for ends with its process, which is replaced.
    """

    def __init__(
        self,
        settings: Settings,
        observe: Callable[[Options, int, float], None] = lambda *_: None,
        compute: Compute | None = None,
    ):
        """`observe` is told of each batch: its options, pairs and seconds. `compute` takes the place of the worker processes."""
        self._settings = settings
        self._observe = observe
        self._batch = settings.batch or (8 if _on_gpu(settings.device) else 1)
        self._changed = threading.Condition()
        self._closed = False
        self._workers = [] if compute else [Worker(), Worker()]
        computes = [compute] * 2 if compute else [self._by(worker) for worker in self._workers]
        self._queues: tuple[deque[_Job], deque[_Job]] = (deque(), deque())
        self._threads = [
            threading.Thread(target=self._run, args=pair, name="featherflow-queue", daemon=True)
            for pair in zip(self._queues, computes, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def prepare(self, model: str) -> None:
        """Have a model loaded by the worker for small frames; the other one is started by the first large frame.

        Raises:
            WeightsError: for a model without weights, and whatever else keeps it from being loaded.
        """
        for worker in self._workers[:1]:
            worker.call("load", {"model": model, **self._settings.estimation})

    @property
    def waiting(self) -> int:
        """Pairs in the queues."""
        with self._changed:
            self._drop_cancelled()
            return sum(map(len, self._queues))

    @property
    def full(self) -> bool:
        return self.waiting >= self._settings.queue

    def submit(self, options: Options, frame1: np.ndarray, frame2: np.ndarray, deadline: float | None = None) -> Future:
        """Put a pair, `(H, W, 3)` uint8 RGB each, in its queue. The future gives an `Estimate`; cancelling it removes the job.

        Args:
            deadline: of `time.monotonic`, after which nobody waits for it; None: the settings' `seconds` from now on.

        Raises:
            BusyError: when as many pairs wait as may, or when they hold 16 times the pixels of the largest frame.
        """
        job = _Job(options, frame1, frame2, time.monotonic() + self._settings.seconds if deadline is None else deadline)
        with self._changed:
            self._drop_cancelled()
            held = sum(other.pixels for queue in self._queues for other in queue)
            count = sum(map(len, self._queues))
            full = count >= self._settings.queue
            if full or self._closed or (count and held + job.pixels > 16 * self._settings.max_pixels):
                raise BusyError
            self._queues[_SMALL * job.pixels > self._settings.max_pixels].append(job)
            self._changed.notify_all()
        return job.result

    def close(self) -> None:
        """Finish what is in the queues, then end threads and processes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.close()

    def _by(self, worker: Worker) -> Compute:
        def compute(options: Options, first: np.ndarray, second: np.ndarray, deadline: float) -> list[np.ndarray]:
            content = {**dataclasses.asdict(options), **self._settings.estimation}
            return worker.call("flow", content, (first, second), deadline)[1]

        return compute

    def _drop_cancelled(self) -> None:
        # Not by a callback of the future: job and future would hold each other, and their frames, until the garbage collection.
        for queue in self._queues:
            for job in [job for job in queue if job.result.cancelled()]:
                queue.remove(job)

    def _run(self, queue: deque[_Job], compute: Compute) -> None:
        while batch := self._next(queue):
            self._estimate(batch, compute)
            del batch  # an idle service holds no frames

    def _next(self, queue: deque[_Job]) -> list[_Job]:
        with self._changed:
            self._changed.wait_for(lambda: queue or self._closed)
            batch: list[_Job] = []
            for job in list(queue):
                most = min(self._batch, max(self._settings.max_pixels // job.pixels, 1))
                if not batch or (job.kind == batch[0].kind and len(batch) < most):
                    queue.remove(job)
                    batch.append(job)
            return batch

    def _estimate(self, batch: list[_Job], compute: Compute) -> None:
        batch = [job for job in batch if job.result.running() or job.result.set_running_or_notify_cancel()]
        if not batch:
            return
        options = batch[0].options
        try:
            started = time.perf_counter()
            frames = (np.stack([job.frame1 for job in batch]), np.stack([job.frame2 for job in batch]))
            found = compute(options, *frames, max(job.deadline for job in batch))
            seconds = time.perf_counter() - started
        except Exception as error:
            if len(batch) == 1 or isinstance(error, DeadlineError):
                for job in batch:
                    job.result.set_exception(_told(error, options))
            else:
                for job in batch:
                    self._estimate([job], compute)
            return
        self._observe(options, len(batch), seconds)
        for index, job in enumerate(batch):
            flow, *others = (array[index] for array in found)
            backward, confidence = (*others, None, None)[:2]
            job.result.set_result(Estimate(flow, backward, seconds / len(batch), confidence))


def _told(error: Exception, options: Options) -> Exception:
    """What a client is told of a worker's end."""
    if isinstance(error, WorkerDiedError):
        return InputError(
            f"The model '{options.model}' broke down over these frames; take another model, or frames of another size."
        )
    return error


def _on_gpu(device: str | None) -> bool:
    from ..inference.defaults import device_named

    return device_named(device).type != "cpu"
