"""Worker processes, as the service sees them: started when needed, killed at a deadline, replaced when they die."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from queue import LifoQueue
from typing import Any

import numpy as np

from .. import errors
from . import messages

_KINDS = {
    kind.__name__: kind
    for kind in (
        errors.InputError,
        errors.LimitError,
        errors.FileError,
        errors.WeightsError,
        errors.MissingExtraError,
        errors.EngineError,
    )
}


class DeadlineError(Exception):
    """A task was not done in time; its process was killed."""


class WorkerDiedError(Exception):
    """A process died over its task."""


class StoppedError(Exception):
    """A task was stopped from outside."""


class WorkerFailedError(Exception):
    """A fault of ours inside a worker; its traceback is on standard error."""


class Worker:
    """One process that does one task at a time."""

    def __init__(self, memory: int | None = None, threads: int | None = None):
        """Nothing is started yet.

        Args:
            memory: most address space [bytes]; None: no limit.
            threads: of its numeric libraries; None: as many as they like.
        """
        self._arguments = [] if memory is None else [str(memory)]
        self._environment = dict(os.environ)
        if threads is not None:
            self._environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self._process: _Process | None = None
        self._turn, self._changing = threading.Lock(), threading.Lock()
        self._closed = False

    def call(
        self,
        task: str,
        content: dict[str, Any],
        arrays: Sequence[np.ndarray] = (),
        deadline: float | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Have a task of `worker.TASKS` done.

        Args:
            deadline: of `time.monotonic`; the process is killed then.
            progress: told what the task tells.

        Raises:
            DeadlineError, WorkerDiedError, StoppedError: see there. MemoryError: where that did not suffice. Errors of
            featherflow: as the task raises them. WorkerFailedError: for any other.
        """
        with self._turn:
            process = self._running()
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            clock = None if deadline is None else threading.Timer(max(deadline - time.monotonic(), 0), end)
            try:
                if clock is not None:
                    clock.daemon = True
                    clock.start()
                messages.send(process.tasks, {"task": task, **content}, arrays)
                while True:
                    answer, found = messages.receive(process.results)
                    if answer["state"] != "progress":
                        break
                    if progress is not None:
                        progress(answer)
            except (EOFError, OSError, ValueError, KeyError, TypeError):
                process.end()
                if late.is_set():
                    raise DeadlineError from None
                raise (StoppedError if process.stopped else WorkerDiedError) from None
            except BaseException:
                process.end()
                raise
            finally:
                if clock is not None:
                    clock.cancel()
        if answer["state"] == "refused":
            raise _KINDS.get(answer["kind"], errors.FeatherflowError)(answer["message"])
        if answer["state"] == "no memory":
            raise MemoryError
        if answer["state"] != "done":
            raise WorkerFailedError
        return answer, found

    def stop(self) -> None:
        """End the task that is running, if there is one, and its process."""
        with self._changing:
            if self._process is not None:
                self._process.stopped = True
                self._process.end()

    def close(self) -> None:
        """`stop`, for good."""
        self._closed = True
        self.stop()

    def _running(self) -> _Process:
        with self._changing:
            if self._closed:
                raise StoppedError
            if self._process is None or not self._process.is_alive():
                self._process = _Process(self._arguments, self._environment)
            return self._process


class _Process:
    """A process and the two pipes to it."""

    def __init__(self, arguments: list[str], environment: dict[str, str]):
        # Not by `multiprocessing`, which would run the caller's main module again; a session of its own, so that Ctrl-C reaches
        # the service alone, which lets running tasks finish.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "featherflow.app.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and isinstance(stdout, io.BufferedReader)  # as asked for
        self.tasks, self.results = stdin, stdout
        self.stopped = False

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """At once; who waits for a result sees the end of the pipe."""
        self._process.kill()

    def end(self) -> None:
        """`kill`, and close the pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self.tasks, self.results):
            with contextlib.suppress(OSError):  # what could not be sent any more
                pipe.close()


class Workers:
    """A few equal workers; a task takes any that is free."""

    def __init__(self, count: int, **options: Any):
        self._all = [Worker(**options) for _ in range(count)]
        self._free: LifoQueue[Worker] = LifoQueue()
        for worker in self._all:
            self._free.put(worker)

    def call(self, *arguments: Any, seconds: float, **options: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
        """`Worker.call`, with `seconds` from the moment on at which a worker is free."""
        worker = self._free.get()
        try:
            return worker.call(*arguments, deadline=time.monotonic() + seconds, **options)
        finally:
            self._free.put(worker)

    def start(self) -> None:
        """Start all processes and wait for them, so that no task has to."""
        for worker in self._all:
            worker.call("ready", {})

    def close(self) -> None:
        """End all processes."""
        for worker in self._all:
            worker.close()
