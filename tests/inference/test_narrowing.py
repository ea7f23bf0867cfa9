"""Which parts of an OpenVINO graph compute in bfloat16, and that what must be exact does not."""

import collections

import pytest
import torch

import featherflow
from featherflow import networks
from featherflow.inference.runners import bfloat16
from featherflow.inference.runners import openvino as runner
from featherflow.inference.runners.graphs import ExportWrapper
from featherflow.networks import RunOptions

openvino = pytest.importorskip("openvino")
SIZE = (116, 188)  # rows are resized to fit


def graph(network, iterations=None):
    """A model, and frames for it."""
    module = ExportWrapper(network, SIZE, RunOptions(iterations))
    frames = module.example()
    return runner.graph(module, frames), frames


def dtypes(model) -> dict[str, collections.Counter]:
    """By kind of node, how many give which dtype."""
    found = collections.defaultdict(collections.Counter)
    for node in model.get_ordered_ops():
        for output in node.outputs():
            found[node.get_type_name()][output.get_element_type().get_type_name()] += 1
    return found


def run(model, *frames):
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    return torch.from_numpy(compiled([frame.numpy() for frame in frames])[0])


@pytest.mark.parametrize("name", ["liteflownet-tied", "liteflownet2-slim"])
def test_layers_and_costs_are_narrow_and_flow_is_not(name):
    network = featherflow.load(name)
    model, frames = graph(network)
    exact = run(model.clone(), *frames)
    bfloat16.narrow(model)
    found = dtypes(model)
    assert set(found["Convolution"]) == {"bf16"} and found["Concat"]["bf16"] > 5
    assert found["Add"]["bf16"] == found["Convolution"]["bf16"]  # biases
    assert found["MatMul"]["bf16"] > 10  # matching costs; those left reduce images
    for kind in ("GridSample", "Interpolate", "Softmax", "ReduceMean", "Result", "GroupConvolutionBackpropData"):
        assert set(found[kind]) <= {"f32"}, kind
    narrow = run(model, *frames)
    assert 0 < float((narrow - exact).abs().mean()) < 0.01
    coarse = 2.0 ** (torch.floor(torch.log2(narrow.abs().clamp_min(1e-6))) - 7)  # the step of bfloat16
    assert float((narrow % coarse != 0).float().mean()) > 0.9  # the flow is none of its numbers


@pytest.mark.parametrize(("name", "few"), [("raft-small", 2), ("gmflow", None)])
def test_correlation_that_is_looked_up_or_weighed_stays_exact(name, few):
    """RAFT samples its volume and GMFlow takes the softmax of its own: no layer reads either."""
    model, _ = graph(networks.untrained(name), few)
    before = dtypes(model)
    bfloat16.narrow(model)
    after = dtypes(model)
    assert after["MatMul"] == before["MatMul"] and set(after["Convolution"]) == {"bf16"}


def test_what_is_added_to_a_layer_and_is_no_bias_stays_exact():
    from openvino import opset13 as ops

    frame, flow = ops.parameter([1, 3, 8, 8]), ops.parameter([1, 2, 8, 8])
    layer = ops.convolution(frame, torch.zeros(2, 3, 1, 1).numpy(), [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([ops.add(flow, layer)], [frame, flow])
    bfloat16.narrow(model)
    given = torch.full((1, 2, 8, 8), 100.3)
    assert torch.equal(run(model, torch.rand(1, 3, 8, 8), given), given)


def test_sizes_stay_whole_numbers():
    """A size that is computed, of a map that leads to a layer."""
    from openvino import opset13 as ops

    frame = ops.parameter(openvino.PartialShape([1, 8, -1, -1]))
    size = ops.shape_of(frame, "i64")
    asked = ops.concat([ops.gather(size, [axis], 0) for axis in (2, 3)], 0)
    larger = ops.group_convolution_backprop_data(
        frame, torch.ones(8, 1, 1, 3, 3).numpy(), [1, 1], output_shape=asked, auto_pad="same_upper"
    )
    layer = ops.convolution(larger, torch.ones(2, 8, 1, 1).numpy(), [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([layer], [frame])
    bfloat16.narrow(model)
    assert run(model, torch.ones(1, 8, 5, 7)).shape == (1, 2, 5, 7)


def test_features_that_others_read_too_are_rounded_for_layers_alone():
    from openvino import opset13 as ops

    frame = ops.parameter([1, 3, 8, 8])
    both = ops.concat([frame, frame], 1)
    layer = ops.convolution(both, torch.ones(2, 6, 1, 1).numpy(), [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([layer, ops.reduce_mean(both, [2, 3])], [frame])
    bfloat16.narrow(model)
    found = dtypes(model)
    assert found["Convolution"] == {"bf16": 1} and found["Concat"] == {"f32": 1} and found["Result"] == {"f32": 2}
