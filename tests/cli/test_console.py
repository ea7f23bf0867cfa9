"""Consoles that cannot show every name: the result is written, the name is escaped, nothing ends in a traceback."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from clips import moving, write_clip
from helpers import run_command, small_weights, write_frames
from PIL import Image

from featherflow.errors import printable
from featherflow.flow import write_flow

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


HOSTILE = "\x1b[2J\u202e\x07"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_is_said_of_a_success_is_safe_on_a_terminal(tmp_path, capsys, monkeypatch, form):
    """Names of files reach no terminal as commands to it: not in results, notes, tables, nor in what was kept of a failure."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / f"frames{HOSTILE}"
    folder.mkdir()
    for index, image in zip((1, 2, 3, 9), moving(4), strict=True):
        Image.fromarray(image).save(folder / f"{HOSTILE}{index}.png")
    first, second = (str(folder / f"{HOSTILE}{index}.png") for index in (1, 2))
    (tmp_path / "own" / "frames").mkdir(parents=True)
    for index, path in enumerate((first, second)):
        Image.open(path).save(tmp_path / "own" / "frames" / f"{HOSTILE}{index}.png")
    (tmp_path / "own" / "flow").mkdir()
    write_flow(tmp_path / "own" / "flow" / f"{HOSTILE}0.flo", np.full((64, 96, 2), (2, 1), np.float32))
    write_clip(tmp_path / "whole.mkv", moving(20))
    cut = tmp_path / f"cut{HOSTILE}.mkv"
    whole = (tmp_path / "whole.mkv").read_bytes()
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    weights = small_weights(tmp_path / "w.safetensors")
    fast = ("--model", "dis-ultrafast", *form)
    runs = [
        (0, "estimate", first, second, "-o", f"{HOSTILE}.flo", "--picture", f"{HOSTILE}.png", *fast),
        (0, "estimate", folder, "-o", f"flows{HOSTILE}", *fast),
        (0, "video", folder, "-o", f"{HOSTILE}.mkv", "--flow-dir", f"clip{HOSTILE}", *fast),
        (3, "video", cut, "-o", f"{HOSTILE}2.mkv", *fast),
        (0, "tracks", folder, "-o", f"{HOSTILE}.csv", *fast),
        (0, "piv", first, second, "-o", f"{HOSTILE}.csv", *fast),
        (0, "evaluate", "--data", "folder=own", "--csv", f"{HOSTILE}.csv", *fast),
        (0, "data", "check", "folder", "own", *form),
        (0, "weights", "show", weights, *form),
        (3, "estimate", first, folder / f"{HOSTILE}.gone", "-o", "x.flo", *fast),
    ]
    if not form:
        runs += [
            (0, "data", "render", f"rendered{HOSTILE}", "--count", "1", "--height", "32", "--width", "32"),
            (0, "data", "pack", folder, "-o", f"{HOSTILE}.st", "--drawn", "1", "--particles", "1", "--size", "32"),
            (0, "demo", f"demo{HOSTILE}", "--model", "dis-ultrafast"),
            (4, "weights", "import", _checkpoint(tmp_path, weights), "--as", "liteflownetx:mine", "-o", f"{HOSTILE}.safetensors"),
        ]
    for code, *arguments in runs:
        assert run_command(*arguments) == code, arguments
        said = "".join(capsys.readouterr())
        assert not set(said) & set(HOSTILE.replace("[2J", "")), (arguments, said)
        assert said.strip(), arguments


def _checkpoint(folder, weights):
    """Weights as somebody else's checkpoint."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(weights), folder / f"w{HOSTILE}.pth")
    return folder / f"w{HOSTILE}.pth"


def test_notes_are_said_once_and_are_safe(tmp_path, capsys):
    """What the package says through logging goes by the same way."""
    from featherflow.cli.output import show_log

    for _ in range(2):
        show_log()
    logging.getLogger("featherflow.x").warning("note: '%s' is odd.", HOSTILE)
    said = capsys.readouterr().err
    assert said == f"note: '{printable(HOSTILE)}' is odd.\n" and said[:-1].isprintable()
