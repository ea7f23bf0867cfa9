"""The path of a weight file stands where the name of a network may stand, in Python and in every verb that takes a model."""

import json

import numpy as np
import pytest
from helpers import frame, run_command, small_weights, write_frames

import featherflow
from featherflow.errors import FileError
from featherflow.evaluation import speed


@pytest.fixture
def path(tmp_path):
    """Weights that a run left, of which the program knows no name."""
    return small_weights(tmp_path / "weights.safetensors")


@pytest.fixture
def pairs(tmp_path):
    """One pair that stands still, in the layout of one's own data."""
    for name in ("frames", "flow"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
    write_frames(tmp_path / "pairs" / "frames")
    featherflow.write_flow(tmp_path / "pairs" / "flow" / "frame0.flo", np.zeros((64, 80, 2), np.float32))
    return tmp_path / "pairs"


def test_python(path):
    first, second = frame(seed=1), frame(seed=2)
    by_name = featherflow.estimate(first, second, "liteflownetx", weights=path)
    np.testing.assert_array_equal(featherflow.estimate(first, second, str(path)), by_name)
    assert featherflow.load(str(path)).weights_info.name == "liteflownetx:test"


def test_estimate(path, tmp_path):
    one, two = write_frames(tmp_path)
    flows = [tmp_path / "path.flo", tmp_path / "name.flo"]
    assert run_command("estimate", one, two, "-o", flows[0], "--model", path) == 0
    assert run_command("estimate", one, two, "-o", flows[1], "--model", "liteflownetx", "--weights", path) == 0
    assert flows[0].read_bytes() == flows[1].read_bytes()


def test_evaluate(path, pairs, capsys):
    assert run_command("evaluate", "--data", f"folder={pairs}", "--model", path, "--model", f"{path}+1", "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert {result["model"] for result in results} == {str(path), f"{path}+1"}


def test_export(path, tmp_path):
    pytest.importorskip("onnx")
    assert run_command("export", path, "-o", tmp_path / "x.onnx", "--height", 64, "--width", 64) == 0


def test_times(path):
    assert [candidate.model for candidate in speed.candidates([str(path)])] == [str(path)]
    assert speed.operations(str(path), (64, 64)) == speed.operations("liteflownetx", (64, 64), octaves=0)


@pytest.mark.parametrize(
    "verb",
    [("estimate", "pairs/frames", "-o", "flows"), ("evaluate", "--data", "folder=pairs"), ("bench",), ("export", "-o", "x.pt")],
)
def test_files_that_are_not_there(verb, pairs, monkeypatch, capsys):
    monkeypatch.chdir(pairs.parent)
    assert run_command(*verb, "--model" if verb[0] != "bench" else "gone.safetensors", "gone.safetensors") != 0
    assert "There is no file gone.safetensors." in capsys.readouterr().err


def test_python_of_a_file_that_is_not_there():
    with pytest.raises(FileError, match=r"gone\.safetensors"):
        featherflow.load("gone.safetensors")
