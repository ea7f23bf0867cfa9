"""The networks equal the official definitions: golden flows, intermediates and parameter checksums.

A wrong channel order, sign, border rule, filter or scale in any unit moves the flow by 0.01 to 800 px (the table in the
golden folder's README); the bound here is 1e-3 px.
"""

import json
import math
import zlib

import numpy as np
import pytest
import torch

from featherflow import networks
from featherflow.networks.liteflownet import FLOW_SCALE
from featherflow.ops import correlate, resize, warp
from featherflow.weights.names import MEAN_LAYERS, official_layers

CASES = {
    "liteflownet": "liteflownet",
    "liteflownet2": "liteflownet2_sintel",
    "liteflownet2-kitti": "liteflownet2_kitti",
}
LEVEL_GAIN = {"6": 0.3, "5": 0.25, "4": 0.15, "3": 0.1, "2": 0.1}
BILINEAR = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25]).astype(np.float32)
FLOW_TOLERANCE = 1e-3  # px
RELATIVE_TOLERANCE = 1e-4


def make_blob(layer: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Synthetic parameters by the rule in the golden folder's README."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"{layer}.{kind}".encode())))
    n = generator.standard_normal(shape).astype(np.float32)
    if kind == "bias":
        return np.float32(0.05) * n
    if tuple(shape[1:]) == (1, 4, 4):
        return BILINEAR * (np.float32(1) + np.float32(0.05) * n)
    odd = layer in ("conv3_2", "conv4_2")
    deconvolution = layer in ("conv5_D2_L2", "conv6_R_L2")
    if odd:
        n = n - n[:, :, ::-1, ::-1]
    fan_in = (shape[0] if deconvolution else shape[1]) * shape[2] * shape[3]
    if layer == "conv1":
        gain = 5.0
    elif odd or deconvolution or layer.startswith("dist"):
        gain = 2.0
    elif layer.startswith("scaled_flow_D"):
        gain = LEVEL_GAIN[layer[-1]]
    else:
        gain = 1.4
    weight = n * np.float32(gain / math.sqrt(fan_in))
    if layer.startswith("conv1_R_L"):
        weight[:, :3] *= np.float32(4)
    if layer.startswith("conv1_D2_L"):
        weight[:, -2:] *= np.float32(4)
    return weight


def synthetic_network(name: str) -> torch.nn.Module:
    network = networks.build(name)
    state = network.state_dict()
    for ours, official in official_layers(network.config).items():
        for kind in ("weight", "bias"):
            if f"{ours}.{kind}" in state:
                blob = make_blob(official, kind, tuple(state[f"{ours}.{kind}"].shape))
                state[f"{ours}.{kind}"] = torch.from_numpy(np.ascontiguousarray(blob))
    network.load_state_dict(state)
    return network


def frames(case) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(case[key]).permute(2, 0, 1)[None].float() / 255 for key in ("image1", "image2"))


def relative_difference(ours: torch.Tensor, golden: np.ndarray) -> float:
    golden = golden.astype(np.float32)
    return float(np.abs(ours[0].float().numpy() - golden).max() / np.abs(golden).max())


@pytest.fixture(params=CASES, scope="module")
def golden(request, shared_golden):
    folder = shared_golden / "liteflownet" / CASES[request.param]
    return request.param, synthetic_network(request.param), folder


def test_parameters_have_the_recorded_checksums(golden):
    """A layer missing from the map, of another shape or generated otherwise than the golden one."""
    _, network, folder = golden
    state = network.state_dict()
    ours = {official: name for name, official in official_layers(network.config).items()}
    checked = 0
    for layer in json.loads((folder / "params.json").read_text())["params"]:
        name = layer["layer"]
        if name in MEAN_LAYERS.values():
            mean = state["mean1" if name == MEAN_LAYERS["mean1"] else "mean2"]
            assert mean.numpy() == pytest.approx(layer["mean_bgr"])
        elif name in ours:  # the others are the release's constant layers; the count below keeps this honest
            for kind, shape, crc32 in zip(("weight", "bias"), layer["blobs"], layer["crc32"], strict=False):
                tensor = state[f"{ours[name]}.{kind}"]
                assert list(tensor.shape) == shape, name
                assert zlib.crc32(tensor.numpy().astype("<f4").tobytes()) == crc32, name
                checked += tensor.numel()
    assert checked == sum(v.numel() for k, v in state.items() if not k.startswith("mean"))


def test_final_flow(golden):
    _, network, folder = golden
    case = np.load(folder / "caseA.npz")
    with torch.inference_mode():
        flow = network(*frames(case))
    assert np.abs(flow[0].numpy() - case["flow"]).max() <= FLOW_TOLERANCE


def test_intermediates(golden):
    """Tells which unit is wrong when the final flow is."""
    _, network, folder = golden
    case = np.load(folder / "caseA.npz")
    frame1, frame2 = frames(case)
    with torch.inference_mode():
        pyramid1, pyramid2 = network.encode(frame1, network.mean1), network.encode(frame2, network.mean2)
        estimates = {estimate.level: estimate for estimate in network.flows(pyramid1, pyramid2)}
    units = {"M": "matching", "S": "subpixel", "R": "regularized"}
    compared = 0
    for key in case.files:
        if key.startswith("flow_"):
            _, unit, level = key.split("_")
            ours = getattr(estimates[int(level[1:])], units[unit])
            assert relative_difference(ours, case[key]) <= RELATIVE_TOLERANCE, key
            compared += 1
    assert compared >= 12
    for slot, pyramid in (("1", pyramid1), ("2", pyramid2)):
        assert relative_difference(pyramid.features[6], case[f"feat{slot}_L6"]) <= RELATIVE_TOLERANCE
        every4 = pyramid.features[3][:, ::4]
        assert relative_difference(every4, case[f"feat{slot}_L3_every4"]) <= 1e-3
        for level in (4, 6):
            assert relative_difference(pyramid.images[level], case[f"pyr{slot}_L{level}"]) <= RELATIVE_TOLERANCE

    costs = correlate(pyramid1.features[6], pyramid2.features[6], 3)
    assert relative_difference(costs, case["corr_L6"]) <= RELATIVE_TOLERANCE
    level3 = network.nete["level3"]
    u_up = level3.upflow(estimates[4].last)
    costs = correlate(pyramid1.features[3], warp(pyramid2.features[3], u_up * 5), 3, stride=2)
    assert relative_difference(costs, case["corr_L3"]) <= RELATIVE_TOLERANCE
    for level, factor in ((6, 0.625), (3, 5.0)):
        warped = warp(pyramid2.images[level], estimates[level].subpixel * factor)
        error = torch.linalg.vector_norm(pyramid1.images[level] - warped, dim=1, keepdim=True)
        assert relative_difference(error, case[f"photo_L{level}"]) <= RELATIVE_TOLERANCE


def test_local_convolution_weights(golden):
    _, network, folder = golden
    case = np.load(folder / "caseA.npz")
    distances = []
    handle = network.nete["level6"].regularization.distance.register_forward_hook(lambda *call: distances.append(call[2]))
    with torch.inference_mode():
        network(*frames(case))
    handle.remove()
    filters = torch.softmax(-distances[0].square(), dim=1)
    assert relative_difference(filters, case["kernel_L6"]) <= RELATIVE_TOLERANCE


@pytest.mark.parametrize("key, swapped", [("flow", True), ("flow_plain_bilinear", False)])
def test_official_treatment_of_other_sizes(golden, key, swapped):
    """Resize to multiples of 32 and back, with the release's swapped half-pixel offsets and without."""
    _, network, folder = golden
    case = np.load(folder / "caseD_resize.npz")
    means = [mean.flip(0).view(1, 3, 1, 1) for mean in (network.mean1, network.mean2)]
    originals = frames(case)
    size = tuple(-(-side // 32) * 32 for side in originals[0].shape[-2:])
    with torch.inference_mode():
        resized = [resize(f - m, size, swapped) + m for f, m in zip(originals, means, strict=True)]
        pyramids = [network.encode(f, m) for f, m in zip(resized, (network.mean1, network.mean2), strict=True)]
        u = network.flows(*pyramids)[-1].last
        flow = resize(u * FLOW_SCALE, originals[0].shape[-2:], swapped)
        scale = torch.tensor([originals[0].shape[-1] / size[1], originals[0].shape[-2] / size[0]]).view(1, 2, 1, 1)
        assert np.abs((flow * scale)[0].numpy() - case[key]).max() <= FLOW_TOLERANCE
        if not swapped:
            flow = network(*resized, size=originals[0].shape[-2:])
            assert np.abs(flow[0].numpy() - case[key]).max() <= FLOW_TOLERANCE


def test_a_batch_equals_its_pairs(golden):
    _, network, folder = golden
    frame1, frame2 = frames(np.load(folder / "caseA.npz"))
    with torch.inference_mode():
        both = network(torch.cat((frame1, frame2)), torch.cat((frame2, frame1)))
        single = torch.cat((network(frame1, frame2), network(frame2, frame1)))
    assert float((both - single).abs().max()) <= 1e-4
