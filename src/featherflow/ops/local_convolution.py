"""Feature-driven local convolution (f-lconv): a filter of its own at each position."""

import math

import torch.nn.functional as F
from torch import Tensor

from .kernels import by_kernel


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
    return by_kernel("local_convolution", _local_convolution, (flow, filters))


def _local_convolution(flow: Tensor, filters: Tensor) -> Tensor:
    size = math.isqrt(int(filters.shape[1]))
    batch, channels, height, width = flow.shape
    patches = F.unfold(flow, size, padding=size // 2).view(batch, channels, size * size, height, width)
    return (patches * filters.unsqueeze(1)).sum(dim=2)
