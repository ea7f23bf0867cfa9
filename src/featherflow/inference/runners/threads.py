"""How many threads compute."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path


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
