"""The correlation layer and the local convolution as Triton kernels; each answers as the torch form of its name.

Inputs of any strides, in float32, bfloat16 or float16; sums in float32; every offset that may pass 2^31 in 64 bits.
Importing this needs Triton, which the CUDA builds of PyTorch bring along. `by_kernel` decides where these run.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_POSITIONS = 16  # of a correlation's block: the least that a matrix product on a GPU takes
_CHANNELS = 32  # of a correlation's step
_COLUMNS = 64  # of a local convolution's block


def correlate(features1: Tensor, features2: Tensor, radius: int, dtype: torch.dtype) -> Tensor:
    """As `ops.correlate` with stride 1; costs in `dtype`, channels last in memory.

    Raises:
        ValueError: for features of two shapes or dtypes.
    """
    if features1.shape != features2.shape or features1.dtype != features2.dtype:
        raise ValueError(f"features of {tuple(features1.shape)} and {tuple(features2.shape)}")
    batch, channels, height, width = features1.shape
    window = 2 * radius + 1
    costs = torch.empty(batch, height, width, window * window, dtype=dtype, device=features1.device).permute(0, 3, 1, 2)
    # TF32 holds every bfloat16 and every float16, so products of these lose nothing by it. AMD's chips mostly lack it.
    exact = features1.dtype == torch.float32 or torch.version.cuda is None
    with torch.cuda.device_of(features1):
        _correlation[(batch * height * window, triton.cdiv(width, _POSITIONS))](
            features1,
            features2,
            costs,
            channels,
            height,
            width,
            *features1.stride(),
            *features2.stride(),
            *costs.stride(),
            radius=radius,
            positions=_POSITIONS,
            reached=triton.next_power_of_2(_POSITIONS + 2 * radius),
            step=_CHANNELS,
            precision="ieee" if exact else "tf32",
            num_warps=2,  # pyright: ignore[reportCallIssue]  # for the launcher, which Triton's types do not know
        )
    return costs


def local_convolution(flow: Tensor, filters: Tensor, dtype: torch.dtype) -> Tensor:
    """As `ops.local_convolution`; the answer in `dtype`, contiguous.

    Raises:
        ValueError: for filters that are not K x K with K odd, or maps of two sizes.
    """
    size = math.isqrt(filters.shape[1])
    batch, channels, height, width = flow.shape
    if size * size != filters.shape[1] or size % 2 == 0 or filters[:, 0].shape != flow[:, 0].shape:
        raise ValueError(f"flow of {tuple(flow.shape)} and filters of {tuple(filters.shape)}")
    filtered = torch.empty(flow.shape, dtype=dtype, device=flow.device)
    with torch.cuda.device_of(flow):
        _local_convolution[(batch * height, triton.cdiv(width, _COLUMNS))](
            flow,
            filters,
            filtered,
            channels,
            height,
            width,
            *flow.stride(),
            *filters.stride(),
            *filtered.stride(),
            size=size,
            all_channels=triton.next_power_of_2(channels),
            columns=_COLUMNS,
            num_warps=2,  # pyright: ignore[reportCallIssue]  # for the launcher, which Triton's types do not know
        )
    return filtered


@triton.jit
def _correlation(
    features1,
    features2,
    costs,
    channels,
    height,
    width,
    batch1,
    channel1,
    row1,
    column1,
    batch2,
    channel2,
    row2,
    column2,
    batch_out,
    channel_out,
    row_out,
    column_out,
    radius: tl.constexpr,
    positions: tl.constexpr,
    reached: tl.constexpr,
    step: tl.constexpr,
    precision: tl.constexpr,
):
    """A block of positions of one row against all columns of frame 2 that they reach in the row dy - radius below.

    The costs are a band of that matrix product, which is stored where it belongs and nothing else of it.
    """
    window: tl.constexpr = 2 * radius + 1
    index = tl.program_id(0).to(tl.int64)
    dy = index % window
    y = index // window % height
    image = index // window // height
    y2 = y + dy - radius
    width2 = tl.where((y2 >= 0) & (y2 < height), width, 0)  # of a row outside the map nothing is inside
    x = tl.program_id(1) * positions + tl.arange(0, positions)
    x2 = tl.program_id(1) * positions + tl.arange(0, reached) - radius
    inside1 = x < width
    inside2 = (x2 >= 0) & (x2 < width2)
    start1 = features1 + image * batch1 + y * row1 + x[:, None].to(tl.int64) * column1
    start2 = features2 + image * batch2 + y2 * row2 + x2[None, :].to(tl.int64) * column2
    products = tl.zeros((positions, reached), dtype=tl.float32)
    for first in range(0, channels, step):
        channel = first + tl.arange(0, step)
        some1 = inside1[:, None] & (channel[None, :] < channels)
        some2 = inside2[None, :] & (channel[:, None] < channels)
        part1 = tl.load(start1 + channel[None, :].to(tl.int64) * channel1, mask=some1, other=0.0)
        part2 = tl.load(start2 + channel[:, None].to(tl.int64) * channel2, mask=some2, other=0.0)
        products = tl.dot(part1.to(tl.float32), part2.to(tl.float32), products, input_precision=precision)
    dx = tl.arange(0, reached)[None, :] - tl.arange(0, positions)[:, None]
    target = costs + image * batch_out + y * row_out + x[:, None].to(tl.int64) * column_out + (dy * window + dx) * channel_out
    mean = products / channels
    tl.store(target, mean.to(costs.dtype.element_ty), mask=inside1[:, None] & (dx >= 0) & (dx < window))


@triton.jit
def _local_convolution(
    flow,
    filters,
    filtered,
    channels,
    height,
    width,
    batch1,
    channel1,
    row1,
    column1,
    batch2,
    channel2,
    row2,
    column2,
    batch_out,
    channel_out,
    row_out,
    column_out,
    size: tl.constexpr,
    all_channels: tl.constexpr,
    columns: tl.constexpr,
):
    """A block of positions of one row, all channels of the flow together, neighbour by neighbour."""
    index = tl.program_id(0).to(tl.int64)
    y = index % height
    image = index // height
    channel = tl.arange(0, all_channels)[:, None].to(tl.int64)
    x = tl.program_id(1).to(tl.int64) * columns + tl.arange(0, columns)
    inside = x < width
    start1 = flow + image * batch1 + channel * channel1
    start2 = filters + image * batch2 + y * row2 + x * column2
    total = tl.zeros((all_channels, columns), dtype=tl.float32)
    for dy in range(size):
        y2 = y + dy - size // 2
        width2 = tl.where((y2 >= 0) & (y2 < height), width, 0)
        for dx in tl.static_range(size):  # pyright: ignore[reportGeneralTypeIssues]  # unrolled by the compiler, never iterated
            x2 = x + dx - size // 2
            some = (channel < channels) & ((x2 >= 0) & (x2 < width2))[None, :]
            neighbour = tl.load(start1 + y2 * row1 + x2[None, :] * column1, mask=some, other=0.0)
            weight = tl.load(start2 + (dy * size + dx) * channel2, mask=inside, other=0.0)
            total += neighbour.to(tl.float32) * weight.to(tl.float32)[None, :]
    target = filtered + image * batch_out + channel * channel_out + y * row_out + x[None, :] * column_out
    tl.store(target, total.to(filtered.dtype.element_ty), mask=(channel < channels) & inside[None, :])
