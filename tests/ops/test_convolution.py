"""The fused convolution: would catch one that is not the plain one, or that is used where it has no business."""

import pytest
import torch
import torch.nn.functional as F

from featherflow.ops import ReadyConvolution, can_make_ready, convolution, convolve_leaky

LAYERS = {
    "3x3": ((8, 16, 3, 1, 1), {}),
    "7x7 of an image": ((3, 16, 7, 1, 3), {}),
    "stride": ((8, 8, 3, 2, 1), {}),
    "separable": ((8, 49, (7, 1), 1, (3, 0)), {}),
    "pointwise": ((8, 16, 1), {}),
    "dilated, in groups, no bias": ((8, 8, 3, 1, 2), {"dilation": 2, "groups": 4, "bias": False}),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("slope", [0.1, 0.0])
def test_equals_two_operators(name, channels_last, slope):
    arguments, options = LAYERS[name]
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(*arguments, **options)
    x = torch.randn(2, layer.in_channels, 19, 23)
    if channels_last:
        layer, x = layer.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = F.leaky_relu(layer(x), slope)
        assert torch.allclose(convolve_leaky(layer, x, slope), expected, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            half = convolve_leaky(layer, x, slope)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), expected, atol=0.03, rtol=0.02)


@pytest.mark.skipif(convolution._FUSED is None, reason="this PyTorch has no fused convolution")
def test_it_is_fused_where_the_operator_can_compute_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(convolution, "_FUSED", lambda x, *rest: calls.append(1) or x)
    layer, x = torch.nn.Conv2d(3, 3, 3, padding=1), torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        convolve_leaky(layer, x)
    assert calls == [1]
    with torch.inference_mode():
        convolve_leaky(layer.double(), x.double())
    assert calls == [1]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_those_of_two_operators(name, channels_last):
    arguments, options = LAYERS[name]
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(*arguments, **options)
    x = torch.randn(2, layer.in_channels, 19, 23)
    if channels_last:
        layer, x = layer.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    wanted = [x.requires_grad_(), *layer.parameters()]
    expected = F.leaky_relu(layer(x), 0.1)
    factor = torch.randn(expected.shape)
    answers = torch.autograd.grad((convolve_leaky(layer, x) * factor).sum(), wanted)
    for answer, right in zip(answers, torch.autograd.grad((expected * factor).sum(), wanted), strict=True):
        assert torch.allclose(answer, right, atol=1e-4, rtol=1e-4)


def test_only_wanted_gradients_are_computed():
    layer, x = torch.nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False), torch.randn(1, 3, 8, 8, requires_grad=True)
    convolve_leaky(layer, x).sum().backward()
    assert x.grad.abs().sum() > 0 and layer.weight.grad is None


ready_or_not = pytest.mark.skipif(not can_make_ready(torch.nn.Conv2d(8, 8, 3)), reason="this CPU does not compute in bfloat16")


@ready_or_not
@pytest.mark.parametrize("name", LAYERS)
def test_a_ready_convolution_gives_the_same_bits(name):
    arguments, options = LAYERS[name]
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(*arguments, **options).to(memory_format=torch.channels_last)
    ready = ReadyConvolution.of(layer)
    assert ready.weight is layer.weight and type(layer) is torch.nn.Conv2d
    for height in (19, 40, 19):
        x = torch.randn(2, layer.in_channels, height, 23).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert convolve_leaky(ready, x).dtype == ready(x).dtype == torch.bfloat16
            assert torch.equal(convolve_leaky(ready, x), convolve_leaky(layer, x))
            assert torch.equal(ready(x), layer(x))
    assert len(ready._laid_out) == 2


@ready_or_not
def test_a_ready_convolution_asked_for_something_else_is_a_plain_one():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(8, 4, 3, padding=1)
    ready, x = ReadyConvolution.of(layer), torch.randn(1, 8, 9, 9)
    with torch.inference_mode():
        assert torch.equal(ready(x), layer(x)) and torch.equal(convolve_leaky(ready, x), convolve_leaky(layer, x))
    with torch.autocast("cpu", torch.bfloat16):
        gradients = [torch.autograd.grad(convolve_leaky(which, x).sum(), layer.weight)[0] for which in (ready, layer)]
    assert torch.equal(*gradients) and gradients[0].abs().sum() > 0 and not ready._laid_out


@ready_or_not
@pytest.mark.parametrize(("numbers", "most"), [(0, 4), (7 * 288, 7), (10**6, 12)])
def test_a_ready_convolution_keeps_weights_for_few_sizes_and_for_no_large_ones(numbers, most, monkeypatch):
    monkeypatch.setattr(convolution, "_LARGEST_LAID_OUT", 200)
    monkeypatch.setattr(convolution, "_NUMBERS", numbers)
    layer = torch.nn.Conv2d(8, 4, 3, padding=1).to(memory_format=torch.channels_last)
    ready = ReadyConvolution.of(layer)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        kept = set()
        for width in range(5, 30):
            x = torch.randn(1, 8, 10, width).contiguous(memory_format=torch.channels_last)
            assert torch.equal(ready(x), layer(x))
            kept.add(len(ready._laid_out))
        assert max(kept) == most
        assert all(shape[2] * shape[3] <= 200 for shape in ready._laid_out)


def test_what_cannot_be_made_ready():
    assert not can_make_ready(torch.nn.Conv2d(4, 4, 3, padding="same"))
    assert not can_make_ready(torch.nn.Conv2d(4, 4, 3).double())
    assert not can_make_ready(torch.nn.ConvTranspose2d(4, 4, 3))
