"""Memory that is freed stays with the process for the next pair; in processes of their own, since it cannot be undone."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from featherflow.inference.runners.heap import keep_freed_memory
if {keep}:
    keep_freed_memory()
def pair():
    return [torch.ones(2 << 20) for _ in range(8)]  # 8 MiB each
for _ in range(8):
    pair()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    pair()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep, **environment):
    run = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True, env=environment
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_is_kept():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    pages = 4 * 8 * (8 << 20) // 4096
    assert faults(False, **clean) > pages / 2  # what is to be ended
    assert faults(True, **clean) < pages / 20
    assert faults(True, **clean, MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > pages / 2  # as it was told
