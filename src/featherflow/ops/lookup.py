"""All-pairs correlation and its lookup around a moving match, from a stored 4-D volume or computed where it is looked at.

A lookup reads a square window of costs whose centre is not on the grid. All positions of a window share the fraction of the
centre, so costs are fetched once at whole pixels, one row and column more than the window has, and blended: bilinear sampling
of every position, corner-aligned, with zeros outside the map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Gathered features at a time, when costs are computed on lookup [bytes]: on a CPU what its cache holds, twice as fast as much more.
_CHUNK_BYTES = 4 * 2**20
_CHUNK_BYTES_GPU = 256 * 2**20


def all_pairs(features1: Tensor, features2: Tensor, scale: float) -> Tensor:
    """Dot products of every position of one map with every position of the other.

    Args:
        features1, features2: `(B, C, H, W)`.
        scale: factor of the products, e.g. C ** -0.5.

    Returns:
        `(B, H*W, H, W)`: for each position of frame 1, row by row, its costs over frame 2.

    Source: RAFT, section 3.2.
    """
    height, width = features2.shape[-2:]
    costs = features1.flatten(2).transpose(1, 2) @ features2.flatten(2)
    return (costs * scale).unflatten(2, (height, width))


def pooled(maps: Tensor, levels: int) -> list[Tensor]:
    """`maps` and its halvings by 2x2 averaging over the last two axes; odd remainders are dropped."""
    pyramid = [maps]
    for _ in range(levels - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, stride=2))
    return pyramid


def lookup(costs: Tensor, centres: Tensor, radius: int) -> Tensor:
    """Window of costs around a match, for every position of frame 1.

    Args:
        costs: `(B, H*W, h, w)`, from `all_pairs`, perhaps pooled.
        centres: `(B, 2, H, W)` matches x, y [px of the h x w grid].
        radius: r; the window has D = 2r + 1 positions per axis, 1 px apart.

    Returns:
        `(B, D*D, H, W)`; channel = (dx + r) * D + (dy + r): the x offset is the slow index, as in RAFT and FlowFormer.
    """
    height, width = costs.shape[-2:]
    index, inside, fraction = _windows(centres, radius, height, width)
    values = costs.flatten(2).gather(2, index) * inside
    return _blend(values, fraction, radius, centres)


def lookup_features(features1: Tensor, features2: Tensor, centres: Tensor, radius: int, scale: float) -> Tensor:
    """`lookup` without a volume: costs are computed where they are looked at. Memory grows with H*W, not with its square.

    Pooling a volume over frame 2 equals correlating with pooled features, so `features2` is pooled for coarser levels.

    Args:
        features1: `(B, C, H, W)`. features2: `(B, C, h, w)`.
        centres, radius: as in `lookup`. scale: as in `all_pairs`.

    Returns:
        As `lookup`.
    """
    height, width = features2.shape[-2:]
    index, inside, fraction = _windows(centres, radius, height, width)
    queries = features1.flatten(2).transpose(1, 2).unsqueeze(3)  # (B, H*W, C, 1)
    rows = features2.flatten(2).transpose(1, 2).contiguous()  # (B, h*w, C)
    most = _CHUNK_BYTES if rows.device.type == "cpu" else _CHUNK_BYTES_GPU
    chunk = max(1, most // (4 * rows.shape[2] * index.shape[2]))
    values = []
    for sample in range(index.shape[0]):
        pieces = [
            (rows[sample, index[sample, start : start + chunk]] @ queries[sample, start : start + chunk]).squeeze(2)
            for start in range(0, index.shape[1], chunk)
        ]
        values.append(torch.cat(pieces))
    return _blend(torch.stack(values) * scale * inside, fraction, radius, centres)


def lookup_rows(costs: Tensor, centres: Tensor, radius: int) -> Tensor:
    """`lookup` along rows, for rectified pairs.

    Args:
        costs: `(B, H, W, w)`: for each position, its costs along the same row of frame 2.
        centres: `(B, H, W)` matches x [px of the w grid].

    Returns:
        `(B, D, H, W)`; channel = dx + r.

    Source: RAFT-Stereo, section 3.2.
    """
    width = costs.shape[-1]
    corner = centres.floor()
    fraction = (centres - corner).unsqueeze(3)
    columns = corner.unsqueeze(3) + torch.arange(-radius, radius + 2, device=centres.device)
    inside = (columns >= 0) & (columns < width)
    values = costs.gather(3, columns.clamp(0, width - 1).long()) * inside
    return (values[..., :-1] * (1 - fraction) + values[..., 1:] * fraction).permute(0, 3, 1, 2)


def _windows(centres: Tensor, radius: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat indices of whole pixels (x slow, y fast) `(B, N, (D+1)^2)`, which are inside, and fractions x, y `(B, N, 2)`."""
    places = centres.flatten(2).transpose(1, 2)  # (B, N, 2)
    corner = places.floor()
    steps = torch.arange(-radius, radius + 2, device=centres.device)
    x, y = corner[..., :1] + steps, corner[..., 1:] + steps  # (B, N, D+1)
    inside = ((x >= 0) & (x < width)).unsqueeze(3) & ((y >= 0) & (y < height)).unsqueeze(2)
    index = y.clamp(0, height - 1).long().unsqueeze(2) * width + x.clamp(0, width - 1).long().unsqueeze(3)
    return index.flatten(2), inside.flatten(2), places - corner


def _blend(values: Tensor, fraction: Tensor, radius: int, centres: Tensor) -> Tensor:
    """Bilinear blend of costs at whole pixels `(B, N, (D+1)^2)` to windows `(B, D*D, H, W)`."""
    values = values.unflatten(2, (2 * radius + 2, 2 * radius + 2))
    x, y = fraction[..., 0, None, None], fraction[..., 1, None, None]
    values = values[:, :, :-1] * (1 - x) + values[:, :, 1:] * x
    values = values[..., :-1] * (1 - y) + values[..., 1:] * y
    return values.flatten(2).transpose(1, 2).unflatten(2, centres.shape[-2:])
