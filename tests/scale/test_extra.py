"""What is said where the extra `scale` is not installed."""

import sys

import pytest
from helpers import run_command

from featherflow import scale
from featherflow.errors import MissingExtraError


@pytest.mark.parametrize("part", ["ray.data", "fsspec"])
def test_a_missing_extra_is_one_sentence(monkeypatch, capsys, part):
    monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(MissingExtraError, match=r"needs Ray Data; install it with: pip install 'featherflow\[scale\]'"):
        scale.run("in", "out")
    assert run_command("scale", "run", "in", "-o", "out") == 5
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--workers", "many"), "FEWEST:MOST"), (("--set", "npz"), "NAME=VALUE"), (("--summary", "no/such/x.json"), "cannot write")],
)
def test_words_that_cannot_be_read(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert run_command("scale", "run", "in", "-o", "out", *arguments) in (2, 3)
    assert said in capsys.readouterr().err and list(tmp_path.iterdir()) == []
