"""The flow of one pair of frames as a start for the next pair."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .warp import pixel_grid


def push_forward(flow: Tensor) -> Tensor:
    """The flow carried along itself to where its pixels are in the next frame.

    Each grid position takes the flow of the arrival nearest to it, so that holes are filled; arrivals outside the map or on its
    left or upper rim are left out. A flow without any arrival gives zero.

    Args:
        flow: `(B, 2, H, W)` [px of this grid].

    Returns:
        `(B, 2, H, W)` float32.

    Source: RAFT, section 3.3 ("warm-start").
    """
    height, width = flow.shape[-2:]
    grid = pixel_grid(height, width, flow)[0]
    limits = grid.new_tensor((width, height))
    results = []
    for single in flow.float():
        arrivals = (grid + single).flatten(1).T
        inside = ((arrivals > 0) & (arrivals < limits)).all(dim=1)
        values = single.flatten(1)[:, inside]
        if values.shape[1] == 0:
            results.append(torch.zeros_like(single))
            continue
        results.append(values[:, _nearest(arrivals[inside], height, width)].view(2, height, width))
    return torch.stack(results)


def _nearest(arrivals: Tensor, height: int, width: int) -> Tensor:
    """Index of the arrival nearest to each position of the map, row by row, exactly.

    Args:
        arrivals: `(N, 2)`, x and y inside the map, N at least 1.
    """
    count = arrivals.shape[0]
    cells = arrivals.floor()
    steps = torch.arange(-1, 3, dtype=arrivals.dtype, device=arrivals.device)
    # Every position less than 2 px from an arrival is one of the 4x4 around it.
    targets = cells[:, None] + torch.cartesian_prod(steps, steps)
    reached = ((targets >= 0) & (targets < targets.new_tensor((width, height)))).all(dim=2)
    distances = (targets - arrivals[:, None]).square().sum(dim=2)[reached]
    positions = _position(targets[reached], width)
    indices = torch.arange(count, device=arrivals.device)[:, None].expand(-1, 16)[reached]
    least = distances.new_full((height * width,), torch.inf).scatter_reduce(0, positions, distances, "amin")
    best = distances == least[positions]
    nearest = indices.new_full((height * width,), count).scatter_reduce(0, positions[best], indices[best], "amin")

    far = (least >= 4).nonzero()[:, 0]
    if far.numel():
        # No arrival is nearer to such a position than its nearest one, so that the circle of radius sqrt(2) which touches that
        # one from the position's side is empty, and with it the cell of the circle's centre, at most two cells away.
        empty = arrivals.new_ones(height * width)
        empty[_position(cells, width)] = 0
        beside_empty = F.max_pool2d(empty.view(1, 1, height, width), 5, stride=1, padding=2).flatten()
        rim = beside_empty[_position(cells, width)].nonzero()[:, 0]
        places = torch.stack((far % width, far // width), dim=1).to(arrivals.dtype)
        exactly = "donot_use_mm_for_euclid_dist"
        found = [torch.cdist(part, arrivals[rim], compute_mode=exactly).argmin(dim=1) for part in places.split(1024)]
        nearest[far] = rim[torch.cat(found)]
    return nearest


def _position(places: Tensor, width: int) -> Tensor:
    return places[..., 1].long() * width + places[..., 0].long()
