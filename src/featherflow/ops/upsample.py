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


def push_forward(flow: Tensor) -> Tensor:
    """Warm start: the flow carried along itself to where its pixels are in the next frame.

    Each grid position takes the flow of the arrival nearest to it; arrivals outside the map or on its rim are left out. A flow
    without any arrival gives zero.

    Args:
        flow: `(B, 2, H, W)` [px of this grid]; meant for coarse grids, the work grows with (H*W)^2.

    Returns:
        `(B, 2, H, W)`.

    Source: RAFT, section 3.3 ("warm-start").
    """
    from .warp import pixel_grid

    height, width = flow.shape[-2:]
    grid = pixel_grid(height, width, flow)
    places = grid[0].flatten(1).T
    results = []
    for single in flow.float():
        arrivals = (grid[0] + single).flatten(1).T
        limits = arrivals.new_tensor((width, height))
        arrivals_inside = ((arrivals > 0) & (arrivals < limits)).all(dim=1)
        values = single.flatten(1)[:, arrivals_inside]
        if values.shape[1] == 0:
            results.append(torch.zeros_like(single))
            continue
        arrivals = arrivals[arrivals_inside]
        nearest = torch.cat([torch.cdist(part, arrivals).argmin(dim=1) for part in places.split(1024)])
        results.append(values[:, nearest].view(2, height, width))
    return torch.stack(results)
