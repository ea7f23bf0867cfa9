"""Feature-driven local convolution (f-lconv): a filter of its own at each position."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels import by_kernel
from .layout import as_planes


def local_convolution(flow: Tensor, filters: Tensor) -> Tensor:
    """Weighted sum of each position's K x K neighbourhood, one filter per position shared by all channels.

    Neighbours outside the map count as zero and keep their weight. On a GPU, where no gradient is asked for, by a Triton kernel.

    Args:
        flow: `(B, C, H, W)`.
        filters: `(B, K*K, H, W)`, neighbours row by row from the top left; K odd.

    Returns:
        `(B, C, H, W)`.

    Source: LiteFlowNet, section 3.3, equation (7).
    """
    shifts = flow.device.type == "cpu" and not torch.is_grad_enabled()
    return by_kernel("local_convolution", _by_shifts if shifts else _by_patches, (flow, filters))


def _by_shifts(flow: Tensor, filters: Tensor) -> Tensor:
    """The whole map once for each neighbour: one pass of multiply and add, and nothing is copied."""
    size = math.isqrt(filters.shape[1])
    height, width = flow.shape[-2:]
    around = F.pad(flow, (size // 2,) * 4)
    filters = as_planes(filters)
    total = flow.new_zeros(flow.shape, dtype=torch.promote_types(flow.dtype, filters.dtype))
    for index in range(size * size):
        y, x = divmod(index, size)
        total.addcmul_(around[..., y : y + height, x : x + width], filters[:, index : index + 1])
    return total


def _by_patches(flow: Tensor, filters: Tensor) -> Tensor:
    """All neighbours of all positions at once, for gradients and for GPUs."""
    size = math.isqrt(int(filters.shape[1]))
    batch, channels, height, width = flow.shape
    patches = F.unfold(flow, size, padding=size // 2).view(batch, channels, size * size, height, width)
    return (patches * filters.unsqueeze(1)).sum(dim=2)
