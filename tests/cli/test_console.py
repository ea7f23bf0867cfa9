"""Consoles that cannot show every name: the result is written, the name is escaped, nothing ends in a traceback."""

import json
import os
import subprocess
import sys

import pytest
from helpers import write_frames

pytest.importorskip("cv2")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8:strict", "latin-1"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_names_beyond_the_console(tmp_path, encoding, form):
    write_frames(tmp_path, 2)
    names = [os.fsdecode("bäume_→_雪_".encode() + b"\xff" + b"%d.png" % index) for index in range(2)]
    for index, name in enumerate(names):
        try:
            (tmp_path / f"frame{index}.png").rename(tmp_path / name)
        except OSError:
            pytest.skip("this file system takes text only")
    command = [sys.executable, "-m", "featherflow", "estimate", *names, "-o", names[0] + ".flo", "--model", "dis", *form]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode("latin-1")
    assert (tmp_path / (names[0] + ".flo")).exists() and b"Traceback" not in done.stderr
    if form:
        said = json.loads(done.stdout.decode("ascii"))
        assert said["flow"].startswith("bäume_→_雪_\\xff")
        said["flow"].encode("utf-8")  # no half of a surrogate pair


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_errors_and_tables_beyond_the_console(tmp_path, encoding):
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "1"}
    for arguments, code in ((["estimate", "нет.png", "雪.png", "-o", "x.flo"], 3), (["models"], 0), (["estimate", "--help"], 0)):
        done = subprocess.run(
            [sys.executable, "-m", "featherflow", *arguments], cwd=tmp_path, capture_output=True, env=environment, check=False
        )
        assert done.returncode == code and b"Traceback" not in done.stderr and done.stdout + done.stderr
