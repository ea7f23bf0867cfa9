"""How many threads compute, and how they wait for each other."""

from __future__ import annotations

import functools
import os
import statistics
import sys
import time
from pathlib import Path

_LOOKS, _BETWEEN = 5, 0.002  # s
_SHORT = "1000"  # turns of libgomp's waiting loop, some microseconds; by itself it takes 300 times as many


def usable_threads() -> int:
    """Threads of PyTorch, or as many as a container may use if that is fewer."""
    import torch

    allowed, own = container_threads(), torch.get_num_threads()
    return own if allowed is None else min(allowed, own)


def respect_container() -> None:
    """Let this process use no more threads than its container may use.

    For programs, before they compute: a library leaves it to the program that it is part of.
    """
    allowed = container_threads()
    if allowed is None or allowed >= (os.cpu_count() or 1):
        return
    os.environ["OMP_NUM_THREADS"] = str(allowed)  # which PyTorch reads when it is imported
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(min(allowed, torch.get_num_threads()))


def let_others_compute(load: Path = Path("/proc/loadavg")) -> None:
    """Let threads of this process that wait for each other soon sleep, if other programs keep a quarter of the cores busy now.

    A thread that turns round while it waits keeps its core from the one that it waits for: a pair of frames then takes 2 to 10
    times as long. On a free machine it is the other way round, and sleeping costs up to a third. For programs, before PyTorch is
    imported; where the environment says how to wait, or how many threads compute, that stays.
    """
    told = any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"))
    if not told and "torch" not in sys.modules and _others(load) >= max(1.0, (os.cpu_count() or 1) / 4):
        os.environ["GOMP_SPINCOUNT"] = _SHORT


def _others(load: Path) -> float:
    """Threads of other programs that compute or want to; 0 where the system does not tell."""
    seen = []
    try:
        for look in range(_LOOKS):
            time.sleep(_BETWEEN if look else 0.0)
            seen.append(int(load.read_text().split()[3].partition("/")[0]) - 1)  # this one is among them
    except (OSError, ValueError, IndexError):
        return 0.0
    return statistics.median(seen)


@functools.cache
def survive_forks() -> None:
    """Have processes forked from this one compute with one thread: they would wait without end for the threads of their parent."""

    def compute_alone() -> None:
        import torch

        torch.set_num_threads(1)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=compute_alone)


def container_threads(groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """CPU time that a container may use, in whole threads; None without such a limit, or where OMP_NUM_THREADS decides.

    PyTorch counts the machine's cores. With more threads than the quota allows, all are paused in turn and wait for each other.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return None
    try:
        quota, period = (groups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max" or -1: no limit
    return max(1, round(int(quota) / int(period)))
