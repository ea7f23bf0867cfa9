"""The name `-` where standard input or output is closed, empty, or not what a process usually has."""

import io
import subprocess
import sys

import pytest
from clips import moving, write_clip

import featherflow
from featherflow import Estimator
from featherflow.errors import FileError, InputError
from featherflow.video import flow_video

FAST = "dis-ultrafast"


def closed() -> io.TextIOWrapper:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.close()
    return stream


@pytest.mark.parametrize("stdin", [None, closed(), io.StringIO()], ids=["none", "closed", "text alone"])
@pytest.mark.parametrize("size", [None, "96x64"])
def test_no_standard_input(stdin, size, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(InputError, match="no standard input"):
        flow_video("-", tmp_path / "out.mp4", size=size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "error"), [(None, InputError), ("96x64", FileError)])
def test_standard_input_without_a_byte(size, error, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(error, match="--size" if size is None else "standard input"):
        flow_video("-", tmp_path / "out.mp4", size=size)


@pytest.mark.parametrize("stdout", [None, closed()], ids=["none", "closed"])
def test_no_standard_output(stdout, monkeypatch, tmp_path):
    write_clip(tmp_path / "clip.mkv", moving(3))
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(InputError, match="no standard output"):
        flow_video(tmp_path / "clip.mkv", "-", estimator=Estimator(FAST))


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors are closed by a POSIX shell")
@pytest.mark.parametrize(
    ("closing", "arguments", "code"),
    [
        ("<&-", ["video", "-", "--size", "96x64", "-o", "out.mp4", "--model", FAST], 2),
        (">&-", ["video", "clip.mkv", "-o", "-", "--model", FAST], 2),
        ("<&- >&- 2>&-", ["video", "clip.mkv", "-o", "out.mkv", "--flow-dir", "flows", "--model", FAST], 0),
    ],
)
def test_closed_descriptors(closing, arguments, code, tmp_path):
    """No traceback; and no file that is written gets the number of a closed stream, into which libraries print."""
    write_clip(tmp_path / "clip.mkv", moving(3))
    command = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "featherflow", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    if code == 0:
        assert not done.stdout and featherflow.read_flow(tmp_path / "flows/000000.flo").shape == (64, 96, 2)
    else:
        assert len(done.stderr.strip().splitlines()) == 1 and "it is closed" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors are closed by a POSIX shell")
def test_errors_do_not_go_to_standard_output(tmp_path):
    command = [
        "sh",
        "-c",
        'exec "$@" 2>&-',
        "sh",
        sys.executable,
        "-m",
        "featherflow",
        "estimate",
        "no.png",
        "no.png",
        "-o",
        "x.flo",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stdout == ""
