"""What must never happen again: a flow of other frames, of other weights or of other settings, and traces left in the process."""

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import frame, small_weights

import featherflow
from featherflow import networks
from featherflow.errors import InputError
from featherflow.inference.runners import builds, choice, pytorch
from featherflow.inference.runners.identity import identity
from featherflow.networks import RunOptions

SMALL = ("features", "finest_level", "matching", "subpixel", "regularization")

THREADS, FRAMES = 8, 20


def frames(seed=1, height=70, width=90):
    return frame(height, width, seed), frame(height, width, seed + 1)


# Threads --------------------------------------------------------------------------------------------------------------


def differences(call, clip) -> int:
    """How many flows are others when threads ask for them at once than when one thread asks for one after the other.

    A thread of its own, since PyTorch may have another number of cores in the main thread, which shows in the last digits.
    """
    pairs = list(pairwise(clip))
    with ThreadPoolExecutor(1) as thread:
        alone = list(thread.map(lambda pair: call(*pair), pairs))
    with ThreadPoolExecutor(THREADS) as threads:
        jobs = [[threads.submit(call, *pair) for pair in pairs] for _ in range(THREADS)]
        return sum(not np.array_equal(job.result(), flow) for round in jobs for job, flow in zip(round, alone, strict=True))


@pytest.fixture(scope="module")
def network(small):
    """One that no other file builds."""
    return small(subpixel=(7,))


@pytest.fixture(scope="module")
def clip():
    return [frame(70, 90, seed) for seed in range(FRAMES + 1)]


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
def test_threads_get_their_own_flows(engine, network, clip):
    if engine != "torch":
        pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}[engine])
    estimator = featherflow.Estimator(network, engine=engine)
    assert differences(estimator, clip) == 0
    assert differences(lambda a, b: featherflow.estimate(a, b, network, engine=engine), clip) == 0


def test_threads_get_their_own_flows_from_the_default_engine_once_it_is_built(small, tmp_path, clip, monkeypatch):
    """Of a network by name, whose estimator is kept and shared."""
    pytest.importorskip("openvino")
    network = small()
    options = {key: getattr(network.config, key) for key in SMALL}
    info = featherflow.weights.WeightsInfo(architecture="liteflownet2", tag="test", options=options)
    featherflow.weights.save_weights(tmp_path / "x.safetensors", network.state_dict(), info, torch.float32)
    called = []
    monkeypatch.setattr(choice, "_fastest", lambda task: called.append(task) or "openvino")
    asked = {"model": "liteflownet2", "weights": tmp_path / "x.safetensors"}
    assert differences(featherflow.Estimator(**asked), clip) == 0
    assert differences(lambda a, b: featherflow.estimate(a, b, **asked), clip) == 0
    assert len(called) == 2 * FRAMES * (THREADS + 1)


def test_streams_in_threads_are_their_own(network, clip):
    estimator = featherflow.Estimator(network, engine="torch")
    with ThreadPoolExecutor(1) as thread:
        alone = thread.submit(lambda: list(estimator.stream(clip))).result()
    with ThreadPoolExecutor(4) as threads:
        for flows in threads.map(lambda _: list(estimator.stream(clip)), range(4)):
            assert all(np.array_equal(*pair) for pair in zip(flows, alone, strict=True))


def test_threads_build_an_engine_once(small, monkeypatch):
    pytest.importorskip("onnxruntime")
    made = []
    build = builds.build
    monkeypatch.setattr(builds, "build", lambda name, make: build(name, lambda folder: made.append(1) or make(folder)))
    network = small(subpixel=(9,))  # which no other test has built
    with ThreadPoolExecutor(4) as threads:
        flows = list(threads.map(lambda _: featherflow.estimate(*frames(), network, engine="onnx"), range(4)))
    assert len(made) == 1 and all(np.array_equal(flow, flows[0]) for flow in flows)


# What is stale --------------------------------------------------------------------------------------------------------


def halve(network):
    network.iterations = 1


def by_another_tensor(network):
    layer = network.netc.levels[0][0]
    layer.weight.data = layer.weight.data.flip(0)


def in_place(network):
    with torch.no_grad():
        next(network.parameters()).mul_(-0.5)


def behind_autograd(network):
    """PyTorch counts no change of a tensor that is made through `data`."""
    next(network.parameters()).data.mul_(-0.5)


def another_table(network):
    network.config = replace(network.config, octaves=1)


@pytest.mark.parametrize("change", [by_another_tensor, in_place, behind_autograd, another_table])
def test_a_changed_network_is_another_one(change, small):
    """Its builds go by another name, and go by the old one again when it is as it was."""
    network = small(finest_level=5)
    state, table = {name: tensor.clone() for name, tensor in network.state_dict().items()}, network.config
    before = identity(network)
    assert identity(network) == before == identity(small(finest_level=5))
    change(network)
    assert identity(network) != before
    network.load_state_dict(state)
    network.config = table
    assert identity(network) == before


def test_an_engine_follows_its_network(small):
    pytest.importorskip("openvino")
    network = small(subpixel=(6,))
    estimator = featherflow.Estimator(network, engine="openvino")
    before = estimator(*frames())
    behind_autograd(network)
    expected = featherflow.estimate(*frames(), network, engine="torch")
    assert np.abs(before - expected).max() > 0.01
    for flow in (estimator(*frames()), featherflow.estimate(*frames(), network, engine="openvino")):
        assert np.abs(flow - expected).max() <= 1e-3


def test_an_engine_follows_the_number_of_iterations():
    """Of which the network's own, an attribute, counts where none is asked for."""
    network = networks.untrained("raft-small")
    two, network.iterations = identity(network), 1
    assert identity(network) != two
    spec = [pytorch.InferenceSpec((1, 3, 64, 64), network.traits, torch.device("cpu"), "float32", RunOptions(n)) for n in (None, 1)]
    pytest.importorskip("openvino")
    assert choice.Task(network, spec[0]).key("openvino") != choice.Task(network, spec[1]).key("openvino")


def test_weights_replaced_under_their_name_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERFLOW_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "liteflownetx-mine.safetensors"
    state, info = featherflow.weights.read_weights(small_weights(tmp_path / "x.safetensors"))
    info = replace(info, tag="mine")
    flows = []
    for sign in (1, -1):
        changed = {name: sign * tensor if name.endswith("flow.weight") else tensor for name, tensor in state.items()}
        featherflow.weights.save_weights(path, changed, info)
        os.utime(path, ns=(10**18, 10**18))  # a copy may keep the time
        flows.append(featherflow.estimate(*frames(), "liteflownetx:mine"))
        flows.append(next(iter(featherflow.stream(frames(), "liteflownetx:mine"))))
    assert np.array_equal(flows[0], flows[1]) and np.array_equal(flows[2], flows[3])
    assert np.abs(flows[0] - flows[2]).max() > 0.01


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_networks_are_not_kept(engine, small):
    if engine == "openvino":
        pytest.importorskip("openvino")
    network = small(finest_level=5)
    featherflow.estimate(*frames(), network, engine=engine)
    featherflow.estimate(*frames(), network, octaves=1 if engine == "torch" else None)
    next(iter(featherflow.stream(frames(), network)))
    alive = weakref.ref(network)
    del network
    gc.collect()
    assert alive() is None


# The process ----------------------------------------------------------------------------------------------------------


def test_a_wide_default_dtype_changes_nothing(tmp_path):
    weights = small_weights(tmp_path / "x.safetensors")
    other = small_weights(tmp_path / "other.safetensors", "raft-small")
    asked = [{"model": "liteflownetx", "weights": weights, "refine": 1}]
    asked += [{"model": "raft-small", "weights": other, "iterations": 2}, {"model": "tv-l1"}]
    torch.set_default_dtype(torch.float64)
    try:
        wide = [featherflow.estimate(*frames(), **one) for one in asked]
    finally:
        torch.set_default_dtype(torch.float32)
    for flow, one in zip(wide, asked, strict=True):
        again = featherflow.estimate(*frames(), **one)
        assert flow.dtype == again.dtype == np.float32 and np.abs(flow - again).max() < 1e-4, one


@pytest.mark.parametrize("name", networks.names())
def test_no_network_depends_on_the_default_dtype(name):
    if name in ("flownet2", "flownet2-css", "flownet2-cs", "flownet2-s", "flownet2-c", "flowformer", "raft", "raft-stereo"):
        pytest.skip("made of the same parts as another, and large")
    network = networks.untrained(name)
    run = featherflow.Estimator(network, iterations=1 if network.traits.iterates else None)
    expected = run(*frames())
    torch.set_default_dtype(torch.float64)
    try:
        flow = run(*frames())
    finally:
        torch.set_default_dtype(torch.float32)
    assert flow.dtype == np.float32 and np.abs(flow - expected).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


def test_a_network_in_training_stays_in_training_and_is_run_in_evaluation_mode():
    network = networks.untrained("raft-small")
    network.cnet.norm1 = torch.nn.BatchNorm2d(32)  # one that differs in training, and keeps statistics
    expected = featherflow.estimate(*frames(), network.eval(), iterations=1)
    network.train()
    network.fnet.eval()
    modes = {name: module.training for name, module in network.named_modules()}
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert np.array_equal(featherflow.estimate(*frames(), network, iterations=1), expected)
    assert np.array_equal(next(iter(featherflow.stream(frames(), network, iterations=1))), expected)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_exporting_leaves_the_mode_and_the_generator(small, tmp_path):
    from featherflow.inference import export

    network = small().train()
    before = torch.random.get_rng_state()
    export(network, tmp_path / "flow.pt2", size=(64, 96))
    networks.untrained("liteflownetx")
    assert network.training and torch.equal(torch.random.get_rng_state(), before)


def test_the_generator_of_random_numbers_is_left_as_it_was(tmp_path):
    from featherflow.evaluation import tables

    weights = small_weights(tmp_path / "x.safetensors")
    before = torch.random.get_rng_state()
    featherflow.load("liteflownetx", weights=weights)
    featherflow.estimate(*frames(), "liteflownetx", weights=weights, refine=1)
    tables._measured("parameters", "liteflownetx", 0, None)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_number_of_threads_is_the_callers(network, monkeypatch):
    from featherflow.inference.runners import threads

    monkeypatch.setattr(threads, "container_threads", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        featherflow.estimate(*frames(), network)
        assert torch.get_num_threads() == 3 and threads.usable_threads() == 1
        threads.respect_container()
        assert torch.get_num_threads() == 1 and os.environ["OMP_NUM_THREADS"] == "1"
    finally:
        torch.set_num_threads(before)


def test_the_callers_autocast_does_not_decide(network):
    expected = featherflow.estimate(*frames(), network, dtype="float32")
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(featherflow.estimate(*frames(), network, dtype="float32"), expected)


def test_a_network_wrapped_for_several_gpus_is_taken(network):
    wrapped = torch.nn.DataParallel(network)
    assert np.array_equal(featherflow.estimate(*frames(), wrapped), featherflow.estimate(*frames(), network))


def test_what_is_no_network_is_said():
    for wrong in (torch.nn.Conv2d(3, 2, 1), 3, object):
        with pytest.raises(InputError, match=r"A model is a name, or a network .*; got"):
            featherflow.estimate(*frames(), wrong)


def test_a_network_object_runs_where_it_is(network):
    with pytest.raises(InputError, match=r"The network is on 'cpu', not on 'meta'; move it"):
        featherflow.estimate(*frames(), network, device="meta")
    assert featherflow.Estimator(network).device.type == featherflow.Estimator(network, device="cpu").device.type == "cpu"
