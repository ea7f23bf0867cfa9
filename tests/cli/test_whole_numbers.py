"""A whole number is never rounded to: 1.5 steps are refused, by every verb."""

import typing

import pytest
from helpers import run_command

from featherflow.cli import app
from featherflow.cli.numbers import PARAMETERS


def verbs(part, names=()):
    """All commands below an app, with the words that call them."""
    for name in part:
        if not name.startswith("-"):
            yield from verbs(part[name], (*names, name))
    if part.default_command is not None and names:
        yield names, part


def test_every_verb_checks_its_numbers():
    found = 0
    for names, verb in verbs(app):
        for argument in verb.assemble_argument_collection():
            if {int, float} & set(typing.get_args(argument.hint) or (argument.hint,)):
                found += 1
                assert PARAMETERS in (argument.parameter.group or ()), (names, argument.name)
    assert found > 25


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("estimate", "a.png", "b.png", "-o", "x.flo", "--refine", "1.7"), "--refine is a whole number, got 1.7."),
        (("scale", "run", "x", "-o", "y", "--span", "1.5"), "--span is a whole number, got 1.5."),
        (("data", "render", "out", "--count", "2.5"), "--count is a whole number, got 2.5."),
        (("bench", "--runs", "nan.5"), "nan.5"),
        (("estimate", "a.png", "b.png", "-o", "x.flo", "--refine", "none"), "--refine is a number, got none."),
        (("estimate", "a.png", "b.png", "-o", "x.flo", "--enlarge", "None"), "--enlarge is a number, got None."),
    ],
)
def test_what_is_no_such_number_is_refused(tmp_path, monkeypatch, capsys, command, said):
    monkeypatch.chdir(tmp_path)
    assert run_command(*command) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_whole_number_may_be_written_as_a_decimal(capsys):
    assert run_command("estimate", "none.png", "b.png", "-o", "x.flo", "--refine", "1.0") != 0
    assert "There is no image file 'none.png'" in capsys.readouterr().err
