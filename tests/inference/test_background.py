"""Engines built by another process while PyTorch goes on."""

import errno
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import frame, small_weights

import featherflow
from featherflow.errors import FileError, InputError, MissingExtraError
from featherflow.inference.runners import background, builds, choice
from featherflow.inference.runners.pytorch import InferenceSpec
from featherflow.networks import RunOptions


@pytest.fixture
def weights(tmp_path):
    return small_weights(tmp_path / "x.safetensors")


def test_built_after_several_pairs_and_taken_if_faster(weights, caplog):
    pytest.importorskip("openvino")
    caplog.set_level(logging.INFO, "featherflow")
    choice._say.cache_clear()
    estimator = featherflow.Estimator("liteflownetx", weights=weights, prepare=True, refine=0)
    pair = frame(70, 90, 1), frame(70, 90, 2)
    for _ in range(background.PAIRS - 1):
        expected = estimator(*pair)
    assert estimator._builder._process is None
    estimator(*pair)
    assert estimator._builder._process is not None
    estimator._builder.wait()
    task = estimator._task(estimator._network, featherflow.inference.frame.Frame(torch.zeros(1, 3, 70, 90)))
    place = builds.find(task.key("openvino"))
    assert builds.read(place)["checks"] == {}  # by nobody but the process that computes
    assert np.abs(estimator(*pair) - expected).max() < 1e-3
    verdict = builds.read(place)["checks"][choice._conditions("float32")]
    for ms, engine in ((verdict["torch_ms"] / 2, "openvino"), (verdict["torch_ms"] * 2, "torch")):
        builds.record_check(place, choice._conditions("float32"), verdict | {"ms": ms})
        assert choice.choose("auto", task) == engine
        assert np.abs(estimator(*pair) - expected).max() < 1e-3
    lines = [record.message for record in caplog.records]
    assert sum("in the background" in line for line in lines) == 1 and not any("was not built" in line for line in lines)
    assert any("by the engine openvino" in line for line in lines)
    assert estimator._builder._process is None


def test_a_full_disk_is_called_so_and_pytorch_goes_on(weights, caplog, monkeypatch):
    """OpenVINO itself says `basic_ios::clear: iostream error`."""
    openvino = pytest.importorskip("openvino")
    pair = frame(72, 94, 1), frame(72, 94, 2)  # of a size that no other test builds for

    def fail(*_, **__):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", fail)
    monkeypatch.setattr("featherflow.files._write_failure", lambda _: OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(FileError, match="the disk is full"):
        featherflow.estimate(*pair, "liteflownetx", weights=weights, engine="openvino")
    estimator = featherflow.Estimator("liteflownetx", weights=weights, prepare=True, refine=0)
    expected = estimator(*pair)
    monkeypatch.setattr(background, "PAIRS", sys.maxsize)
    estimator._builder._built.add((1, 3, 72, 94))
    np.testing.assert_array_equal(estimator(*pair), expected)
    assert "the disk is full" in caplog.text


def test_an_engine_in_a_folder_that_cannot_be_written_is_used(weights, caplog, monkeypatch):
    pytest.importorskip("openvino")
    pair = frame(74, 98, 1), frame(74, 98, 2)  # likewise

    def read_only(_):
        raise OSError(errno.EROFS, "Read-only file system")

    estimator = featherflow.Estimator("liteflownetx", weights=weights, engine="openvino", refine=0)
    estimator.build_engine((1, 3, 74, 98))
    monkeypatch.setattr(builds, "_turn", read_only)
    expected = featherflow.estimate(*pair, "liteflownetx", weights=weights, engine="torch", refine=0)
    assert np.abs(estimator(*pair) - expected).max() < 1e-3
    assert "Read-only file system" in caplog.text


def test_what_fails_there_is_one_line_and_pytorch_goes_on(weights, caplog, monkeypatch):
    pytest.importorskip("openvino")
    estimator = featherflow.Estimator("liteflownetx", weights=weights, prepare=True, refine=0)
    weights.unlink()
    monkeypatch.setattr(background, "PAIRS", 1)
    pair = frame(70, 90, 1), frame(70, 90, 2)
    expected = estimator(*pair)
    estimator._builder.wait()
    for _ in range(3):
        assert np.array_equal(estimator(*pair), expected)
    (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert "was not built in the background, PyTorch goes on" in warning and str(weights) in warning and "\n" not in warning
    assert estimator._builder._process is None


def test_a_build_ends_with_whoever_asked_for_it():
    """Also where that was killed: the pipe ends, and with it a build that would take minutes."""
    pytest.importorskip("openvino")
    job = {"settings": {"model": "raft", "engine": "openvino"}, "shape": (1, 3, 1080, 1920)}
    process = subprocess.run(
        [sys.executable, "-m", "featherflow.inference.runners.background"],
        input=json.dumps(job).encode() + b"\n",
        capture_output=True,
        timeout=60,
    )
    assert process.returncode == 1 and process.stdout == process.stderr == b""


def test_along_a_stream_pytorch_is_measured_as_it_runs_there(small):
    network = small(subpixel=(11,))
    spec = InferenceSpec((1, 3, 70, 90), network.traits, torch.device("cpu"), "float32", RunOptions(octaves=0))
    pytest.importorskip("onnxruntime")
    featherflow.estimate(frame(70, 90, 1), frame(70, 90, 2), model=network, engine="onnx")
    task, along = (choice.Task(network, spec, along_stream=stream) for stream in (False, True))
    builds.record_check(
        builds.find(task.key("onnx")), choice._conditions("float32"), {"ms": 9.0, "torch_ms": 10.0, "torch_stream_ms": 8.0}
    )
    assert choice.choose("auto", task) == "onnx" and choice.choose("auto", along) == "torch"


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"model": "farneback"}, "'farneback' is a classical method"),
        ({"model": "liteflownet2-slim", "engine": "torch"}, "prepare is for the engine auto"),
        ({"model": "liteflownet2-slim", "prepare": "yes"}, "prepare is True or False, got 'yes'"),
    ],
)
def test_what_cannot_be_prepared(choices, said):
    with pytest.raises(InputError, match=said):
        featherflow.Estimator(**{"prepare": True, **choices})


def test_a_network_object_cannot_be_prepared(small):
    with pytest.raises(InputError, match="a network object may change"):
        featherflow.Estimator(small(), prepare=True)


def test_without_openvino(monkeypatch):
    monkeypatch.setattr(background, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "featherflow\[openvino\]"'):
        featherflow.Estimator("liteflownet2-slim", prepare=True)
