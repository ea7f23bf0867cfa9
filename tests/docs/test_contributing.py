"""CONTRIBUTING.md, walked: its files are made in a copy of the package, and the network, the reader and the verb are used there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from helpers import frame
from PIL import Image

from featherflow import read_flow, write_flow

ROOT = Path(__file__).resolve().parents[2]
USE = """
exec(open("then_run.py").read())
from featherflow.cli import main

for arguments in (
    ["models"],
    ["estimate", "1_a.png", "1_b.png", "-o", "out.flo", "--model", "one-motion"],
    ["data", "check", "numbered", "."],
    ["evaluate", "--data", "numbered=.", "--model", "one-motion"],
    ["length", "1_flow.flo"],
):
    try:
        main(arguments)
    except SystemExit as leaving:
        assert not leaving.code, arguments
"""


def walk(source: Path) -> None:
    """Do what the guide's Python blocks say to the package in `source`."""
    steps = re.findall(r"```python\n# (new file|add to): src/(\S+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert [kind for kind, *_ in steps].count("new file") == 2 and len(steps) == 5
    for kind, name, text in steps:
        path = source / name
        assert path.exists() == (kind == "add to"), path
        path.write_text((path.read_text() if kind == "add to" else "") + text)


def test_the_steps_lead_to_a_network_a_reader_and_a_verb(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    walk(tmp_path / "src")
    canvas = frame(96, 128, seed=3)
    Image.fromarray(canvas[16:80, 16:112]).save(tmp_path / "1_a.png")
    Image.fromarray(canvas[11:75, 20:116]).save(tmp_path / "1_b.png")
    truth = np.broadcast_to(np.float32([-4, 5]), (64, 96, 2))
    write_flow(tmp_path / "1_flow.flo", truth)

    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "FEATHERFLOW_HOME": str(tmp_path / "home")}
    (run,) = re.findall(r"```python\n# then run:\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (tmp_path / "then_run.py").write_text(run)
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "one-motion" in done.stdout and "numbered, split all: 1 pair" in done.stdout and "6.40 px" in done.stdout
    np.testing.assert_array_equal(read_flow(tmp_path / "out.flo"), truth)
