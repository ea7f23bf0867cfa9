"""Timing: what is counted is exact, what is timed is timed in turn, and peers are asked, not guessed."""

import json
import sys
from collections import Counter

import pytest
import torch
from helpers import run_command, run_network
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import featherflow
from featherflow.errors import InputError
from featherflow.evaluation import speed
from featherflow.ops import convolution


def test_operations_of_liteflownet2_are_those_of_its_layers():
    """A layer at the wrong size, or work done twice, shows here long before it shows in a time. As published: no octave."""
    with_weights = speed.operations("liteflownet2", (436, 1024))
    published = speed.operations("liteflownet2", (436, 1024), octaves=0)
    assert 1.3 < with_weights / published < 1.35  # two octaves: a third more
    assert speed.operations("liteflownet2", (436, 1024), 0, convolutions_only=True) == pytest.approx(135.8, abs=0.3)
    assert published < 1.02 * 135.8  # costs and filters are next to nothing


def test_operations_grow_with_the_grid():
    once, twice = (speed.operations("liteflownet2-slim", (256, width)) for width in (256, 512))
    assert 1.9 < twice / once < 2.1


@pytest.mark.parametrize(
    "name, octaves, gflop",
    [
        ("liteflownet2-slim", 1, 49),
        ("liteflownet2-slim", None, 51.5),
        ("liteflownetx", 0, 62),
        ("liteflownetx", 1, 77),
        ("liteflownetx", None, 81),
        ("spynet", None, 293),
    ],
)
def test_operations_are_those_of_the_speed_page(name, octaves, gflop):
    assert speed.operations(name, (436, 1024), octaves) == pytest.approx(gflop, rel=0.015)


def test_both_directions_save_one_encoding_of_each_frame(monkeypatch):
    monkeypatch.setattr(convolution, "_FUSED", None)  # an operator that the counter does not know
    network = featherflow.load("liteflownet2-slim")
    estimator = featherflow.Estimator(network, dtype="float32", engine="torch", enlarge=1.0)
    first, second = torch.rand(2, 1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    once = counted(lambda: estimator(first, second))
    both = counted(lambda: estimator.both(first, second))
    encoding = counted(lambda: network.encode(first, network.mean1))
    assert both == 2 * once - 2 * encoding and 0.85 < both / (2 * once) < 0.90


def counted(work) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_a_stream_looks_at_each_frame_once(monkeypatch):
    monkeypatch.setattr(convolution, "_FUSED", None)
    frames, candidate = speed.moving_texture((64, 96)), speed.Candidate("liteflownet2-slim", "torch", "float32")
    pair, _ = speed._call(candidate, frames, stream=False)
    following, _ = speed._call(candidate, frames, stream=True)
    assert 0.85 < counted(following) / counted(pair) < 0.90


def test_a_pass_calls_no_more_operators_than_it_needs():
    """Each convolution takes its leaky ReLU along; maps are not copied to another layout between layers."""
    if convolution._FUSED is None:
        pytest.skip("needs a PyTorch with oneDNN")
    network = featherflow.load("liteflownet2-slim").to(memory_format=torch.channels_last)
    first, second = torch.rand(2, 1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    run_network(network, first, second, octaves=0)  # what is kept from the first pass on
    with Calls() as calls:
        run_network(network, first, second, octaves=0)
    levels = len(network.config.levels)
    whole, netc = (sum(isinstance(module, torch.nn.Conv2d) for module in part.modules()) for part in (network, network.netc))
    assert calls.of["_convolution_pointwise"] + calls.of["conv2d"] == whole + netc  # NetC sees both frames
    assert calls.of["leaky_relu"] == levels  # of the costs alone
    # Features warped for M and S, images for R; at the coarsest level there is no flow before M.
    assert calls.of["embedding_bag"] + calls.of["_embedding_bag_forward_only"] == 2 * levels - 1
    assert calls.of["grid_sampler"] == levels
    # Seven rows of costs; both frames reduced by rows and columns, 24 columns in two bands.
    assert calls.of["matmul"] == 7 * levels + 2 * (2 * levels + 1)
    assert calls.of["contiguous"] == 2 and calls.of["clone"] == 0


class Calls(TorchDispatchMode):
    """How often each operator was called."""

    def __init__(self):
        super().__init__()
        self.of = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.of[function.overloadpacket.__name__] += 1
        return function(*arguments, **(keywords or {}))


def test_candidates():
    found = speed.candidates(["liteflownetx", "dis"], ["torch", "onnx"], ["float32"], ["opencv", "peer --fast"])
    assert [c.name for c in found] == [
        "liteflownetx torch float32",
        "liteflownetx onnx float32",
        "dis",
        "dis-ultrafast",
        "dis-fast",
        "farneback",
        "--fast",
    ]
    refined = speed.candidates(["liteflownetx", "liteflownetx+2", "dis+1"])
    assert [c.name for c in refined] == ["liteflownetx torch float32", "liteflownetx+2 torch float32", "dis+1"]
    for wrong in (
        {"models": ["raftt"]},
        {"models": ["dis+0"]},
        {"models": ["raft"], "engines": ["tpu"]},
        {"models": ["raft"], "dtypes": ["int4"]},
    ):
        with pytest.raises(InputError):
            speed.candidates(**wrong)


def test_refinement_is_timed():
    """Would catch steps that are lost on the way to the estimator: many take several times as long as none."""
    pytest.importorskip("cv2")
    plain, refined = speed.bench(speed.candidates(["dis", "dis+40"]), (96, 128), runs=3, memory=False).timings
    assert refined.model == "dis+40" and refined.ms > 3 * plain.ms


PEER = """
import sys
for path in sys.argv[1:3]:
    assert open(path, "rb").read(4) == b"\\x89PNG"
print("ready", flush=True)
for line in sys.stdin:
    print(2.5, flush=True)
"""


def test_bench_command(tmp_path, capsys):
    (tmp_path / "peer.py").write_text(PEER)
    (tmp_path / "broken.py").write_text("print('hello')")
    good, broken = (f"{sys.executable} {tmp_path / name}" for name in ("peer.py", "broken.py"))
    code = run_command(
        "bench",
        "pwcnet",
        "--dtype",
        "float32",
        "--dtype",
        "bfloat16",
        "--size",
        "96x64",
        "--runs",
        "3",
        "--against",
        good,
        "--against",
        broken,
        "--no-memory",
        "--json",
    )
    assert code == 0
    said = json.loads(capsys.readouterr().out)
    first, half, peer = said["timings"]
    assert first["times_faster"] == 1 and first["fastest_ms"] <= first["ms"] <= first["slowest_ms"]
    assert first["gflop"] == half["gflop"] > 0.1 and not first["trained"]
    assert first["gflop_per_second"] == pytest.approx(1000 * first["gflop"] / first["ms"])
    assert peer["ms"] == 2.5 and peer["times_faster"] == pytest.approx(first["ms"] / 2.5)
    assert list(said["failures"]) == [str(tmp_path / "broken.py")] and "ready" in next(iter(said["failures"].values()))
    assert said["rates"]["copy"] > 0.1


def test_peak_memory_is_that_of_the_work_alone():
    small, large = (speed.peak_memory(speed.Candidate("liteflownetx", "torch", "float32"), (64, width)) for width in (64, 2048))
    if small is None:
        pytest.skip("this system does not tell")
    assert 0 < small < 500 and large > small + 20


def test_markdown_names_the_conditions(capsys):
    assert run_command("bench", "pwcnet", "--size", "64x64", "--runs", "1", "--no-memory") == 0
    text = capsys.readouterr().out
    assert "| pwcnet * | torch | float32 |" in text and "64x64 px, medians of 1 rounds" in text and "GB/s" in text
    assert run_command("bench", "liteflownetx", "dis", "--size", "64x64", "--runs", "1", "--stream") == 0
    assert "64x64 px, along a stream, medians" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        ("--size", "huge"),
        ("--size", "8x8"),
        ("--runs", "0"),
        ("--engine", "tpu"),
        ("--stream", "--against", "peer"),
    ],
)
def test_bad_requests_end_in_one_sentence(wrong, capsys):
    assert run_command("bench", "liteflownetx", *wrong) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("wrong", [("--octaves", "99"), ("--dtype", "int8")])
def test_where_nothing_can_run_it_fails(wrong, capsys):
    assert run_command("bench", "liteflownetx", "--size", "64x64", *wrong) == 2
    said = capsys.readouterr()
    assert said.err.strip().count("\n") == 0 and "Nothing to time" in said.err and not said.out
