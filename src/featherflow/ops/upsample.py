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
    patches = F.unfold(flow.float() * factor, 3, padding=1).view(batch, 2, _NEIGHBOURS, 1, height, width)
    if flow.device.type == "cpu" and not in_graph():
        fine = _ByNeighbours.apply(patches, mask)
    else:
        weights = torch.softmax(mask.float().view(batch, 1, _NEIGHBOURS, factor * factor, height, width), dim=2)
        fine = (weights * patches).sum(dim=2)
    fine = fine.view(batch, 2, factor, factor, height, width)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, factor * height, factor * width)


class _ByNeighbours(torch.autograd.Function):
    """The combinations on a CPU, one neighbour after the other, so that nothing larger than the mask is ever stored."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, mask: Tensor) -> Tensor:
        """`(B, 2, 9, 1, H, W)` and logits `(B, 9*S, H, W)` to `(B, 2, S, H, W)`."""
        batch, channels, height, width = mask.shape
        logits = as_planes(mask).float().view(batch, _NEIGHBOURS, channels // _NEIGHBOURS, height, width)
        weights = torch.softmax(logits, dim=1)
        fine = patches.new_zeros(batch, 2, *weights.shape[2:])
        for index in range(_NEIGHBOURS):
            fine.addcmul_(patches[:, :, index], weights[:, None, index])
        ctx.save_for_backward(patches, weights)
        ctx.narrow = mask.dtype
        return fine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        patches, weights = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        to_patches, to_weights = torch.empty_like(patches), torch.empty_like(weights)
        mean = torch.zeros_like(weights[:, 0])
        for index in range(_NEIGHBOURS):
            torch.mul(gradient[:, 0], patches[:, 0, index], out=to_weights[:, index])
            to_weights[:, index].addcmul_(gradient[:, 1], patches[:, 1, index])
            mean.addcmul_(to_weights[:, index], weights[:, index])
            torch.sum(gradient * weights[:, None, index], dim=2, keepdim=True, out=to_patches[:, :, index])
        to_logits = to_weights.sub_(mean[:, None]).mul_(weights)  # of the softmax
        return to_patches, to_logits.flatten(1, 2).to(ctx.narrow)
