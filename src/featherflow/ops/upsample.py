"""Enlarging a coarse flow with learned weights."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    weights = torch.softmax(mask.float().view(batch, 1, 9, factor, factor, height, width), dim=2)
    patches = F.unfold(flow.float() * factor, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
    fine = (weights * patches).sum(dim=2)  # (B, 2, sub-row, sub-column, H, W)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, factor * height, factor * width)
