"""What type checkers and editors see: functions where functions are, and the form in which flow comes back."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import featherflow

ROOT = Path(__file__).resolve().parents[1]
USE = """
from typing_extensions import assert_type
import numpy as np
import torch
import featherflow

frame, tensor = np.zeros((64, 64, 3), np.uint8), torch.zeros(3, 64, 64)
assert_type(featherflow.estimate(tensor, tensor, "raft", iterations=3), torch.Tensor)
assert_type(featherflow.estimate(tensor, tensor, backward=True), tuple[torch.Tensor, torch.Tensor])
estimator = featherflow.Estimator("liteflownet2", refine=3, engine="torch")
assert_type(estimator.both(tensor, tensor), tuple[torch.Tensor, torch.Tensor])
height: int = estimator(frame, frame).shape[0] + featherflow.estimate("a.png", "b.png").shape[0]
for flow in featherflow.stream([frame, frame]):
    featherflow.write_flow("flow.flo", flow)
estimator.stream([frame], warm_start=True)
featherflow.load("liteflownet2").traits.size_multiple
"""


def test_the_package_says_that_it_is_typed():
    assert (Path(featherflow.__file__).parent / "py.typed").is_file()


def test_every_public_name_is_there():
    for name in {*featherflow.__all__, *featherflow._PUBLIC}:
        assert getattr(featherflow, name) is not None and name in dir(featherflow)


@pytest.mark.skipif(find_spec("basedpyright") is None, reason="needs the extra dev")
def test_calls_are_seen_by_type_checkers(tmp_path):
    """The package itself is checked by `.ci/run`."""
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "wrong.py").write_text("import featherflow\nfeatherflow.Estimator('raft', engin='torch')\n")
    for name, code in (("use.py", 0), ("wrong.py", 1)):
        run = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, str(tmp_path / name)]
        done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code, done.stdout
