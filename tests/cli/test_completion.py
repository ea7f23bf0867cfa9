"""`--install-completion`: what it writes is a script that bash completes by; what cannot be written is one sentence."""

import shutil
import subprocess

import pytest
from helpers import run_command

from featherflow.errors import FileError, InputError


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_command("--install-completion", "--shell", "bash") == 0
    (script,) = (path for path in tmp_path.rglob("featherflow") if path.is_file())
    assert str(script) in (tmp_path / ".bashrc").read_text()
    function = "$(complete -p featherflow | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    ask = f". {script}; COMP_WORDS=(featherflow sta); COMP_CWORD=1; {function}; echo $COMPREPLY"
    assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=30).stdout.strip() == "stabilise"


def test_a_file_named_is_all_that_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_command("--install-completion", "--shell", "zsh", "-o", tmp_path / "script") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["script"]


def test_refusals(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert run_command("--install-completion", "--shell", "bash", "-o", tmp_path / "file" / "script") == FileError.exit_code
    monkeypatch.setattr("cyclopts.completion.detect.detect_shell", _undetected)
    assert run_command("--install-completion", "-o", tmp_path / "script") == InputError.exit_code
    assert capsys.readouterr().err.count("\n") == 2


def _undetected():
    from cyclopts.completion.detect import ShellDetectionError

    raise ShellDetectionError("no shell")
