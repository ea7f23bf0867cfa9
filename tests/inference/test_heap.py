"""Memory that is freed stays with the process for the next pair; in processes of their own, since it cannot be undone."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes
import resource
import torch
from featherflow.inference.runners.heap import keep_freed_memory
def faults():
    for counted in (False, True):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            [torch.ones(2 << 20) for _ in range(8)]  # 8 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
ctypes.CDLL(None).mallopt(-3, 1 << 17)  # all but small pieces come from the system, and go back to it
before = faults()
keep_freed_memory()
print(before, faults())
"""
PAGES = 8 * 8 * (8 << 20) // 4096


def faults(**environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env={**clean, **environment})
    return [int(count) for count in run.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_is_kept():
    without, kept = faults()
    assert without > PAGES / 2 and kept < PAGES / 20
    assert min(faults(MALLOC_ARENA_MAX="2")) > PAGES / 2  # glibc is told what to do, and stays as it is
    assert min(faults(GLIBC_TUNABLES="glibc.malloc.arena_max=2")) > PAGES / 2
