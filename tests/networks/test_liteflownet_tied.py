"""The tied network: any number of levels and sweeps with one set of weights, and every weight learns."""

from itertools import pairwise

import pytest
import torch

import featherflow
from featherflow.networks.liteflownet_tied import HalfSize, LiteFlowNetTied, TiedConfig, coarsest_level
from featherflow.ops import strips
from featherflow.training.losses import MultilevelLoss, reduce_label, robust_error


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LiteFlowNetTied().eval()


def frames(height, width, count=1):
    return torch.rand(2, count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_the_levels_follow_the_size():
    """The coarsest level has 4 to 8 cells along the shorter side, so that motions of any frame are in reach."""
    for side in range(64, 2200, 32):
        assert 4 <= side / 2 ** (coarsest_level((side, 2 * side)) - 1) < 8


def test_a_state_in_full_precision_goes_on_narrow(network):
    """As on a GPU, where autocast enlarges the state in float32 between two levels."""
    state, seen, looked_at = (torch.rand(1, size, 4, 6) for size in (32, 32, 32))
    with torch.inference_mode():
        expected = network.decoder._update(state, seen, looked_at)
        with torch.autocast("cpu", torch.bfloat16):
            found = network.decoder._update(state, seen.bfloat16(), looked_at.bfloat16())
    assert found.dtype == torch.bfloat16 and (found.float() - expected).abs().max() < 0.02


def test_sweeps_share_the_weights(network):
    first, second = frames(64, 96)
    with torch.inference_mode():
        pyramids = network.encode(first, network.mean1), network.encode(second, network.mean2)
        once, twice = (network.flows(*pyramids, iterations=count) for count in (1, 2))
        assert [estimate.level for estimate in once] == [5, 5, 4, 4, 3, 2]
        assert [estimate.level for estimate in twice] == [5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 2, 2]
        assert all(torch.equal(a.last, b.last) for a, b in zip(once[:2], twice, strict=False))
        assert not torch.equal(twice[1].last, twice[2].last)
        assert network(first, second).shape == (1, 2, 64, 96)
        assert not torch.equal(network(first, second), network(first, second, iterations=2))


def test_large_frames_in_strips_have_the_flow_of_the_whole(monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LiteFlowNetTied().eval()
    with torch.inference_mode():
        whole = network(*frames(256, 96))
        for name, value in {"LEAST": 0, "_STRIP": 0, "_LEAST_MARGINS": 1}.items():
            monkeypatch.setattr(strips, name, value)
        assert torch.allclose(network(*frames(256, 96)), whole, atol=1e-5)


def test_along_a_stream_each_frame_is_encoded_once(network, monkeypatch):
    """Would catch sweeps that are lost on the way, and features that are made twice."""
    clip = [*frames(64, 96), frames(64, 96)[0].flip(-1)]
    calls = []
    encode = LiteFlowNetTied.encode
    monkeypatch.setattr(LiteFlowNetTied, "encode", lambda self, *given: calls.append(1) or encode(self, *given))
    for sweeps in (None, 2):
        pairs = [network(first, second, iterations=sweeps) for first, second in pairwise(clip)]
        calls.clear()
        along = list(featherflow.stream(clip, network, iterations=sweeps, dtype="float32", engine="torch"))
        assert len(calls) == len(clip)
        assert all(torch.allclose(a, b[0], atol=1e-5) for a, b in zip(along, pairs, strict=True))


def test_a_flow_is_measured_in_pixels_of_the_answer(network):
    first, second = frames(64, 96)
    with torch.inference_mode():
        whole, half = network(first, second), network(first, second, size=(32, 48))
    assert half.shape == (1, 2, 32, 48)
    assert torch.allclose(half, torch.nn.functional.avg_pool2d(whole, 2) / 2, atol=0.05 * whole.abs().max())


@torch.inference_mode()
def test_at_half_size_the_length_of_a_flow_is_not_seen():
    """In bfloat16 a flow of 100 px would leave no digits for tenths of a pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unit = HalfSize(TiedConfig())
    generator = torch.Generator().manual_seed(0)
    first, second, state, u = (torch.randn(1, channels, 32, 40, generator=generator) for channels in (24, 24, 14, 2))
    here, there = unit._refine(first, second, state, u), unit._refine(first, second, state, u + 100.0)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(here, there, strict=True))
    assert not torch.allclose(here[0], unit._refine(first, second, state, 2 * u)[0], atol=1e-3)


def test_every_weight_learns():
    network = LiteFlowNetTied()
    truth, weight = torch.full((2, 2, 64, 64), 3.0), torch.ones(2, 1, 64, 64)
    loss, flow = MultilevelLoss()(network, *frames(64, 64), truth, weight)
    assert flow.shape == truth.shape
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_the_loss_of_sweeps_and_of_levels_beyond_the_sixth(network):
    """An earlier sweep over a level weighs half; a seventh level, of large frames, weighs what the sixth does."""
    truth, weight = torch.full((1, 2, 448, 448), 3.0), torch.ones(1, 1, 448, 448)
    first, second = frames(448, 448)
    with torch.inference_mode():
        pyramids = network.encode(first, network.mean1), network.encode(second, network.mean1)
        for sweeps in (1, 2):
            estimates = network.flows(*pyramids, iterations=sweeps)
            assert estimates[0].level == 7
            expected = 2 * robust_error(network.full_size(estimates[-1], (448, 448)), truth, weight, 0.05, 0.7)
            for estimate, after in zip(estimates, [*estimates[1:], None], strict=True):
                label, label_weight = reduce_label(truth, weight, estimate.last.shape[-2:])
                share = {7: 1, 6: 1, 5: 1, 4: 1, 3: 2, 2: 4}[estimate.level]
                share *= 0.5 if after is not None and after.level == estimate.level else 1
                expected += share * sum(robust_error(20 * u, label, label_weight, 0.05, 0.7) for u in estimate.outputs)
            loss, _ = MultilevelLoss()(network, first, second, truth, weight, iterations=sweeps)
            assert torch.allclose(loss, expected, rtol=1e-4)
