"""The shared operators against literal loops and the worked examples of the specification."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from featherflow.ops import (
    bilinear_upsampling_kernel,
    constant,
    correlate,
    downsample,
    local_convolution,
    resample,
    resize,
    reverse_channels,
    warp,
)

sizes = st.integers(1, 37)


def correlate_by_loop(f1, f2, radius, stride):
    height, width = f1.shape[-2:]
    padded = F.pad(f2, [radius * stride] * 4)
    maps = []
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            shifted = padded[..., dy * stride : dy * stride + height, dx * stride : dx * stride + width]
            maps.append((f1 * shifted).mean(1))
    return torch.stack(maps, 1)[..., ::stride, ::stride]


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 2]), st.integers(1, 2))
def test_correlation_equals_the_loop(height, width, channels, radius, stride, batch):
    generator = torch.Generator().manual_seed(height * 41 + width)
    f1, f2 = torch.randn(2, batch, channels, height, width, generator=generator, dtype=torch.float64)
    assert torch.allclose(correlate(f1, f2, radius, stride), correlate_by_loop(f1, f2, radius, stride), atol=1e-12)


def test_correlation_gradient_equals_the_loops():
    f1, f2 = (torch.randn(1, 3, 9, 19, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(1, 49, 5, 10, dtype=torch.float64)
    ours = torch.autograd.grad((correlate(f1, f2, 3, 2) * weight).sum(), (f1, f2))
    loops = torch.autograd.grad((correlate_by_loop(f1, f2, 3, 2) * weight).sum(), (f1, f2))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, loops, strict=True))


@pytest.mark.parametrize("dx, dy, stride, channel", [(0, 0, 1, 24), (1, 0, 1, 25), (0, 1, 1, 31), (2, 0, 2, 25)])
def test_correlation_channel_order(dx, dy, stride, channel):
    """An impulse of f2 at x + d answers in one channel, divided by the number of feature channels."""
    f1, f2 = torch.zeros(2, 1, 4, 16, 24)
    f1[0, 1, 8, 10], f2[0, 1, 8 + dy, 10 + dx] = 3.0, 2.0
    costs = correlate(f1, f2, 3, stride)
    assert costs[0, channel, 8 // stride, 10 // stride] == pytest.approx(6.0 / 4)
    assert costs.count_nonzero() == 1


def warp_by_loop(image, flow):
    height, width = image.shape[-2:]
    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            tx, ty = x + float(flow[0, 0, y, x]), y + float(flow[0, 1, y, x])
            x0, y0 = int(torch.tensor(tx).floor()), int(torch.tensor(ty).floor())
            for ny in (y0, y0 + 1):
                for nx in (x0, x0 + 1):
                    if 0 <= nx < width and 0 <= ny < height:
                        out[0, :, y, x] += (1 - abs(tx - nx)) * (1 - abs(ty - ny)) * image[0, :, ny, nx]
    return out


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.floats(0, 6))
def test_warp_equals_the_four_neighbour_loop(height, width, length):
    generator = torch.Generator().manual_seed(height * 10 + width)
    image = torch.randn(1, 2, height, width, generator=generator)
    flow = length * torch.randn(1, 2, height, width, generator=generator)
    assert torch.allclose(warp(image, flow), warp_by_loop(image, flow), atol=1e-4)


@pytest.mark.parametrize("border", ["zero", "replicate"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_warp_of_channels_that_lie_together_is_that_of_planes(monkeypatch, border, dtype):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 13, 17, 12, generator=generator).movedim(-1, 1).to(dtype)
    flow = 8 * torch.randn(2, 2, 13, 17, generator=generator)
    flow[0, :, 3, 4:9] = torch.tensor([(-4.0, -3.0), (12.0, 9.0), (1e30, -1e30), (float("inf"), 0.0), (-4.5, 9.5)]).T
    with torch.no_grad():
        expected = warp(features.contiguous(), flow, border)
        monkeypatch.setattr(torch.nn.functional, "grid_sample", None)  # another way is taken
        warped = warp(features, flow, border)
    if border == "zero":  # far outside; PyTorch's own sampler makes what it likes of an endless flow
        assert warped[0, :, 3, 6:8].eq(0).all()
        expected[0, :, 3, 6:8] = 0
    rounding = 1e-4 if dtype == torch.float32 else 0.02
    assert warped.dtype == dtype and warped.stride(1) == 1
    assert torch.allclose(warped.float(), expected.float(), atol=rounding, rtol=rounding)


def test_warp_by_a_flow_that_is_no_number_answers_with_none():
    features = torch.ones(1, 5, 6, 8).movedim(-1, 1)
    flow = torch.zeros(1, 2, 5, 6)
    flow[0, 0, 2, 3] = float("nan")
    with torch.no_grad():
        warped = warp(features, flow)
    assert warped[..., 2, 3].isnan().all() and int(warped.isnan().sum()) == 8 and warped.nansum() == 29 * 8


def test_numbers_are_filled_in_where_they_are_used():
    """The device "meta" takes no copy from the CPU."""
    for value, shape in ((0.1, ()), ((0.1, 2.0), (2,))):
        here, elsewhere = constant(value, torch.zeros(1)), constant(value, torch.zeros(1, device="meta"))
        assert here.tolist() == torch.tensor(value).tolist() and here.dtype == elsewhere.dtype == torch.float32
        assert elsewhere.device.type == "meta" and here.shape == elsewhere.shape == shape


def test_warp_half_a_pixel_outside_returns_half_the_border():
    image = torch.ones(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    assert torch.equal(warp(image, flow), image)
    flow[:, 0] = -0.5
    assert torch.allclose(warp(image, flow)[..., 0], torch.tensor(0.5))


def test_warp_keeps_the_dtype_of_features_and_the_precision_of_flow():
    """bfloat16 coordinates would round 200.5 to 200 or 201."""
    ramp = torch.arange(256.0).view(1, 1, 1, 256).expand(1, 1, 2, 256).to(torch.bfloat16)
    flow = torch.zeros(1, 2, 2, 256)
    flow[:, 0] = 0.5
    warped = warp(ramp[..., :128], flow[..., :128])
    assert warped.dtype == torch.bfloat16 and float(warped[0, 0, 0, 100]) == 100.5


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([3, 5, 7]))
def test_local_convolution_with_equal_filters_is_the_box_mean(height, width, size):
    generator = torch.Generator().manual_seed(height)
    flow = torch.randn(2, 2, height, width, generator=generator)
    filters = torch.full((2, size * size, height, width), 1 / size**2)
    mean = F.avg_pool2d(flow, size, 1, size // 2)
    assert torch.allclose(local_convolution(flow, filters), mean, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(local_convolution(flow, filters), mean, atol=1e-5)


@pytest.mark.parametrize("height", [7, 16, 24, 31])
def test_rows_resized_in_a_graph_are_those_of_the_layer_for_both_axes(height, monkeypatch):
    x = torch.randn(2, 3, 16, 11, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(x, size=(height, 11), mode="bilinear", align_corners=False)
    monkeypatch.setattr(resample, "in_graph", lambda: True)
    monkeypatch.setattr(F, "interpolate", None)
    assert torch.allclose(resize(x, (height, 11)), expected, atol=1e-5)


def test_reversed_channels_are_those_of_flip():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(reverse_channels(x), x.flip(1)) and torch.equal(reverse_channels(x[..., ::2]), x[..., ::2].flip(1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_local_convolution_by_shifts_is_that_by_patches(layout):
    flow, filters = torch.randn(2, 2, 9, 11), torch.randn(2, 25, 9, 11).contiguous(memory_format=layout)
    by_patches = local_convolution(flow, filters)
    with torch.no_grad():
        assert torch.allclose(local_convolution(flow, filters), by_patches, atol=1e-5)


def test_local_convolution_picks_neighbours_row_by_row():
    flow = torch.arange(25.0).view(1, 1, 5, 5).repeat(1, 2, 1, 1)
    for index in range(9):
        filters = torch.zeros(1, 9, 5, 5)
        filters[:, index] = 1
        picked = local_convolution(flow, filters)[0, 0, 2, 2]
        assert picked == flow[0, 0, 1 + index // 3, 1 + index % 3]


def test_downsample_equals_the_worked_rows():
    rows = downsample(torch.eye(8)[None, None], (4, 8))[0, 0]
    first = torch.tensor([0.583333, 0.333333, 0.083333, 0, 0, 0, 0, 0])
    second = torch.tensor([0, 0.1875, 0.375, 0.3125, 0.125, 0, 0, 0])
    assert torch.allclose(rows, torch.stack((first, second, second.flip(0), first.flip(0))), atol=1e-6)
    row = downsample(torch.eye(8)[None, None], (2, 8))[0, 0, 0]
    expected = torch.tensor([0.25, 0.214286, 0.178571, 0.142857, 0.107143, 0.071429, 0.035714, 0])
    assert torch.allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(112, 40), (50, 3), (7, 159), (448, 1)])
def test_downsample_in_bands_is_that_by_whole_matrices(size):
    image = torch.rand(2, 3, 448, 160)
    with torch.no_grad():  # what is kept serves passes with gradients too
        whole = resample._reduction(448, size[0], image) @ image @ resample._reduction(160, size[1], image).T
        assert torch.allclose(downsample(image, size), whole, atol=1e-5)
    image.requires_grad_()
    downsample(image, size).sum().backward()
    assert torch.allclose(image.grad.sum(), torch.tensor(6.0 * size[0] * size[1]), rtol=1e-4)


def test_downsample_borders():
    image = torch.rand(1, 3, 8, 8)
    assert downsample(image, (8, 8)) is image
    assert torch.allclose(downsample(image, (1, 1)).flatten(), image.mean((2, 3)).flatten())


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 20), st.integers(0, 20))
def test_official_resize_equals_plain_when_both_factors_agree(height, width, more_y, more_x):
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(width))
    assert torch.allclose(resize(image, (2 * height, 2 * width), True), resize(image, (2 * height, 2 * width)), atol=1e-4)
    assert resize(image, (height + more_y, width + more_x), True).shape[-2:] == (height + more_y, width + more_x)


def test_bilinear_kernel_is_the_specified_one():
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.allclose(bilinear_upsampling_kernel(3), torch.outer(taps, taps).expand(3, 1, 4, 4))
    ones = F.conv_transpose2d(torch.ones(1, 1, 6, 6), bilinear_upsampling_kernel(1, 4), stride=4, padding=2)
    assert ones.shape[-1] == 24 and torch.allclose(ones[..., 4:-4, 4:-4], torch.tensor(1.0))
