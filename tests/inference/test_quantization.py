"""8 bits: which convolutions bear them, and what flows beside features cost."""

import numpy as np
import pytest

from featherflow.inference.runners import int8

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

SIZE = 512, 512  # (height, width): a quarter of it is finer than what is coarse for every network
PIXELS = SIZE[0] * SIZE[1]
LENGTH = 200.0  # px of the longest flow, beside features of about one


def convolution(source, channels, name, stride=1, activation=True, seed=0):
    """With a bias, as networks have it, and the leaky ReLU that follows hidden ones."""
    weights = np.random.default_rng(seed).normal(0, 0.2, (channels, source.get_output_shape(0)[1], 3, 3)).astype(np.float32)
    found = ops.convolution(source, weights, (stride, stride), (1, 1), (1, 1), (1, 1))
    found.set_friendly_name(name)
    found = ops.add(found, np.full((1, channels, 1, 1), 0.1, np.float32))
    return ops.prelu(found, np.array([0.1], np.float32)) if activation else found


@pytest.fixture
def model():
    """Features of two frames at 1/2 and 1/4, M at 1/4, and at 1/2 S, which reads a flow of hundreds of pixels."""
    frames = [ops.parameter((1, 3, *SIZE), np.float32, name=f"frame{number}") for number in (1, 2)]
    half = [convolution(frame, 8, f"half{number}", 2) for number, frame in enumerate(frames, 1)]
    quarter = [convolution(features, 8, f"quarter{number}", 2) for number, features in enumerate(half, 1)]
    matched = convolution(ops.concat(quarter, 1), 8, "matching")
    flow = convolution(matched, 2, "flow of M", activation=False)
    sums = ops.avg_pool(frames[0], (4, 4), (0, 0), (0, 0), (4, 4), False)  # somewhere to have a long flow from
    flow = ops.add(flow, ops.multiply(ops.gather(sums, np.array([0, 1]), np.array(1)), np.float32(LENGTH)))
    flow = ops.interpolate(flow, np.array(SIZE) // 2, "linear", "sizes", axes=np.array([2, 3]))
    seen = convolution(ops.concat([*half, flow], 1), 8, "first of S")
    seen = convolution(seen, 8, "second of S")
    return openvino.Model([convolution(seen, 2, "flow of S", activation=False)], frames, "units")


def convolutions(model):
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]


def channels_read(node):
    return node.input_value(0).get_shape()[1]


def computed(model, seed):
    """Its flow for two random frames. With 8 bits imitated in float32, so that no CPU clips sums of products."""
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": False})
    return compiled(random_frames(seed))[0]


def random_frames(seed):
    return [np.random.default_rng([seed, number]).random((1, 3, *SIZE), np.float32) for number in range(2)]


def test_flows_get_a_convolution_of_their_own_that_changes_nothing(model):
    expected = computed(model, 1)
    before = len(convolutions(model))
    int8._part_flows(model)
    assert sorted(map(channels_read, convolutions(model))) == sorted([3, 3, 8, 8, 16, 8, 16, 2, 8, 8])
    assert len(convolutions(model)) == before + 1
    assert np.abs(computed(model, 1) - expected).max() < 1e-4 * np.abs(expected).max()
    int8._part_flows(model)
    assert len(convolutions(model)) == before + 1  # there is nothing left to part


def test_what_stays_in_float32(model):
    int8._part_flows(model)
    wide = set(int8._wide(model.get_ordered_ops(), PIXELS))
    (flows,) = (node.get_friendly_name() for node in convolutions(model) if channels_read(node) == 2)
    assert wide == {"quarter1", "quarter2", "flow of M", flows, "second of S", "flow of S"}


def test_a_long_flow_leaves_features_their_steps(model, monkeypatch):
    pytest.importorskip("nncf")
    expected = computed(model.clone(), 1)
    pairs = [random_frames(seed) for seed in range(2, 6)]
    found = computed(int8.quantize(model.clone(), pairs, SIZE), 1)
    monkeypatch.setattr(int8, "_part_flows", lambda model: None)
    together = computed(int8.quantize(model.clone(), pairs, SIZE), 1)
    alone, beside = (float(np.abs(flow - expected).mean()) for flow in (found, together))
    assert 0 < alone < 0.1 * beside


def test_weights_in_7_bits_so_that_no_cpu_clips_sums(model):
    """Without VNNI two products are added in 16 bits, which two weights of 8 bits exceed."""
    pytest.importorskip("nncf")
    model = int8.quantize(model, [random_frames(seed) for seed in range(2)], SIZE)
    weights = [node.input_value(1).get_node() for node in convolutions(model)]
    while any(node.get_type_name() != "Constant" for node in weights):
        weights = [node if node.get_type_name() == "Constant" else node.input_value(0).get_node() for node in weights]
    whole = [node.get_data() for node in weights if node.get_data().dtype == np.int8]
    assert len(whole) == 4 and all(32 < np.abs(array).max() < 64 for array in whole)
