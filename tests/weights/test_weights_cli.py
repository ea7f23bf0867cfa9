"""The verb `weights`: what it prints, and that each command's help shows an example."""

import io
import json
import sys

import pytest
from helpers import run_command

from featherflow.cli.weights import app
from featherflow.errors import FileError, WeightsError
from featherflow.weights import archive, catalogue


def run(*tokens) -> None:
    app([str(token) for token in tokens], exit_on_error=False, result_action="return_value")


@pytest.fixture
def imported(home, tmp_path, small_caffemodel, capsys):
    file = tmp_path / "x.caffemodel"
    file.write_bytes(small_caffemodel)
    run("import", file, "--as", "liteflownetx:mine")
    return capsys.readouterr()


def test_import(imported, home):
    assert imported.out == f"liteflownetx:mine -> {home / 'liteflownetx-mine.safetensors'}\n"
    assert "note: 1 layers that liteflownetx does not use are left out" in imported.err


def test_import_to_a_file(imported, tmp_path, capsys):
    run("import", tmp_path / "x.caffemodel", "--as", "liteflownetx", "-o", tmp_path / "o.safetensors")
    assert (tmp_path / "o.safetensors").is_file() and "liteflownetx:imported" in capsys.readouterr().out


def test_list_and_show(imported, home, capsys):
    run("list")
    assert "liteflownetx:mine" in capsys.readouterr().out
    run("list", "--json")
    assert "mine" in [entry["tag"] for entry in json.loads(capsys.readouterr().out)]
    run("show", "liteflownetx:mine", "--json")
    assert json.loads(capsys.readouterr().out)["parameters"] == 902_855
    run("show", home / "liteflownetx-mine.safetensors")
    assert "architecture     liteflownetx\n" in capsys.readouterr().out


def test_list_of_nothing(home, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "BUNDLED", tmp_path)
    run("list")
    assert "featherflow weights import" in capsys.readouterr().out


def test_fetch_shows_the_terms_and_needs_a_yes(home, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # not a terminal: nobody was asked
    with pytest.raises(WeightsError, match="--agree"):
        run("fetch", "liteflownet")
    assert archive.TERMS in capsys.readouterr().err


@pytest.mark.parametrize("answer, error", [("n\n", WeightsError), ("\n", WeightsError), ("yes\n", FileError)])
def test_fetch_takes_an_answer_from_a_terminal(answer, error, home, monkeypatch):
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(archive, "_download", offline)
    with pytest.raises(error):
        run("fetch", "liteflownet")


def offline(*_):
    raise FileError("no network")


@pytest.mark.parametrize("command", ["import", "list", "show", "fetch"])
def test_help_shows_an_example(command, capsys):
    run(command, "--help")
    assert f"Example: featherflow weights {command}" in capsys.readouterr().out


def test_what_a_file_says_cannot_move_the_cursor(tmp_path, capsys, small_network):
    from featherflow.weights import WeightsInfo, save_weights

    info = WeightsInfo("liteflownetx", "a", recipe="fine\x1b[2J\x9b31m\u202e\nnext", scores={"a\x9b\u202e": "\x1b]0;x\x07"})
    save_weights(tmp_path / "a.safetensors", small_network.state_dict(), info)
    assert run_command("weights", "show", tmp_path / "a.safetensors") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines) and any("fine" in line and "next" in line for line in lines)
