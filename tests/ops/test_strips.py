"""Strips: would catch rows that are lost, doubled, or taken without what stands above and below them."""

import pytest
import torch

from featherflow.ops import in_strips, reach, strips


@pytest.fixture(autouse=True)
def _always_cut(monkeypatch):
    for name, value in {"LEAST": 0, "_STRIP": 0, "_LEAST_MARGINS": 1}.items():
        monkeypatch.setattr(strips, name, value)


def test_the_margin_is_needed_and_enough():
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 5, padding=2), torch.nn.Conv2d(3, 1, (3, 1), padding=(1, 0)))
    assert reach(layers) == 3
    x = torch.rand(2, 2, 61, 8)
    with torch.inference_mode():
        assert torch.allclose(in_strips(layers, x, margin=3), layers(x), atol=1e-6)
        assert not torch.allclose(in_strips(layers, x, margin=2), layers(x), atol=1e-6)


def test_several_maps_and_reduced_answers():
    layer = torch.nn.Conv2d(1, 4, 3, stride=2, padding=1)
    x, y = torch.rand(2, 1, 1, 64, 12)
    calls = []

    def function(x, y):
        calls.append(x.shape[-2])
        return layer(x), layer(y)[:, :2]

    with torch.inference_mode():
        found, expected = in_strips(function, x, y, margin=1, unit=2), (layer(x), layer(y)[:, :2])
    assert len(calls) == 32 and max(calls) == 6
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_answers_that_are_enlarged():
    layer = torch.nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1)
    x = torch.rand(1, 2, 31, 8)
    with torch.inference_mode():
        assert torch.allclose(in_strips(layer, x, margin=1), layer(x), atol=1e-6)


def test_gradients_and_small_maps_see_the_whole(monkeypatch):
    heights = []
    x = torch.rand(1, 1, 64, 8)
    in_strips(lambda x: heights.append(x.shape[-2]) or x, x, margin=1)
    monkeypatch.setattr(strips, "LEAST", x.numel() + 1)
    with torch.inference_mode():
        in_strips(lambda x: heights.append(x.shape[-2]) or x, x, margin=1)
    assert heights == [64, 64]
