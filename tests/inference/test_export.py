"""Exported files: loaded again by their own runtime they give PyTorch's flow; what cannot be written says why."""

import json

import numpy as np
import pytest
import torch
from helpers import frame, run_command
from torch._subclasses.fake_tensor import FakeTensorMode

from featherflow import networks
from featherflow.errors import EngineError, FileError, InputError
from featherflow.inference import exporting
from featherflow.inference.exporting import FORMATS, _free_shapes, _free_sizes, export
from featherflow.inference.runners.graphs import ExportWrapper, exported_program
from featherflow.networks import PLAIN, FlowNetwork, RunOptions, Traits
from featherflow.networks.liteflownet import half_size

NEEDS = {"onnx": "onnxscript", "openvino": "openvino"}


@pytest.mark.parametrize("to", FORMATS)
def test_uint8_frames_of_an_odd_size(to, network, tmp_path):
    if to in NEEDS:
        pytest.importorskip(NEEDS[to])
    done = export(network, tmp_path / f"flow{FORMATS[to]}", size=(70, 90), with_frames=True)
    assert done.format == to and max(done.differences.values()) <= 1e-3 and len(done.differences) == 2
    first, second = (torch.from_numpy(frame(70, 90, seed))[None] for seed in (1, 2))
    import featherflow

    expected = featherflow.estimate(first[0].numpy(), second[0].numpy(), model=network, engine="torch")
    assert np.abs(run_file(to, done.files[0], first, second) - expected).max() <= 1e-3


def run_file(to, path, first, second):
    """As a program without featherflow would."""
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return session.run(["flow"], {"frame1": first.numpy(), "frame2": second.numpy()})[0][0]
    if to == "openvino":
        import openvino

        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return compiled({"frame1": first.numpy(), "frame2": second.numpy()})["flow"][0]
    loaded = torch.jit.load(path) if to == "torchscript" else torch.export.load(path).module()
    with torch.no_grad():
        return loaded(first, second)[0].numpy()


@pytest.mark.parametrize("to", [pytest.param("onnx", marks=pytest.mark.slow), "openvino", "exported-program"])
def test_free_sizes(to, network, tmp_path):
    """OpenVINO's file is made of ONNX's."""
    for package in ("onnxscript", NEEDS[to]) if to in NEEDS else ():
        pytest.importorskip(package)
    done = export(network, tmp_path / f"flow{FORMATS[to]}", dynamic=True)
    assert done.dynamic and list(done.differences) == ["160x128", "256x192"] and max(done.differences.values()) <= 1e-3
    # A size whose correlation takes four blocks at the coarsest level, where the sizes above take one.
    module = ExportWrapper(network, (128, 2048))
    frames = module.example()
    with torch.no_grad():
        assert np.abs(run_file(to, done.files[0], *frames) - module(*frames)[0].numpy()).max() <= 1e-3


def test_a_file_has_the_octaves_of_its_size(small, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("featherflow.inference.defaults._USUAL_PIXELS", 128 * 160 // 4)
    stop = lambda network, size, options, *_, **__: seen.append(options.octaves) or 1 / 0  # noqa: E731
    monkeypatch.setattr("featherflow.inference.exporting.ExportWrapper", stop)
    for settings in ({}, {"options": RunOptions(octaves=1)}, {"dynamic": True}):
        size = {} if "dynamic" in settings else {"size": (128, 160)}
        with pytest.raises(ZeroDivisionError):
            export(small(finest_level=4, octaves=1), tmp_path / "flow.pt2", **size, **settings)
    assert seen == [2, 1, None]


@pytest.mark.parametrize("octaves", [0, 1, 2, 3])
def test_examples_of_free_sizes_are_at_no_limit(octaves, small):
    """Where half a frame is as small as a network takes it, exporters write that size down for all frames."""
    built = small(finest_level=5, octaves=octaves)
    least, size = _free_sizes(built, PLAIN)
    assert _free_shapes(built, PLAIN)[0][2].min == min(least)
    for _ in range(octaves):
        size = half_size(size)
    assert min(size) > built.traits.smallest_size


@pytest.mark.slow
def test_free_sizes_with_an_octave(small, tmp_path):
    for package in ("onnxscript", "openvino"):
        pytest.importorskip(package)
    assert max(export(small(finest_level=4, octaves=1), tmp_path / "flow.xml", dynamic=True).differences.values()) <= 1e-3


class Padding(FlowNetwork):
    """Takes multiples of 32, others padded."""

    traits = Traits(size_multiple=32, smallest_size=32, size_rule="pad")

    def forward(self, first, second):
        return (first - second)[:, :2]


def test_padding_is_left_to_the_user_where_sizes_are_free(tmp_path):
    """Rows and columns to add are counted for one size: a graph that held them would be good for that size alone."""
    done = export(Padding(), tmp_path / "flow.pt2", dynamic=True)
    assert list(done.differences.values()) == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raft-small", "gmflow"])
def test_free_sizes_of_networks_that_pad(name, tmp_path):
    torch.manual_seed(0)
    built = networks.build(name)
    done = export(built, tmp_path / "flow.pt2", dynamic=True, options=RunOptions(1 if name == "raft-small" else None))
    assert max(done.differences.values()) <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", networks.names())
def test_every_network(name, to, tmp_path):
    """`export` itself compares with PyTorch; what it refuses is in the table of the speed page."""
    if to in NEEDS:
        pytest.importorskip(NEEDS[to])
    torch.manual_seed(0)
    built = networks.build(name)
    options = RunOptions(2 if built.traits.iterates else None)
    done = export(built, tmp_path / f"flow{FORMATS[to]}", size=(100, 150), options=options)
    assert max(done.differences.values()) <= 1e-3 and (tmp_path / f"flow{FORMATS[to]}").is_file()


class OneCaseOnly(FlowNetwork):
    """Its graph is another for frames of more than 256 px."""

    traits = Traits(size_multiple=32, smallest_size=32)

    def forward(self, first, second):
        return first if -(-first.shape[-1] // 256) == 1 else second


def test_a_graph_that_holds_for_some_sizes_only_is_refused(network, tmp_path):
    frames = torch.rand(2, 1, 3, 128, 160)
    with pytest.raises(ValueError, match="depends on the size"):
        exported_program(OneCaseOnly(), tuple(frames), _free_shapes(network, PLAIN))
    with pytest.raises(EngineError, match=r"OneCaseOnly cannot be exported .* with free sizes \(its graph depends"):
        export(OneCaseOnly(), tmp_path / "flow.pt2", dynamic=True)


@pytest.mark.parametrize("to", exporting.FREE_SIZES)
def test_a_graph_that_follows_the_size_is_refused_where_sizes_are_free(to, tmp_path):
    """By what the network says of itself: two small sizes that are compared may lie below the limit."""
    with pytest.raises(InputError, match="The graph of spynet depends on the size of the frames; leave --dynamic out"):
        export(networks.build("spynet"), tmp_path / f"flow{FORMATS[to]}", name="spynet", dynamic=True)
    assert list(tmp_path.iterdir()) == []


QUICK = ("liteflownet-tied", "spynet")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in networks.names() if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_a_network_says_whether_its_graph_follows_the_size(name):
    """Without a word of it, layers run as often on a small frame as on a larger one."""
    with FakeTensorMode():
        network = networks.build(name).eval()
        least = exporting._least(network, PLAIN)
        counts = [_convolutions(network, torch.zeros(1, 3, side, side)) for side in (least, 4 * least)]
    assert (counts[0] != counts[1]) == network.traits.graph_follows_size


def _convolutions(network, frame):
    """How often a network convolves."""
    calls = []
    handles = [
        layer.register_forward_hook(lambda *_: calls.append(1)) for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        network(frame, frame)
    for handle in handles:
        handle.remove()
    return len(calls)


@pytest.mark.parametrize("options, said", [(("--iterations", 0), "at least 1, got 0"), (("--octaves", -1), "0 or more, got -1")])
def test_numbers_that_no_network_can_use(options, said, tmp_path, capsys):
    name = "raft-small" if "--iterations" in options else "liteflownetx"
    assert run_command("export", name, "--untrained", "-o", tmp_path / "flow.pt", *options) == 2
    assert said in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_int8(network, tmp_path):
    pytest.importorskip("nncf")
    done = export(network, tmp_path / "flow.xml", size=(70, 90), with_frames=True, dtype="int8")
    import openvino

    assert done.dtype == "int8"
    nodes = openvino.Core().read_model(tmp_path / "flow.xml").get_ordered_ops()
    narrow = [node for node in nodes if node.get_type_name() == "FakeQuantize"]
    reading = {reader.get_node() for node in narrow for reader in node.output(0).get_target_inputs()}
    assert len(narrow) > 3 and {node.get_type_name() for node in reading} == {"Convolution"}
    # M's and S's flows, and R's nine distances: 8 bits would not hold what they answer.
    channels = [node.output(0).get_partial_shape()[1].get_length() for node in nodes if node.get_type_name() == "Convolution"]
    assert {2, 9} <= set(channels) and {2, 9}.isdisjoint(node.output(0).get_partial_shape()[1].get_length() for node in reading)


def test_a_file_that_differs_is_not_kept(network, tmp_path, monkeypatch):
    monkeypatch.setitem(exporting._WRITERS, "torchscript", lambda *args: args[2].write_bytes(b"x") and (lambda a, b: a[:, :2] + 1))
    with pytest.raises(EngineError, match="differs from PyTorch"):
        export(network, tmp_path / "flow.pt", size=(64, 96))
    assert list(tmp_path.iterdir()) == []


def test_what_an_exporter_stumbles_over_is_said(network, tmp_path, monkeypatch):
    def fail(*args):
        try:
            raise RuntimeError("no such operator\nmuch more")
        except RuntimeError as error:
            raise ValueError("the exporter's long report") from error

    monkeypatch.setitem(exporting._WRITERS, "torchscript", fail)
    with pytest.raises(EngineError, match=r"cannot be exported to torchscript \(no such operator\)"):
        export(network, tmp_path / "flow.pt", size=(64, 96))


def test_command_line(tmp_path, capsys):
    path = tmp_path / "flow.pt"
    assert run_command("export", "liteflownetx", "-o", path, "--height", "64", "--width", "96", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "torchscript" and said["size"] == [64, 96] and max(said["differences"].values()) <= 1e-3
    assert path.stat().st_size > 1e6


@pytest.mark.parametrize(
    "wrong, error",
    [
        ({"path": "flow.txt"}, InputError),
        ({"path": "flow.pt", "to": "onnx"}, InputError),
        ({"path": "flow.pt", "to": "tflite"}, InputError),
        ({"path": "flow.pt", "dtype": "bfloat16"}, InputError),
        ({"path": "flow.pt", "dynamic": True}, InputError),
        ({"path": "flow.onnx", "dtype": "int8"}, InputError),
        ({"path": "flow.xml", "dtype": "int8", "dynamic": True}, InputError),
        ({"path": "flow.pt2", "dynamic": True, "with_frames": True}, InputError),
        ({"path": "flow.pt", "size": (8, 8)}, InputError),
        ({"path": "missing/flow.pt", "size": (64, 96)}, FileError),
    ],
)
def test_bad_requests(network, tmp_path, wrong, error):
    with pytest.raises(error):
        export(network, tmp_path / wrong.pop("path"), **wrong)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_network_is_not_exported(tmp_path, capsys):
    for name, said in (("dis", "classical method"), ("liteflownet2-slm", "did you mean 'liteflownet2-slim'?")):
        assert run_command("export", name, "-o", tmp_path / "flow.pt") == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("to", ["torchscript", "exported-program"])
def test_a_file_asks_for_no_gradient(to, network, tmp_path):
    done = export(network, tmp_path / f"flow{FORMATS[to]}", size=(64, 96))
    loaded = torch.jit.load(done.files[0]) if to == "torchscript" else torch.export.load(done.files[0]).module()
    assert not loaded(torch.zeros(1, 3, 64, 96), torch.zeros(1, 3, 64, 96)).requires_grad
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_random_weights_are_not_written_unasked(tmp_path, capsys):
    arguments = ("export", "raft-small", "-o", tmp_path / "flow.pt", "--height", "64", "--width", "64")
    assert run_command(*arguments) == 4
    assert "--untrained" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["onnx", "openvino", "torchscript", "exported-program"])
def test_a_file_says_what_it_is(to, network, tmp_path):
    if to in NEEDS:
        pytest.importorskip(NEEDS[to])
    path = tmp_path / f"flow{FORMATS[to]}"
    export(network, path, size=(64, 96))
    if to == "onnx":
        import onnx

        said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    elif to == "openvino":
        import openvino

        model = openvino.Core().read_model(path)
        said = {key: model.get_rt_info(key.replace(" ", "_")).astype(str) for key in ("featherflow weights", "featherflow frames")}
    else:
        files = {"featherflow.json": ""}
        torch.jit.load(path, _extra_files=files) if to == "torchscript" else torch.export.load(path, extra_files=files)
        said = json.loads(files["featherflow.json"])
    assert said["featherflow weights"].startswith("not stated") and "RGB" in said["featherflow frames"]


def test_a_file_enlarges_small_frames_as_estimate_does(small, tmp_path):
    import featherflow
    from featherflow.weights import WeightsInfo

    built = small()
    built.weights_info = WeightsInfo(architecture="liteflownet2", tag="test", enlarge_below=10_000, licence_weights="CC0-1.0")
    done = export(built, tmp_path / "flow.pt", size=(70, 90), with_frames=True)
    first, second = (torch.from_numpy(frame(70, 90, seed))[None] for seed in (1, 2))
    expected = featherflow.estimate(first[0].numpy(), second[0].numpy(), model=built, engine="torch", dtype="float32")
    assert np.abs(run_file("torchscript", done.files[0], first, second) - expected).max() <= 1e-3
    plain = featherflow.estimate(first[0].numpy(), second[0].numpy(), model=built, engine="torch", dtype="float32", enlarge=1)
    assert np.abs(plain - expected).max() > 1e-2
    files = {"featherflow.json": ""}
    torch.jit.load(done.files[0], _extra_files=files)
    said = json.loads(files["featherflow.json"])
    assert "180x140 px" in said["featherflow small frames"] and said["featherflow licence of the weights"] == "CC0-1.0"
