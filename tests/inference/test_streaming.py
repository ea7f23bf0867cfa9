"""`stream` gives what pairwise `estimate` gives, and encodes each frame no more often than it must."""

import numpy as np
import pytest
import torch
from helpers import frame, run_command, small_weights, write_frames

import featherflow
from featherflow.errors import FeatherflowError, InputError
from featherflow.flow import read_flow
from featherflow.networks import FlowNetwork, Traits, build
from featherflow.networks.liteflownet import LiteFlowNet
from featherflow.networks.liteflownet_tied import LiteFlowNetTied
from featherflow.networks.raft import FlowIterate
from featherflow.ops import push_forward

CLIP = [frame(72, 90, seed) for seed in range(4)]


def network(one_mean: bool):
    torch.manual_seed(0)
    built = build("liteflownetx", normalized_matching=True)
    if one_mean:
        built.mean2.copy_(built.mean1)
    return built


@pytest.fixture
def encodings(monkeypatch):
    """Counts how often a frame is looked at for its features."""
    calls = []
    for kind in (LiteFlowNet, LiteFlowNetTied):

        def counted(*given, encode=kind.encode, **options):
            calls.append(1)
            return encode(*given, **options)

        monkeypatch.setattr(kind, "encode", counted)
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
    for settings in ({"refine": 1}, {"enlarge": 2.0}, {"dtype": "bfloat16"}, {"octaves": 1}):
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

    flows = featherflow.stream(frames(), "liteflownetx", weights=weights)
    assert read == []
    assert next(flows).shape == (64, 80, 2) and len(read) == 2
    tensors = (torch.from_numpy(image.copy()).permute(2, 0, 1) for image in CLIP[:2])
    (flow,) = featherflow.stream(tensors, "liteflownetx", weights=weights)
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
        list(featherflow.stream(CLIP, "liteflownetx", iterations=3))


@pytest.mark.parametrize("backward", [False, True])
def test_warm_start_begins_where_the_pair_before_ended(backward):
    """Against the network's own calls, on frames that are padded; the first pair is a cold one."""
    torch.manual_seed(0)
    model = build("raft-small")
    clip = [frame(129, 140, seed) for seed in range(3)]
    warm = list(featherflow.stream(clip, model, backward=backward, iterations=2, warm_start=True))
    cold = list(featherflow.stream(clip, model, backward=backward, iterations=2))
    assert np.array_equal(warm[0], cold[0])
    assert np.abs(np.subtract(warm[1], cold[1])).max() > 0.01
    padded = [np.pad(image, ((3, 4), (2, 2), (0, 0)), mode="edge") for image in clip]
    batches = [torch.from_numpy(image).movedim(-1, 0)[None].float() / 255 for image in padded]
    flows = []
    for sign, pairs in ((1, [(0, 1), (1, 2)]), (-1, [(1, 0), (2, 1)]))[: 1 + backward]:
        start = None
        for first, second in pairs:
            with torch.inference_mode():
                last = model.flows(batches[first], batches[second], 2, start)[-1]
            start = sign * push_forward(sign * last.coarse)
        flows.append(last.flow[0, :, 3:132, 2:142].movedim(0, -1).numpy())
    assert np.abs(np.subtract(warm[1], flows if backward else flows[0])).max() < 1e-4


class Keeping(FlowNetwork):
    """Finds a flow of its own for the first pair, another one back in time, and later leaves the start as it is."""

    traits = Traits(size_multiple=8, smallest_size=8, size_rule="pad", accepts_initial_flow=True)

    def __init__(self, forward, backward):
        super().__init__()
        self.found = {True: forward, False: backward}

    def flows(self, first, second, initial_flow=None, last_only=False):
        coarse = self.found[bool(first.mean() < second.mean())] if initial_flow is None else initial_flow
        return [FlowIterate(coarse, 8 * coarse.repeat_interleave(8, 2).repeat_interleave(8, 3))]


def test_each_direction_is_carried_along_its_own_motion():
    """Pixel by pixel. What came from x + b, standing at x, will next stand at x - b and still have come by b."""
    generator = torch.Generator().manual_seed(1)
    found = torch.rand(2, 1, 2, 6, 9, generator=generator) * 5 - 2
    pattern = np.random.default_rng(0).integers(0, 9, (48, 72, 3), dtype=np.uint8)  # frames of one colour have no flow
    clip = [grey + pattern for grey in (50, 60, 70)]
    _, (forward, backward) = featherflow.stream(clip, Keeping(*found), backward=True, warm_start=True)
    for flow, first, sign in ((forward, found[0, 0], 1), (backward, found[1, 0], -1)):
        moved = [(x + sign * float(first[0, y, x]), y + sign * float(first[1, y, x]), y, x) for y in range(6) for x in range(9)]
        moved = [arrival for arrival in moved if 0 < arrival[0] < 9 and 0 < arrival[1] < 6]
        for y in range(6):
            for x in range(9):
                _, _, from_y, from_x = min(moved, key=lambda arrival: (arrival[0] - x) ** 2 + (arrival[1] - y) ** 2)
                assert np.allclose(flow[8 * y + 3, 8 * x + 5] / 8, first[:, from_y, from_x])


def test_what_cannot_be_started_warm_is_said_at_once(tmp_path, capsys):
    raft = build("raft-small")
    for model, settings, said in (
        (network(one_mean=True), {}, "LiteFlowNet does not"),
        ("farneback", {}, "'farneback' does not"),
        (build("gmflow"), {}, "GMFlow does not"),
        (raft, {"engine": "openvino"}, "engine torch; openvino"),
        (raft, {"tile": (256, 256)}, "whole frames"),
    ):
        with pytest.raises(InputError, match=f"warm_start .*{said}"):
            featherflow.stream(CLIP, model, warm_start=True, **settings)
    write_frames(tmp_path)
    code = run_command("video", tmp_path, "--flow-dir", tmp_path / "flows", "--warm-start", "--model", "dis")
    assert code == InputError.exit_code and not (tmp_path / "flows").exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_video_starts_warm_where_asked(tmp_path):
    weights = small_weights(tmp_path / "x.safetensors", "raft-small")
    paths = write_frames(tmp_path, 3, 128, 136)
    chosen = (
        "--model",
        "raft-small",
        "--weights",
        weights,
        "--iterations",
        1,
        "--format",
        "npz",
        "--cuts",
        0,
    )  # the frames have nothing in common
    for option, warm in (("--warm-start", True), ("--no-warm-start", False)):
        assert run_command("video", tmp_path, "--flow-dir", tmp_path / option, option, *chosen) == 0
        flows = list(featherflow.stream(paths, "raft-small", weights=weights, iterations=1, warm_start=warm))
        for index, flow in enumerate(flows):
            assert np.array_equal(read_flow(tmp_path / option / f"{index:06d}.npz"), flow)
    assert not np.array_equal(read_flow(tmp_path / "--warm-start" / "000001.npz"), flows[1])
