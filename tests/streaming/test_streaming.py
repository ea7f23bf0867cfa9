"""`stream` gives what pairwise `estimate` gives, and encodes each frame no more often than it must."""

import numpy as np
import pytest
import torch
from helpers import frame, small_weights, write_frames

import featherflow
from featherflow.errors import FeatherflowError, InputError
from featherflow.networks import build
from featherflow.networks.liteflownet import LiteFlowNet

CLIP = [frame(72, 90, seed) for seed in range(4)]


def network(one_mean: bool):
    torch.manual_seed(0)
    built = build("liteflownetx", normalized_matching=True)
    if one_mean:
        built.mean2.copy_(built.mean1)
    return built


@pytest.fixture
def encodings(monkeypatch):
    """Counts how often a frame goes through NetC."""
    calls = []
    encode = LiteFlowNet.encode
    monkeypatch.setattr(LiteFlowNet, "encode", lambda *arguments: calls.append(1) or encode(*arguments))
    return calls


@pytest.mark.parametrize("one_mean, backward, expected", [(True, False, 4), (True, True, 4), (False, False, 6), (False, True, 8)])
def test_stream_equals_pairwise_estimates_with_fewer_encodings(one_mean, backward, expected, encodings):
    model = network(one_mean)
    flows = list(featherflow.stream(iter(CLIP), model, backward=backward))
    assert len(flows) == 3
    assert len(encodings) == expected
    for index, flow in enumerate(flows):
        pairwise = featherflow.estimate(CLIP[index], CLIP[index + 1], model, backward=backward)
        assert np.abs(np.subtract(flow, pairwise)).max() < 1e-4
        assert np.abs(pairwise).max() > 0.01  # something to compare
    assert len(encodings) - expected == 3 * (2 if one_mean or not backward else 4)


def test_default_weights_have_one_mean_and_their_size_rules_hold(encodings):
    """Small frames are seen enlarged, and the size is no multiple of anything: both as `estimate` does it."""
    flows = list(featherflow.stream(CLIP[:3]))
    assert len(encodings) == 3
    for index, flow in enumerate(flows):
        assert flow.shape == (72, 90, 2) and flow.dtype == np.float32
        assert np.abs(flow - featherflow.estimate(CLIP[index], CLIP[index + 1])).max() < 1e-4


def test_refinement_enlargement_and_half_precision_are_those_of_estimate():
    model = network(one_mean=True)
    for settings in ({"refine": 1}, {"enlarge": 2.0}, {"dtype": "bfloat16"}):
        (flow,) = featherflow.stream(CLIP[:2], model, **settings)
        assert np.abs(flow - featherflow.estimate(*CLIP[:2], model, **settings)).max() < 1e-4, settings


@pytest.mark.parametrize("model, settings", [("farneback", {}), ("raft-small", {"iterations": 2})])
def test_other_models_go_pair_by_pair(model, settings):
    if model == "farneback":
        pytest.importorskip("cv2")
    clip = [frame(128, 128, seed) for seed in range(3)] if model == "raft-small" else CLIP[:3]
    model = build(model) if model == "raft-small" else model
    flows = list(featherflow.stream(clip, model, backward=True, **settings))
    for index, flow in enumerate(flows):
        pairwise = featherflow.estimate(clip[index], clip[index + 1], model, backward=True, **settings)
        assert np.abs(np.subtract(flow, pairwise)).max() < 1e-4


def test_tiles_are_those_of_estimate():
    model = network(one_mean=True)
    clip = [frame(260, 330, seed) for seed in range(2)]
    (flow,) = featherflow.stream(clip, model, tile=(256, 256))
    assert np.abs(flow - featherflow.estimate(*clip, model, tile=(256, 256))).max() < 1e-4
    assert np.abs(flow - featherflow.estimate(*clip, model)).max() > 1e-3


def test_any_form_of_frame_and_nothing_is_read_ahead(tmp_path):
    weights = small_weights(tmp_path / "x.safetensors")
    read = []

    def frames():
        for path in write_frames(tmp_path, 4):
            read.append(path)
            yield path

    flows = featherflow.stream(frames(), "liteflownetx", weights)
    assert read == []
    assert next(flows).shape == (64, 80, 2) and len(read) == 2
    tensors = (torch.from_numpy(image.copy()).permute(2, 0, 1) for image in CLIP[:2])
    (flow,) = featherflow.stream(tensors, "liteflownetx", weights)
    assert isinstance(flow, torch.Tensor) and flow.shape == (2, 72, 90)
    assert list(featherflow.stream(CLIP[:1])) == list(featherflow.stream([])) == []


def test_bad_clips_end_in_one_sentence():
    for frames, said in (
        ([CLIP[0], frame(64, 64)], "frame 1 is 64x64"),
        ([np.stack(CLIP[:2])], "batch of 2"),
        ([CLIP[0], "no/such/file.png"], "no/such/file.png"),
    ):
        with pytest.raises(FeatherflowError, match=said):
            list(featherflow.stream(frames))
    with pytest.raises(InputError, match="one by one"):
        featherflow.stream("clip.mp4")
    with pytest.raises(InputError, match="dtype must be"):
        featherflow.stream(CLIP, dtype="int4")
    with pytest.raises(InputError, match="does not iterate"):
        list(featherflow.stream(CLIP, iterations=3))
