"""Encoders do not take the machine for themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


@contextmanager
def usual_priority() -> Iterator[None]:
    """Within it no thread of this process gets real-time priority, old or new; Linux only.

    SVT-AV1 asks for it when it is opened by root (as in most containers), for its own threads and for the caller's, and gives it
    back for neither: whatever else the machine does then waits.
    """
    before = _policies()
    try:
        yield
    finally:
        for thread, policy in _policies().items():
            if policy in (os.SCHED_FIFO, os.SCHED_RR) and before.get(thread) != policy:
                with suppress(OSError):  # it has ended meanwhile
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _policies() -> dict[int, int]:
    """Scheduling policy of each thread; empty where the system does not tell."""
    policies: dict[int, int] = {}
    if not (_TASKS.is_dir() and hasattr(os, "sched_getscheduler")):
        return policies
    for task in _TASKS.iterdir():
        with suppress(OSError):
            policies[int(task.name)] = os.sched_getscheduler(int(task.name))
    return policies
