"""Checkpoints that hold several networks: which are there is said, one is chosen, and the only one that fits is taken."""

import io

import pytest
import torch
from helpers import run_command

from featherflow import networks
from featherflow.errors import WeightsError
from featherflow.weights import import_weights, load
from featherflow.weights.containers import Contents

NAME = "spynet"


@pytest.fixture(scope="module")
def pair():
    """State dicts of two networks with other numbers."""
    return tuple(networks.untrained(NAME, seed=seed).state_dict() for seed in (0, 1))


def saved(value) -> Contents:
    out = io.BytesIO()
    torch.save(value, out)
    return Contents(out.getvalue(), "two.pth")


def named(state, part):
    return {f"{part}.{name}": tensor for name, tensor in state.items()}


FORMS = {
    "by key": lambda student, teacher: {"student": student, "teacher": teacher, "epoch": 3},
    "each wrapped": lambda student, teacher: {
        "student": {"state_dict": student},
        "teacher": {"state_dict": named(teacher, "module")},
    },
    "within a wrapper": lambda student, teacher: {"state_dict": {"student": student, "teacher": teacher}},
    "by the beginning of names": lambda student, teacher: {"state_dict": named(student, "student") | named(teacher, "teacher")},
}


@pytest.mark.parametrize("form", FORMS)
def test_several_networks_are_named_and_one_is_chosen(form, pair):
    contents = saved(FORMS[form](*pair))
    with pytest.raises(WeightsError, match=r"2 networks that spynet could take: 'student', 'teacher'.*--part student"):
        import_weights(contents, NAME)
    for part, state in zip(("student", "teacher"), pair, strict=True):
        imported = import_weights(contents, NAME, part)
        assert all(torch.equal(tensor, state[name]) for name, tensor in imported.state_dict.items())
    with pytest.raises(WeightsError, match="no part 'critic'; there are 'student', 'teacher'"):
        import_weights(contents, NAME, "critic")


def test_the_only_one_that_fits_is_taken_and_said(pair):
    imported = import_weights(saved({"generator": pair[0], "critic": {"layer.weight": torch.zeros(3)}}), NAME)
    assert torch.equal(next(iter(imported.state_dict.values())), next(iter(pair[0].values())))
    assert "part 'generator'" in imported.remarks[0]


def test_a_part_beside_the_likeliest_key(pair):
    """Of weights and their average, the weights are taken unasked."""
    contents = saved({"model": pair[0], "ema": pair[1]})
    for part, state in ((None, pair[0]), ("model", pair[0]), ("ema", pair[1])):
        imported = import_weights(contents, NAME, part)
        assert all(torch.equal(tensor, state[name]) for name, tensor in imported.state_dict.items())


def test_a_file_without_parts(pair):
    with pytest.raises(WeightsError, match="no part 'student'; there are none"):
        import_weights(saved({"module.a": torch.zeros(2)}), NAME, "student")


def test_the_option(pair, tmp_path, home):
    (tmp_path / "two.pth").write_bytes(saved({"student": pair[0], "teacher": pair[1]}).data)
    assert run_command("weights", "import", tmp_path / "two.pth", "--as", f"{NAME}:x", "--part", "teacher") == 0
    assert all(torch.equal(tensor, pair[1][name]) for name, tensor in load(f"{NAME}:x").state_dict().items())
