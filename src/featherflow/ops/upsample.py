"""Enlarging a coarse flow with learned weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .graphs import in_graph
from .layout import as_planes

_NEIGHBOURS = 9


def convex_upsample(flow: Tensor, mask: Tensor, factor: int) -> Tensor:
    """Each fine pixel is a convex combination of the 3x3 coarse flows around it; flows outside the map count as zero.

    Args:
        flow: `(B, 2, H, W)` [px of the coarse grid].
        mask: logits `(B, 9*factor*factor, H, W)`: neighbour (row by row), then sub-row, then sub-column.

    Returns:
        `(B, 2, factor*H, factor*W)` [px of the fine grid].

    Source: RAFT, section 3.3.
    """
    batch, _, height, width = flow.shape
    logits = batch, _NEIGHBOURS, factor * factor, height, width
    flow = flow.float() * factor
    if flow.device.type != "cpu":
        patches = F.unfold(flow, 3, padding=1).view(batch, 2, _NEIGHBOURS, 1, height, width)
        fine = (torch.softmax(mask.float().view(logits), dim=1)[:, None] * patches).sum(dim=2)
    elif in_graph():
        fine = _combined(F.pad(flow, (1,) * 4), torch.softmax(mask.float().view(logits), dim=1))
    else:
        fine = _ByNeighbours.apply(F.pad(flow, (1,) * 4), mask)
    fine = fine.view(batch, 2, factor, factor, height, width)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, factor * height, factor * width)


def _neighbour(around: Tensor, index: int) -> Tensor:
    """One of the nine neighbours of all positions, of a map with a border of one: `(B, C, H + 2, W + 2)` to `(B, C, 1, H, W)`."""
    y, x = divmod(index, 3)
    height, width = around.shape[-2:]
    return around[:, :, None, y : y + height - 2, x : x + width - 2]


def _combined(around: Tensor, weights: Tensor) -> Tensor:
    """Flow with a border of one and weights `(B, 9, S, H, W)` to `(B, 2, S, H, W)`."""
    fine = around.new_zeros(weights.shape[0], 2, *weights.shape[2:])
    for index in range(_NEIGHBOURS):
        fine.addcmul_(_neighbour(around, index), weights[:, None, index])
    return fine


class _ByNeighbours(torch.autograd.Function):
    """The combinations on a CPU, one neighbour after the other, so that nothing larger than the mask is ever stored."""

    @staticmethod
    def forward(ctx: Any, around: Tensor, mask: Tensor) -> Tensor:
        """Flow with a border of one, `(B, 2, H + 2, W + 2)`, and logits `(B, 9*S, H, W)` to `(B, 2, S, H, W)`."""
        batch, channels, height, width = mask.shape
        logits = as_planes(mask).float().view(batch, _NEIGHBOURS, channels // _NEIGHBOURS, height, width)
        weights = torch.softmax(logits, dim=1)
        ctx.save_for_backward(around, weights)
        ctx.narrow = mask.dtype
        return _combined(around, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        around, weights = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        to_around, to_weights = torch.zeros_like(around), torch.empty_like(weights)
        mean = torch.zeros_like(weights[:, 0])
        for index in range(_NEIGHBOURS):
            neighbour = _neighbour(around, index)
            torch.mul(gradient[:, 0], neighbour[:, 0], out=to_weights[:, index])
            to_weights[:, index].addcmul_(gradient[:, 1], neighbour[:, 1])
            mean.addcmul_(to_weights[:, index], weights[:, index])
            _neighbour(to_around, index).add_((gradient * weights[:, None, index]).sum(dim=2, keepdim=True))
        to_logits = to_weights.sub_(mean[:, None]).mul_(weights)  # of the softmax
        return to_around, to_logits.flatten(1, 2).to(ctx.narrow)
