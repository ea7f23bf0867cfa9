"""Operators of the networks from FlowNet to FlowFormer against golden values and slow, obvious versions of themselves."""

import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from featherflow.errors import InputError
from featherflow.networks import gmflow, pwcnet
from featherflow.ops import (
    all_pairs,
    check_frames,
    convex_upsample,
    correlate,
    correlate_dilated,
    lookup,
    lookup_features,
    lookup_rows,
    pooled,
    push_forward,
    resize_flow,
    upsample,
    warp,
)

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def golden(shared_golden):
    archive = np.load(shared_golden / "ops" / "ops.npz")
    return {key: torch.from_numpy(archive[key]) for key in archive.files if archive[key].dtype.kind in "fi"}


def close(ours, golden):
    return ours.shape == golden.shape and torch.allclose(ours, golden, atol=TOLERANCE, rtol=1e-5)


def test_lookup_of_a_stored_and_of_a_computed_volume(golden):
    features1, features2, centres = (golden[f"raft_{key}"] for key in ("fmap1", "fmap2", "coords"))
    scale = features1.shape[1] ** -0.5
    stored = [lookup(c, centres / 2**l, 3) for l, c in enumerate(pooled(all_pairs(features1, features2, scale), 4))]
    computed = [lookup_features(features1, f, centres / 2**l, 3, scale) for l, f in enumerate(pooled(features2, 4))]
    assert close(torch.cat(stored, dim=1)[..., ::3, ::3], golden["raft_lookup_r3_L4"])
    assert close(torch.cat(computed, dim=1)[..., ::3, ::3], golden["raft_lookup_r3_L4"])


def test_lookup_in_chunks_equals_lookup_at_once(golden, monkeypatch):
    module = importlib.import_module("featherflow.ops.lookup")  # ops.lookup is the function
    features1, features2, centres = (golden[f"raft_{key}"] for key in ("fmap1", "fmap2", "coords"))
    whole = lookup_features(features1, features2, centres, 3, 1.0)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 40_000)
    assert torch.equal(lookup_features(features1, features2, centres, 3, 1.0), whole)


def test_lookup_is_bilinear_sampling_with_zeros_outside():
    generator = torch.Generator().manual_seed(0)
    costs = torch.randn(1, 12, 5, 6, generator=generator)
    centres = torch.rand(1, 2, 3, 4, generator=generator) * 10 - 2
    ours = lookup(costs, centres, 1)
    steps = torch.tensor([-1.0, 0.0, 1.0])
    for index in range(12):
        x, y = centres[0].flatten(1)[:, index]
        grid = torch.stack(torch.meshgrid((x + steps) / 5 * 2 - 1, (y + steps) / 4 * 2 - 1, indexing="ij"), dim=-1)
        sampled = F.grid_sample(costs[:, index : index + 1], grid[None], align_corners=True)
        assert torch.allclose(ours[0].flatten(1)[:, index], sampled.flatten(), atol=1e-5)


def test_lookup_along_rows():
    costs = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 2, 3, 6)
    windows = lookup_rows(costs, torch.full((1, 2, 3), 4.25), 1)
    assert torch.allclose(windows[0, :, 0, 0], torch.tensor([3.25, 4.25, 3.75]))  # the last one is half outside


def test_convex_upsampling(golden):
    assert close(convex_upsample(golden["raft_up_flow"], golden["raft_up_mask"], 8), golden["raft_up_out"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convex_upsampling_and_its_gradient_are_those_of_the_plain_formula(dtype, monkeypatch):
    """Would catch a neighbour, a sub-pixel or a term of the softmax's gradient that is lost in the pass neighbour by neighbour."""
    flow = torch.randn(2, 2, 5, 7, requires_grad=True)
    mask = torch.randn(2, 9 * 16, 5, 7).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    results = []
    for plain in (False, True):
        monkeypatch.setattr(upsample, "in_graph", lambda plain=plain: plain)
        fine = convex_upsample(flow, mask, 4)
        assert fine.shape == (2, 2, 20, 28)
        results.append((fine, *torch.autograd.grad(fine.square().sum(), (flow, mask))))
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype and torch.allclose(
            found, expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-4
        )


def test_pwcnet_cost_volume_and_warp(golden):
    first, second, flow = golden["pwc_a"], golden["pwc_b"], golden["pwc_flow"]
    assert close(F.leaky_relu(correlate(first, second, 4), 0.1), golden["pwc_cost_after_leakyrelu"])
    assert close(pwcnet.masked_warp(second, flow, 0.9999), golden["pwc_warp_of_b"])


def test_flownet_correlation_and_warp(golden):
    costs = F.leaky_relu(correlate_dilated(golden["pwc_a"], golden["pwc_b"], 10, 2), 0.1)
    assert close(costs[..., ::3, ::3], golden["flownet_corr_out_of_pwc_a_b"])
    assert close(warp(golden["pwc_b"], golden["pwc_flow"], border="replicate"), golden["resample2d_of_b_by_flow"])
    assert close(golden["pwc_b"].norm(dim=1, keepdim=True), golden["channelnorm_of_b"])


def test_gmflow_windows_roll_as_torch_rolls():
    x = torch.rand(2, 6, 8, 3)
    assert torch.equal(gmflow.rolled(x, 1, 3), x.roll((-1, -3), dims=(1, 2)))
    assert torch.equal(gmflow.rolled(gmflow.rolled(x, 1, 3), 5, 5), x)


def test_gmflow_matching_and_positions(golden):
    first, second = golden["gm_f1"], golden["gm_f2"]
    assert close(gmflow.match_globally(first, second), golden["gm_global_flow"])
    assert close(gmflow.match_locally(first, second, 2), golden["gm_local_flow_r2"])
    for windows, key in ((2, "gm_f1_plus_position_splits2"), (1, "gm_f1_plus_position_whole")):
        assert close(first + gmflow.position_encoding(8, 12, windows, first), golden[key])
    mask = gmflow.shift_mask(8, 12, 2, first)
    assert torch.equal(mask != 0, golden["gm_shift_mask_8x12_splits2"] != 0)


def test_push_forward_carries_a_flow_to_where_it_leads():
    flow = torch.rand(1, 2, 5, 7, generator=torch.Generator().manual_seed(0)) * 4 - 1
    pushed = push_forward(flow)
    arrivals = [(x + float(flow[0, 0, y, x]), y + float(flow[0, 1, y, x]), flow[0, :, y, x]) for y in range(5) for x in range(7)]
    arrivals = [(x, y, value) for x, y, value in arrivals if 0 < x < 7 and 0 < y < 5]
    for y in range(5):
        for x in range(7):
            _, _, nearest = min(arrivals, key=lambda a: (a[0] - x) ** 2 + (a[1] - y) ** 2)
            assert torch.equal(pushed[0, :, y, x], nearest)
    steady = torch.full((2, 2, 6, 6), 1.0)
    assert torch.equal(push_forward(steady), steady)
    assert not push_forward(torch.full((1, 2, 4, 4), 50.0)).any()  # everything leaves the map


@pytest.mark.parametrize("longest", [0.3, 4, 60])
def test_push_forward_fills_holes_as_scipy_does(longest):
    """Smooth flows on a map with large holes; `griddata` with nearest neighbours is what the release calls."""
    interpolate = pytest.importorskip("scipy.interpolate")
    noise = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    flow = F.interpolate(longest * noise, size=(37, 53), mode="bicubic")
    u, v = flow[0].numpy()
    y, x = np.mgrid[:37, :53].astype(np.float32)
    inside = (x + u > 0) & (x + u < 53) & (y + v > 0) & (y + v < 37)
    arrivals = np.stack((x + u, y + v), axis=-1)[inside]
    expected = [interpolate.griddata(arrivals, part[inside], (x, y), method="nearest") for part in (u, v)]
    assert longest < 1 or inside.mean() < 0.97
    assert np.array_equal(push_forward(flow)[0].numpy(), np.stack(expected))


def test_resize_flow_scales_both_axes_by_their_own_factor():
    flow = torch.ones(1, 2, 4, 5)
    assert resize_flow(flow, (8, 20))[0, :, 3, 7].tolist() == [4.0, 2.0]
    assert resize_flow(flow, (8, 20), unit=(16, 20))[0, :, 3, 7].tolist() == [1.0, 0.5]


def test_check_frames_says_what_it_got():
    good = torch.zeros(1, 3, 64, 96)
    check_frames(good, good, 32, 64)
    for bad in (good[:, :2], good[0], good.to(torch.uint8), good[..., :80], good[..., :32, :]):
        with pytest.raises(InputError, match=r"\d"):
            check_frames(bad, bad, 32, 64)
    with pytest.raises(InputError, match="one shape"):
        check_frames(good, good[..., :64], 32, 64)
