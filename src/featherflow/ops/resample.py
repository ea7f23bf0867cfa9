"""Change of grid: half-pixel bilinear resizing, the corner-aligned triangle filter, bilinear deconvolution kernels."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .constant import constant
from .graphs import in_graph

_BAND = 16


def resize(x: Tensor, size: tuple[int, int], swapped_offsets: bool = False) -> Tensor:
    """Bilinear resize of `(B, C, H, W)` to `size` = (height, width), pixel areas aligned, edges clamped.

    Args:
        swapped_offsets: reproduce the official layer for enlarging exactly: its half-pixel offset of the x axis uses the vertical
            factor and the other way round. It shifts by (fy - fx)/2 px and is there for comparison only.
    """
    height, width = x.shape[-2:]
    if (height, width) == tuple(size):
        return x
    if not swapped_offsets and width == size[1] and x.dtype == torch.float32 and in_graph():
        return _resize_rows(x, size[0])
    if not swapped_offsets:
        return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
    factor_y, factor_x = height / size[0], width / size[1]
    rows = _triangle(height, torch.arange(size[0], device=x.device) * factor_y + factor_x / 2 - 0.5, 1.0)
    columns = _triangle(width, torch.arange(size[1], device=x.device) * factor_x + factor_y / 2 - 0.5, 1.0)
    return rows.to(x.dtype) @ x @ columns.to(x.dtype).T


def _resize_rows(x: Tensor, height: int) -> Tensor:
    """`resize` where columns stay, in operators that engines do at the speed of memory, as they do not that for both axes."""
    last = x.shape[2] - 1
    centres = ((torch.arange(height, device=x.device) + 0.5) * (x.shape[2] / height) - 0.5).clamp(0, last)
    before = centres.long()
    after = (before + 1).clamp(max=last)
    share = (centres - before).view(-1, 1)
    upper, lower = x.index_select(2, before), x.index_select(2, after)
    return upper + share * (lower - upper)


def resize_flow(flow: Tensor, size: tuple[int, int], unit: tuple[int, int] | None = None) -> Tensor:
    """Flow on a grid of another size, in pixels of that size.

    Args:
        flow: `(B, 2, H, W)`.
        size: (height, width) of the answer.
        unit: (height, width) of the frame in whose pixels `flow` is measured. Default: its own grid.

    Returns:
        `(B, 2, *size)` float32 [px].
    """
    height, width = flow.shape[-2:] if unit is None else unit
    flow = resize(flow.float(), size)
    if (height, width) == tuple(size):
        return flow
    return flow * constant((size[1] / width, size[0] / height), flow).view(1, 2, 1, 1)


def downsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Corner-aligned reduction with a separable triangle filter, as the official "Downsample" layer does it.

    On an axis of n_in to n_out with s = (n_in - 1)/(n_out - 1), output j is centred at j*s and weighs input i by
    max(0, 1 - |i - j*s|/s), normalised to sum 1. For n_out = 1, where that is undefined, the plain mean.

    Args:
        x: `(B, C, H, W)`; size: (height, width), not larger than the input.

    Returns:
        `(B, C, *size)`; the input itself if the sizes are equal.
    """
    height, width = x.shape[-2:]
    if (height, width) == tuple(size):
        return x
    numbers = type(x) is Tensor and x.device.type == "cpu"  # and not mere shapes, as operations are counted from
    if not numbers or in_graph():
        return _reduction(height, size[0], x) @ x @ _reduction(width, size[1], x).T
    rows = torch.cat([weights @ x[..., seen, :] for seen, weights in _bands(height, size[0], x.dtype)], dim=-2)
    return torch.cat([rows[..., seen] @ weights.T for seen, weights in _bands(width, size[1], x.dtype)], dim=-1)


@lru_cache(maxsize=64)
def _bands(n_in: int, n_out: int, dtype: torch.dtype) -> list[tuple[slice, Tensor]]:
    """The reduction on a CPU, `_BAND` outputs at a time: the inputs that they see, and their weights of these."""
    with torch.inference_mode(False):  # kept, also for passes that want gradients
        weights = _reduction(n_in, n_out, torch.zeros((), dtype=dtype))
        bands = []
        for part in weights.split(_BAND):
            seen = part.any(dim=0).nonzero()
            first, last = int(seen[0]), int(seen[-1]) + 1
            bands.append((slice(first, last), part[:, first:last].contiguous()))
    return bands


def _reduction(n_in: int, n_out: int, like: Tensor) -> Tensor:
    if n_out == 1:
        return torch.full((1, n_in), 1.0 / n_in, dtype=like.dtype, device=like.device)
    spacing = constant((n_in - 1) / (n_out - 1), like)  # ONNX multiplies tensors alone
    return _triangle(n_in, torch.arange(n_out, device=like.device) * spacing, spacing).to(like.dtype)


def _triangle(n_in: int, centres: Tensor, radius: float | Tensor) -> Tensor:
    """Rows of triangle weights of half-width `radius` around each centre, over inputs 0..n_in-1, summing to 1."""
    centres = centres.to(torch.float32).clamp(0, n_in - 1)
    inputs = torch.arange(n_in, dtype=torch.float32, device=centres.device)
    weights = (1.0 - (inputs - centres.unsqueeze(1)).abs() / radius).clamp_min(0.0)
    return weights / weights.sum(dim=1, keepdim=True)


def bilinear_upsampling_kernel(channels: int, factor: int = 2) -> Tensor:
    """Weights `(channels, 1, 2*factor, 2*factor)` of a grouped transposed convolution that enlarges bilinearly.

    Use with stride `factor` and padding `factor // 2`. The border comes out darker (0.75 for factor 2): nothing is
    clamped there.
    """
    size = 2 * factor
    # By NumPy: on the meta device, arithmetic of PyTorch imports its compiler, which takes seconds and brings Triton.
    taps = 1.0 - abs(np.arange(size) - (size - 1) / 2) / factor
    return torch.tensor(np.outer(taps, taps), dtype=torch.float32).expand(channels, 1, size, size).clone()
