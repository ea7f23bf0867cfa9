"""Engines: the same flow as PyTorch, built once, taken when faster, refused when different."""

import dataclasses
import gc
import logging
import subprocess
import sys
import threading
import weakref
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import frame, small_weights

import featherflow
from featherflow import networks
from featherflow.classical.refinement import refine
from featherflow.errors import EngineError, InputError, MissingExtraError
from featherflow.frames import as_batch
from featherflow.inference import Estimator, defaults
from featherflow.inference.runners import bfloat16, builds, calibration, choice, compiled, int8, onnx, threads
from featherflow.inference.runners import openvino as runners_openvino
from featherflow.inference.runners.graphs import ExportWrapper
from featherflow.inference.runners.pytorch import InferenceSpec
from featherflow.networks import RunOptions
from featherflow.networks.liteflownet_tied import LiteFlowNetTied, TiedConfig
from featherflow.training.initialization import initialize

PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network(small):
    """One that no other file builds."""
    return small(subpixel=(5,))


def frames(height=70, width=90):
    """Of a size that has to be resized: the size rule is part of the graph."""
    return frame(height, width, 1), frame(height, width, 2)


def key(engine, network, dtype="float32"):
    """Of the build for `frames()`, as an estimator asks for it."""
    return choice.Task(network, InferenceSpec((1, 3, 70, 90), network.traits, CPU, dtype, RunOptions(octaves=0))).key(engine)


@pytest.mark.parametrize("engine", PACKAGES)
def test_equal_to_pytorch_and_built_once(engine, small, caplog):
    pytest.importorskip(PACKAGES[engine])
    network = small(subpixel=(13,))  # one that no other test builds
    caplog.set_level(logging.INFO, "featherflow")
    choice._say.cache_clear()
    expected = featherflow.estimate(*frames(), model=network, engine="torch")
    assert np.abs(expected).max() > 0.05  # there is something to agree on
    first = featherflow.estimate(*frames(), model=network, engine=engine)
    assert np.abs(first - expected).max() <= choice.TOLERANCE
    assert np.array_equal(featherflow.estimate(*frames(), model=network, engine=engine), first)
    said = [record.message for record in caplog.records]
    assert sum("building" in line for line in said) == 1 and any(f"engine {engine} in float32" in line for line in said)


def test_openvino_knows_all_that_the_default_is_made_of():
    """It once had an operator that OpenVINO has no rule for. Of few channels, so that it is built soon."""
    pytest.importorskip("openvino")
    narrow = {name: (8, 8, 8) for name in ("matching", "subpixel", "regularization", "half_subpixel")}
    config = TiedConfig(stem=8, features=8, state=8, search_radius=1, projected_features=8, half_state=8, enlargement=8, **narrow)
    torch.manual_seed(0)
    network = LiteFlowNetTied(config).eval()
    expected, found = (featherflow.estimate(*frames(), model=network, engine=engine) for engine in ("torch", "openvino"))
    assert np.abs(expected).max() > 0.05 and np.abs(found - expected).max() <= choice.TOLERANCE


def test_openvino_in_bfloat16_rounds_convolutions_alone(network):
    """OpenVINO's own hint would also round flow and coordinates."""
    pytest.importorskip("openvino")
    exact, half = (featherflow.estimate(*frames(), model=network, engine="openvino", dtype=d) for d in ("float32", "bfloat16"))
    difference = np.abs(half - exact)
    assert 0 < difference.max() < 0.03 * np.abs(exact).max()
    assert len(np.unique(half)) > 1000  # bfloat16 holds 128 numbers between 1 and 2


def test_int8_is_a_build_of_its_own_and_keeps_the_flow(network, caplog, capsys):
    pytest.importorskip("nncf")
    openvino = pytest.importorskip("openvino")
    caplog.set_level(logging.INFO, "featherflow")
    exact, rough = (featherflow.estimate(*frames(), model=network, engine="openvino", dtype=d) for d in ("float32", "int8"))
    assert capsys.readouterr().out == ""  # NNCF would speak there, amid figures as JSON
    caplog.clear()
    again = featherflow.estimate(*frames(), model=network, engine="openvino", dtype="int8")
    assert np.array_equal(again, rough) and not np.array_equal(rough, exact)
    assert np.abs(rough - exact).mean() < 0.3 * np.abs(exact).mean()  # of a network of a few channels, untrained
    assert not any("building" in record.message for record in caplog.records)
    place = builds.find(key("openvino", network, "int8"))
    assert "nncf" in builds.read(place)["version"] and list(builds.read(place)["checks"]) == [choice._conditions("int8")]
    in_8_bits = [
        node
        for node in openvino.Core().read_model(place / "model.xml").get_ops()
        if node.get_type_name() == "Convolution" and node.input_value(0).get_node().get_type_name() == "FakeQuantize"
    ]
    assert len(in_8_bits) > 1 and all(int8._positions(node) > int8.COARSE for node in in_8_bits)
    assert place != builds.find(key("openvino", network, "float32"))


def test_int8_leaves_the_rest_in_bfloat16_where_the_cpu_has_it(network, monkeypatch):
    pytest.importorskip("nncf")
    openvino = pytest.importorskip("openvino")
    featherflow.estimate(*frames(), model=network, engine="openvino", dtype="int8")
    place = builds.find(key("openvino", network, "int8"))
    model = openvino.Core().read_model(place / "model.xml")
    bfloat16.narrow(model)
    kinds = {"f32": 0, "bf16": 0}
    for node in model.get_ops():
        if node.get_type_name() == "Convolution":
            in_8_bits = node.input_value(0).get_node().get_type_name() == "FakeQuantize"
            kind = node.output(0).get_element_type().get_type_name()
            assert kind == ("f32" if in_8_bits else "bf16")
            kinds[kind] += 1
    assert all(kinds.values())
    pair = [torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    flows = []
    for has in (True, False):
        monkeypatch.setattr(runners_openvino, "cpu_has_bfloat16", lambda has=has: has)
        flows.append(runners_openvino.load(place, "int8", 1)(*pair))
    assert 0 < float((flows[0] - flows[1]).abs().max()) < 0.03 * float(flows[1].abs().max())


def test_int8_that_changes_the_flow_is_refused():
    expected = torch.full((1, 2, 4, 5), 3.0)
    int8.check(expected * 1.05, expected)
    int8.check(torch.full((1, 2, 4, 5), 0.05), torch.zeros(1, 2, 4, 5))
    for wrong in (expected * 1.2, expected * float("nan")):
        with pytest.raises(EngineError, match="In int8 the flow changes"):
            int8.check(wrong, expected)


def test_int8_is_calibrated_on_the_same_rendered_pairs(network):
    module = ExportWrapper(network, (37, 53), bytes_in=True)
    pairs, again = calibration.rendered_pairs(module, batch=2), calibration.rendered_pairs(module, batch=2)
    assert len(pairs) == calibration.PAIRS and all(
        a.shape == (2, 37, 53, 3) and a.dtype == np.uint8 for pair in pairs for a in pair
    )
    assert all(np.array_equal(a, b) for old, new in zip(pairs, again, strict=True) for a, b in zip(old, new, strict=True))
    assert not np.array_equal(pairs[0][0], pairs[1][0]) and not np.array_equal(pairs[0][0], pairs[0][1])


def test_the_key_holds_all_code_that_a_build_is_made_by(network, monkeypatch):
    """Else a build of the code before would be taken: in 8 bits one that was calibrated on other scenes."""
    monkeypatch.setattr(calibration, "PAIRS", 1)
    module, ran = ExportWrapper(network, (37, 53)), set()
    sys.setprofile(lambda frame, event, argument: ran.add(Path(frame.f_code.co_filename)))
    try:
        module(*map(torch.from_numpy, calibration.rendered_pairs(module)[0]))
    finally:
        sys.setprofile(None)
    package = Path(featherflow.__file__).parent
    ran = {path for path in ran if path.is_relative_to(package)}
    assert {path.parent.name for path in ran} >= {"networks", "ops", "data", "runners"}
    assert ran <= set(builds._sources())


LOGGING = """
import logging, sys
import numpy as np
import featherflow

handler, kind = logging.NullHandler(), logging.getLoggerClass()
logging.getLogger("nncf").addHandler(handler)
loggers = [logging.getLogger(name) for name in (None, "featherflow")]

def state():
    return [(logger.level, logger.propagate, logger.disabled, list(logger.handlers), list(logger.filters)) for logger in loggers]

before, frames = state(), np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8)
featherflow.estimate(*frames, "liteflownetx", weights=sys.argv[1], engine=sys.argv[2], dtype=sys.argv[3], octaves=0)
assert state() == before, (state(), before)
assert handler.level == logging.NOTSET and logging.getLoggerClass() is kind
"""


@pytest.mark.parametrize(("engine", "dtype"), [("openvino", "int8"), ("onnx", "float32")])
def test_engines_leave_the_caller_s_logging_and_output_alone(engine, dtype, tmp_path, monkeypatch):
    """In a program of its own, whose root has no handler yet: levels, handlers and filters stay, and the class of loggers. OpenVINO
    looks for the word --verbose among those of the program."""
    pytest.importorskip({"int8": "nncf"}.get(dtype, "onnxruntime"))
    monkeypatch.setenv("FEATHERFLOW_HOME", str(tmp_path))
    words = [small_weights(tmp_path / "x.safetensors"), engine, dtype, "--verbose"]
    process = subprocess.run([sys.executable, "-c", LOGGING, *words], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "" and "Traceback" not in process.stderr and "WARNING" not in process.stderr


def test_int8_without_nncf(network, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r'pip install "featherflow\[int8\]"'):
        featherflow.estimate(*frames(), model=network, engine="openvino", dtype="int8")


def test_auto_takes_what_was_measured_to_be_faster(network, monkeypatch):
    pytest.importorskip("onnxruntime")
    featherflow.estimate(*frames(), model=network, engine="onnx")
    place = builds.find(key("onnx", network, "float32"))
    taken = []
    monkeypatch.setattr(choice, "_say", lambda name, engine, *rest: taken.append(engine))
    monkeypatch.setitem(choice._BUILT, "openvino", "no_such_package")
    for torch_ms, engine in ((20.0, "onnx"), (5.0, "torch")):
        builds.record_check(place, choice._conditions("float32"), {"ms": 10.0, "torch_ms": torch_ms, "max_difference_px": 0.0})
        featherflow.estimate(*frames(), model=network)
        assert taken.pop() == engine
    featherflow.estimate(*frames(), model=network, dtype="bfloat16")  # which this engine does not compute in
    assert taken.pop() == "torch"
    featherflow.estimate(*frames(64, 96), model=network)  # for which nothing is built
    assert taken.pop() == "torch"


def test_an_engine_that_differs_is_refused(network, monkeypatch):
    monkeypatch.setattr(onnx, "write", lambda module, frames, folder, dtype: None)
    monkeypatch.setattr(onnx, "version", lambda dtype: "broken")
    monkeypatch.setattr(onnx, "load", lambda *args: lambda first, second: torch.ones(1, 2, 70, 90))
    with pytest.raises(EngineError, match="differs from PyTorch"):
        featherflow.estimate(*frames(), model=network, engine="onnx")


def test_an_engine_that_cannot_be_built_says_so_and_leaves_nothing(network, monkeypatch, home):
    def fail(*args):
        raise RuntimeError("operator not supported\nlong trace")

    monkeypatch.setattr(onnx, "version", lambda dtype: "failing")
    monkeypatch.setattr(onnx, "write", fail)
    before = set(builds.folder().glob("*")) if builds.folder().is_dir() else set()
    with pytest.raises(EngineError, match=r"cannot run LiteFlowNet \(operator not supported\)"):
        featherflow.estimate(*frames(), model=network, engine="onnx")
    assert set(builds.folder().glob("*")) == before


def test_changed_weights_are_another_build():
    network = networks.build("liteflownetx")
    before = choice.identity(network)
    assert choice.identity(network) == before
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    assert choice.identity(network) != before
    assert choice.identity(networks.build("liteflownetx", warping=False)) != choice.identity(network)


def test_bad_choices():
    for wrong, said in (
        ({"engine": "tpu"}, "must be one of"),
        ({"engine": "onnx", "dtype": "float16", "model": "liteflownet2-slim"}, "float16"),
        ({"engine": "openvino", "model": "farneback"}, "takes no engine"),
        ({"engine": "onnx", "dtype": "int8", "model": "liteflownet2-slim"}, "does not compute in int8"),
        ({"dtype": "int8", "model": "liteflownet2-slim"}, "Only the engine openvino computes in int8"),
        ({"engine": "torch", "dtype": "int8", "model": "liteflownet2-slim"}, "Only the engine openvino computes in int8"),
    ):
        with pytest.raises(InputError, match=said):
            featherflow.estimate(*frames(), **wrong)


def test_compiling_meets_no_graph_break(network):
    """Inductor needs a C++ compiler and a minute; whether the graph is whole is decided before it."""
    module = ExportWrapper(network, (64, 96))
    example = module.example()
    with torch.no_grad():
        whole = torch.compile(module, backend="eager", fullgraph=True, dynamic=False)
        assert torch.allclose(whole(*example), module(*example), atol=1e-5)


def test_compiled_for_a_gpu_is_a_cuda_graph_but_in_other_threads(network, monkeypatch):
    modes = []
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, mode, **options: modes.append(mode) or compiler(network, backend="eager"))
    network = copy(network)  # nothing is kept of this in that of other tests
    for device in ("cpu", "cuda", "cuda:1", "cpu"):
        compiled.compiled(network, torch.device(device))
    thread = threading.Thread(target=compiled.compiled, args=(copy(network), torch.device("cuda")))
    thread.start()
    thread.join()
    assert modes == ["default", "reduce-overhead", "default"]


def test_compiled_networks_are_told_octaves_with_each_call_and_are_not_kept(monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: compiler(network, backend="eager"))
    network = networks.build("liteflownet2", features=((4,),) * 6, finest_level=5, matching=(4,), subpixel=(), regularization=())
    initialize(network, torch.Generator().manual_seed(0))
    for octaves in (0, 1, 0):
        expected = featherflow.estimate(*frames(), model=network, engine="torch", octaves=octaves)
        found = featherflow.estimate(*frames(), model=network, engine="compile", octaves=octaves)
        assert np.abs(found - expected).max() < 1e-4
    alive = weakref.ref(network)
    del network
    gc.collect()
    assert alive() is None


def test_bfloat16_is_automatic_only_where_it_was_measured(monkeypatch):
    monkeypatch.setattr(defaults, "cpu_has_bfloat16", lambda: True)
    slim = featherflow.load("liteflownet2-slim")
    assert defaults.usual_dtype(slim, CPU) == "bfloat16"
    assert defaults.usual_dtype(networks.build("liteflownetx"), CPU) == "float32"
    imported = networks.build("liteflownet2-slim")
    imported.weights_info = dataclasses.replace(slim.weights_info, recipe="", tag="official")
    assert defaults.usual_dtype(imported, CPU) == "float32"
    assert defaults.usual_dtype(slim, torch.device("cuda")) == "float32"
    monkeypatch.setattr(defaults, "cpu_has_bfloat16", lambda: False)
    assert defaults.usual_dtype(slim, CPU) == "float32"


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_threads_of_a_container(tmp_path, monkeypatch, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads.container_threads(tmp_path) == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.container_threads(tmp_path) is None


def test_importing_the_settings_is_light():
    code = "import sys, featherflow.inference; print([m for m in ('torch', 'openvino', 'onnxruntime') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_step_of_refinement_follows_only_where_it_was_measured():
    first, second = frames()
    slim = Estimator("liteflownet2-slim", dtype="float32", engine="torch")
    bare = Estimator("liteflownet2-slim", dtype="float32", engine="torch", refine=0)
    assert (slim.refine, bare.refine, Estimator("dis").refine) == (1, 0, 0)
    assert Estimator(networks.build("liteflownet2-slim")).refine == 0  # weights of nobody
    better = refine(as_batch(first), as_batch(second), torch.from_numpy(bare(first, second)).permute(2, 0, 1)[None])
    np.testing.assert_allclose(slim(first, second), better[0].permute(1, 2, 0).numpy(), atol=1e-4)


@pytest.mark.parametrize(("supported", "dtype", "warned"), [(False, "bfloat16", 1), (True, "bfloat16", 0), (False, "float32", 0)])
def test_a_dtype_that_the_cpu_imitates_is_told(supported, dtype, warned, small, monkeypatch, caplog):
    """As on one without AVX-512: bfloat16 is then ten times slower than float32."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported, raising=False)
    featherflow.Estimator(small(), device="cpu", dtype=dtype)
    said = [record.getMessage() for record in caplog.records]
    assert [("imitates" in line and dtype in line) for line in said] == [True] * warned
