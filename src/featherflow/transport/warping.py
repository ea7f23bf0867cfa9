"""Moving pictures along a flow, differentiable in pictures, flows and weights.

Tensors are `(B, C, H, W)` float32, flows `(B, 2, H, W)` [px], x to the right and y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..ops.warp import pixel_grid


def warp_backward(image: Tensor, flow: Tensor, mode: str = "bilinear") -> tuple[Tensor, Tensor]:
    """Each pixel fetches its value: `image(x + flow(x))`.

    Args:
        image: `(B, C, H, W)`; flow: `(B, 2, H, W)` [px].
        mode: "bilinear", or "bicubic", which keeps more detail and may overshoot the range of the image.

    Returns:
        The warped image, with the nearest border value where the flow leads outside, and `(B, 1, H, W)`, 1 where it stays inside
        and 0 elsewhere.

    Raises:
        InputError: for sizes that do not agree, or another mode.
    """
    if mode not in ("bilinear", "bicubic"):
        raise InputError(f"mode must be bilinear or bicubic, got '{mode}'.")
    _check(image, flow)
    height, width = image.shape[-2:]
    place = pixel_grid(height, width, image) + flow
    limits = place.new_tensor((width - 1, height - 1)).view(1, 2, 1, 1)
    inside = ((place >= 0) & (place <= limits)).all(dim=1, keepdim=True)
    grid = (place * (2 / limits.clamp_min(1)) - 1).permute(0, 2, 3, 1)
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=True), inside.to(image.dtype)


def splat(values: Tensor, flow: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Forward warping ("softmax splatting"): each pixel x carries its value to x + flow(x), shared among the four pixels around.

    Where several arrive, they are averaged with the weights `exp(importance)` times their bilinear shares.

    Args:
        values: `(B, C, H, W)`; flow: `(B, 2, H, W)` [px].
        importance: `(B, 1, H, W)`, larger wins. Default: all alike.

    Returns:
        The mean of what arrived, `(B, C, H, W)`, zero where nothing did; and the sum of the bilinear shares that arrived,
        `(B, 1, H, W)`: 0 in holes, about 1 where one pixel's worth did.

    Raises:
        InputError: for sizes that do not agree.

    Source: Niklaus, Liu, "Softmax Splatting for Video Frame Interpolation", CVPR 2020, equations (1), (2) and (8).
    """
    _check(values, flow)
    shares = torch.ones_like(values[:, :1])
    if importance is None:
        weights = shares
    else:
        # A constant cancels in the mean; with this one nothing overflows.
        weights = torch.exp(importance - importance.amax(dim=(1, 2, 3), keepdim=True))
    sums = splat_sums(torch.cat((values * weights, weights, shares), dim=1), flow)
    total = sums[:, -2:-1]
    return sums[:, :-2] / torch.where(total > 0, total, torch.ones_like(total)), sums[:, -1:]


def splat_sums(values: Tensor, flow: Tensor) -> Tensor:
    """Forward warping without averaging: the sum of bilinear shares of all values that arrive at each pixel.

    Values that arrive outside are lost. Shapes as `splat`.
    """
    batch, channels, height, width = values.shape
    place = pixel_grid(height, width, values) + flow
    corner = place.detach().floor()
    share = place - corner
    moved = values.permute(0, 2, 3, 1).reshape(-1, channels)
    first = torch.arange(batch, device=values.device).view(-1, 1, 1) * (height * width)
    sums = torch.zeros_like(moved)
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[:, 0] + dx, corner[:, 1] + dy
            weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
            arrives = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            target = torch.where(arrives, y * width + x, torch.zeros_like(x)).long() + first
            weight = torch.where(arrives, weight, torch.zeros_like(weight))
            sums = sums.index_add(0, target.flatten(), moved * weight.reshape(-1, 1))
    return sums.view(batch, height, width, channels).permute(0, 3, 1, 2)


def fill_holes(values: Tensor, weight: Tensor) -> Tensor:
    """Values where `weight` is 1, their smooth continuation where it is 0, and a mixture between.

    Each level of a pyramid averages what it knows, and what a level does not know comes from the next coarser one.

    Args:
        values: `(B, C, H, W)`; weight: `(B, 1, H, W)` in [0, 1].

    Returns:
        `(B, C, H, W)`; zero where there is no value at all.
    """
    if min(values.shape[-2:]) == 1 or bool((weight >= 1).all()):
        return values
    sums = F.avg_pool2d(torch.cat((values * weight, weight), dim=1), 2, ceil_mode=True)
    total = sums[:, -1:]
    coarse = fill_holes(sums[:, :-1] / total.clamp_min(1e-8), (4 * total).clamp_max(1))
    around = F.interpolate(coarse, size=values.shape[-2:], mode="bilinear", align_corners=False)
    return values * weight + around * (1 - weight)


def visibility(flow: Tensor, backward: Tensor, alpha: float = 0.01, beta: float = 0.5) -> Tensor:
    """How much each pixel can be trusted to be seen in the other frame too, `(B, 1, H, W)` in [0, 1].

    `exp(-d^2 / (alpha * (|f|^2 + |b|^2) + beta))` with d = f(x) + b(x + f(x)): the soft form of `featherflow.flow.occlusion`.
    0 where x + f(x) lies outside the frame.
    """
    returned, inside = warp_backward(backward, flow)
    disagreement = (flow + returned).square().sum(dim=1, keepdim=True)
    allowed = alpha * (flow.square() + returned.square()).sum(dim=1, keepdim=True) + beta
    return torch.exp(-disagreement / allowed) * inside


def _check(values: Tensor, flow: Tensor) -> None:
    batch, _, height, width = values.shape
    if tuple(flow.shape) != (batch, 2, height, width):
        raise InputError(f"The flow must have the shape {(batch, 2, height, width)}, got {tuple(flow.shape)}.")
