"""A process that is forked after an estimate: would catch one that waits for the threads of its parent without end."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, time
import numpy as np, torch
import featherflow
torch.set_num_threads(2)
frame = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
pair = frame, np.roll(frame, 2, 1)
flow = featherflow.estimate(*pair, model="liteflownetx", dtype="float32")
child = os.fork()
if child == 0:
    other = featherflow.estimate(*pair, model="liteflownetx", dtype="float32")
    os._exit(0 if np.abs(flow - other).max() < 0.01 else 1)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        assert torch.get_num_threads() == 2
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, signal.SIGKILL)
sys.exit("the child waits")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_estimates():
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
