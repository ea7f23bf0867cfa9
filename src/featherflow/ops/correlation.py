"""The correlation layer: matching costs between two feature maps over a square search window."""

import torch.nn.functional as F
from torch import Tensor, cat, stack

from .kernels import by_kernel

_BLOCK = 16  # columns per matrix product: wide enough to keep the product dense, narrow enough to waste little


def correlate(features1: Tensor, features2: Tensor, radius: int, stride: int = 1) -> Tensor:
    """Cost volume c(x, d) = 1/C * sum over channels of f1(x) * f2(x + d), with f2 = 0 outside the map.

    Computed as banded matrix products: for each row offset, a block of 16 columns of f1 is multiplied with the
    16 + 2*radius columns of f2 it can reach, and the diagonals that stand for dx = -radius..radius are kept. Neither map
    is sampled nor unfolded over the search window. On a GPU, where no gradient is asked for, by a Triton kernel.

    Args:
        features1, features2: `(B, C, H, W)`.
        radius: steps of displacement to each side; the window has D = 2*radius + 1 steps per axis.
        stride: both the spacing of the positions x (0, stride, 2*stride, ...) and of the displacements d [px].
            Because they are equal, the result is the dense volume of the maps subsampled by `stride`.

    Returns:
        `(B, D*D, ceil(H/stride), ceil(W/stride))`; channel = (dy + radius)*D + (dx + radius), dx fastest, in steps.

    Source: LiteFlowNet, section 3.2; spec of the official layer: single-pixel kernel, mean over channels.
    """
    if stride > 1:
        features1, features2 = features1[..., ::stride, ::stride], features2[..., ::stride, ::stride]
    return by_kernel("correlate", _correlate, (features1, features2), radius)


def _correlate(features1: Tensor, features2: Tensor, radius: int) -> Tensor:
    height, width = features1.shape[-2:]
    channels = features1.shape[1]
    window = 2 * radius + 1
    blocks = -(-width // _BLOCK)
    if not isinstance(width, int):
        blocks = blocks + 1  # "one block" is a case of its own, and a graph of free sizes would be good for that case only
    padded = blocks * _BLOCK

    # Channels last, columns in blocks: rows1 (B, H, blocks, 16, C).
    rows1 = F.pad(features1.permute(0, 2, 3, 1), (0, 0, 0, padded - width)).unflatten(2, (blocks, _BLOCK))
    # Each block of f2 is followed by the first 2*radius columns of the next: rows2 (B, H + 2r, blocks, C, 16 + 2r).
    right = padded + _BLOCK - width - radius
    rows2 = F.pad(features2.permute(0, 2, 3, 1), (0, 0, radius, right, radius, radius))
    rows2 = rows2.unflatten(2, (blocks + 1, _BLOCK))
    rows2 = cat((rows2[:, :, :-1], rows2[:, :, 1:, : 2 * radius]), dim=3).transpose(-1, -2)

    costs = []
    for dy in range(window):
        products = rows1 @ rows2[:, dy : dy + height]  # (B, H, blocks, 16, 16 + 2r)
        costs.append(_band(products, window).flatten(2, 3)[:, :, :width])  # (B, H, W, D)
    return stack(costs, dim=3).flatten(3).permute(0, 3, 1, 2) * (1.0 / channels)


def correlate_dilated(features1: Tensor, features2: Tensor, radius: int, dilation: int) -> Tensor:
    """As `correlate` at every position, but with displacements spaced `dilation` px: a wide search at a coarse step.

    Positions that are equal modulo `dilation` only ever meet each other, so each such sub-grid has a dense volume of its own.

    Args:
        features1, features2: `(B, C, H, W)`.
        radius: steps of displacement to each side; they reach `radius * dilation` px.

    Returns:
        `(B, D*D, H, W)`; channel = (dy + radius)*D + (dx + radius), dx fastest, in steps.

    Source: FlowNet, section 3 (correlation layer, stride s2).
    """
    height, width = features1.shape[-2:]
    costs = features1.new_empty(features1.shape[0], (2 * radius + 1) ** 2, height, width)
    for y in range(dilation):
        for x in range(dilation):
            part1, part2 = features1[..., y::dilation, x::dilation], features2[..., y::dilation, x::dilation]
            costs[..., y::dilation, x::dilation] = correlate(part1, part2, radius)
    return costs


def _band(products: Tensor, window: int) -> Tensor:
    """Keep products[..., i, i + d] for d in 0..window-1: `(..., n, n + window - 1)` to `(..., n, window)`.

    Rows of length m read with a pitch of m + 1 turn each diagonal into a column.
    """
    n, m = products.shape[-2:]
    skewed = F.pad(products.flatten(-2), (0, n)).unflatten(-1, (n, m + 1))
    return skewed[..., :window]
