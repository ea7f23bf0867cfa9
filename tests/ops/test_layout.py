"""Other ways through memory, the same values: would catch channels, positions or pairs of a batch that change places."""

import pytest
import torch

from featherflow.ops import channel_softmax, join_channels, lengths, strips, sum_in_strips
from featherflow.ops.layout import as_planes

LAST = torch.channels_last


@pytest.mark.parametrize("batch, height, width", [(1, 5, 7), (2, 70, 80), (3, 1, 9), (2, 9, 1)])
def test_as_planes(batch, height, width):
    x = torch.randn(batch, 6, height, width)
    for given in (x, x.contiguous(memory_format=LAST), x.contiguous(memory_format=LAST).bfloat16()):
        planes = as_planes(given)
        assert planes.is_contiguous() and torch.equal(planes, given)


def test_as_planes_of_a_part():
    x = torch.randn(2, 6, 12, 9).contiguous(memory_format=LAST)
    for part in (x[..., 3:7, :], x[:, 1:4], x[..., 2:], x[..., ::2, :]):
        assert as_planes(part).is_contiguous() and torch.equal(as_planes(part), part)


def test_join_channels():
    a, b, c = torch.randn(2, 1, 4, 5), torch.randn(2, 2, 4, 5).bfloat16(), torch.randn(2, 7, 4, 5)
    expected = torch.cat((a, b.float(), c), dim=1)
    for last in (c, c.contiguous(memory_format=LAST)):
        joined = join_channels(a, b, last, dtype=torch.float32)
        assert torch.equal(joined, expected)
        assert joined.is_contiguous(memory_format=LAST) == last.is_contiguous(memory_format=LAST)
    assert join_channels(a, c, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_join_channels_passes_gradients_on():
    a, c = torch.randn(2, 1, 4, 5, requires_grad=True), torch.randn(2, 7, 4, 5).contiguous(memory_format=LAST).requires_grad_()
    weight = torch.randn(2, 8, 4, 5)
    (join_channels(a, c, dtype=torch.float32) * weight).sum().backward()
    assert torch.equal(a.grad, weight[:, :1]) and torch.equal(c.grad, weight[:, 1:])


def test_channel_softmax():
    x = torch.randn(2, 9, 4, 5)
    for given in (x, x.contiguous(memory_format=LAST)):
        assert torch.allclose(channel_softmax(given), torch.softmax(x, dim=1), atol=1e-7)


def test_lengths_and_their_gradient_at_nothing():
    x = torch.tensor([[3.0, 0.0], [4.0, 0.0]]).view(1, 2, 1, 2).requires_grad_()
    found = lengths(x)
    found.sum().backward()
    assert found.flatten().tolist() == [5.0, 0.0] and torch.allclose(x.grad[0, :, 0, 0], torch.tensor([0.6, 0.8]))
    assert not x.grad[..., 1].any()
    with torch.no_grad():
        assert torch.equal(lengths(x), found)


def test_sum_in_strips(monkeypatch):
    monkeypatch.setattr(strips, "_SUMMED", 30)
    x, heights = torch.randn(2, 3, 11, 5), []
    with torch.no_grad():
        found = sum_in_strips(lambda part: heights.append(part.shape[2]) or part.square(), x)
    assert heights == [3, 3, 3, 2] and torch.allclose(found, x.square().sum(dim=(2, 3), keepdim=True), atol=1e-5)
