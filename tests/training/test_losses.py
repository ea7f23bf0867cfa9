"""The published loss equals its formula written out by hand."""

import math

import numpy as np
import pytest
import torch

from featherflow import networks
from featherflow.networks.liteflownet import FLOW_SCALE, FlowEstimate
from featherflow.training.losses import PaperLoss, enlarge, paper_label


def estimates(values, height=64, width=96, levels=(6,)):
    """Constant flows [px] after M, S and R at each level."""
    result = []
    for level in levels:
        size = (1, 2, height >> (level - 1), width >> (level - 1))
        u = [None if value is None else torch.full(size, value / FLOW_SCALE) for value in values]
        result.append(FlowEstimate(level, *u, None, None))
    return result


def test_every_output_of_every_level_with_its_weight():
    """Closed form: a constant difference of (dx, dy) = (v, v) px, N pixels per level."""
    truth, weight = torch.full((1, 2, 64, 96), 4.0), torch.ones(1, 1, 64, 96)
    values, weights = (4.0, 6.0, 9.0), {6: 0.32, 5: 0.08, 4: 0.02, 3: 0.01, 2: 0.005}
    for q in (0.5, 0.4):
        expected = 0.0
        for level, level_weight in weights.items():
            pixels = (64 >> (level - 1)) * (96 >> (level - 1))
            expected += level_weight * pixels * sum((2 * ((v - 4) / 20) ** 2 + 0.01) ** q for v in values)
        loss, last = PaperLoss(exponent=q).judge(estimates(values, levels=weights), truth, weight)
        assert float(loss) == pytest.approx(expected, rel=1e-4)
        assert last.shape == truth.shape and torch.allclose(last, torch.tensor(9.0))


def test_it_is_a_sum_over_pixels_and_a_mean_over_pairs():
    one = PaperLoss().judge(estimates((5.0, 5.0, 5.0)), torch.zeros(1, 2, 64, 96), torch.ones(1, 1, 64, 96))[0]
    many = [FlowEstimate(6, *(u.repeat(3, 1, 1, 1) for u in estimates((5.0, 5.0, 5.0))[0].outputs), None, None)]
    assert PaperLoss().judge(many, torch.zeros(3, 2, 64, 96), torch.ones(3, 1, 64, 96))[0] == pytest.approx(float(one))
    large = PaperLoss().judge(estimates((5.0, 5.0, 5.0), 128, 192), torch.zeros(1, 2, 128, 192), torch.ones(1, 1, 128, 192))[0]
    assert float(large) == pytest.approx(4 * float(one), rel=1e-5)


def test_the_full_size_term_counts_from_level_3():
    truth, weight = torch.zeros(1, 2, 64, 96), torch.ones(1, 1, 64, 96)
    plain, full = PaperLoss(), PaperLoss(full_weight=6.25e-4)
    for levels, counts in (((6, 5, 4), False), ((6, 5, 4, 3), True), ((6, 5, 4, 3, 2), True)):
        given = estimates((2.0, 2.0, 2.0), levels=levels)
        extra = float(full.judge(given, truth, weight)[0] - plain.judge(given, truth, weight)[0])
        level, u = levels[-1], given[-1].last
        size = enlarge(u, 2 ** (level - 1))
        expected = 6.25e-4 * float((size.square().sum(dim=1) + 0.01).sqrt().sum()) if counts else 0.0
        assert extra == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_deconvolution_is_bilinear_inside(factor):
    ramp = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 2, 6, 6).contiguous()
    found = enlarge(ramp, factor)
    assert found.shape == (1, 2, 6 * factor, 6 * factor)
    expected = torch.nn.functional.interpolate(ramp, scale_factor=factor, mode="bilinear", align_corners=False)
    assert torch.allclose(found[..., factor:-factor, factor:-factor], expected[..., factor:-factor, factor:-factor], atol=1e-5)


def test_labels_follow_the_triangle_filter_and_the_two_thirds_rule():
    """Every coarse pixel against a loop over its inputs, the weights as documented."""
    random = np.random.default_rng(0)
    truth = random.normal(size=(12, 17)).astype(np.float32)
    valid = random.random((12, 17)) < 0.7
    label, known = paper_label(torch.from_numpy(truth).expand(1, 2, 12, 17), torch.from_numpy(valid).view(1, 1, 12, 17), (3, 5))
    outcomes = set()
    for j, i in np.ndindex(3, 5):
        sy, sx = 11 / 2, 16 / 4
        rows, columns = (np.clip(1 - np.abs(np.arange(n) - at * s) / s, 0, None) for n, at, s in ((12, j, sy), (17, i, sx)))
        weights = np.outer(rows, columns)
        v, n = weights[valid].sum(), weights[~valid].sum()
        assert bool(known[0, 0, j, i]) == (v > 0 and n / v <= 0.5)
        outcomes.add(bool(known[0, 0, j, i]))
        if known[0, 0, j, i]:
            assert float(label[0, 0, j, i]) == pytest.approx((weights * truth)[valid].sum() / v, abs=1e-5)
    assert outcomes == {True, False}


def test_unknown_labels_leave_a_constant_and_no_gradient():
    truth, weight = torch.zeros(1, 2, 64, 96), torch.ones(1, 1, 64, 96)
    weight[..., :48] = 0
    truth[..., :48] = 999.0
    u = torch.full((1, 2, 2, 3), 1.0, requires_grad=True)
    loss, _ = PaperLoss().judge([FlowEstimate(6, u, None, None, None, None)], truth, weight)
    (gradient,) = torch.autograd.grad(loss, u)
    assert (gradient[..., 0] == 0).all() and (gradient[..., -1] > 0).all()
    known = paper_label(truth / 20, weight > 0, (2, 3))[1]
    count = int(known.sum())
    assert loss.item() == pytest.approx(0.32 * (count * math.sqrt(2.01) + (6 - count) * 0.1), rel=1e-5)
    nothing = PaperLoss().judge([FlowEstimate(6, u, None, None, None, None)], truth, torch.zeros_like(weight))[0]
    assert nothing.item() == pytest.approx(0.32 * 6 * 0.1) and torch.autograd.grad(nothing, u)[0].abs().max() == 0


def test_both_frames_keep_their_own_mean():
    network = networks.build("liteflownetx")
    frame = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        network.mean2.add_(0.2)
        a = PaperLoss()(network, frame, frame, torch.zeros(1, 2, 64, 64), torch.ones(1, 1, 64, 64))[0]
        network.mean2.copy_(network.mean1)
        b = PaperLoss()(network, frame, frame, torch.zeros(1, 2, 64, 64), torch.ones(1, 1, 64, 64))[0]
    assert float(a) != float(b)
