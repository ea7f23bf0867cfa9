"""Backward warping of images and features towards the first frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .constant import constant
from .graphs import in_graph
from .layout import is_channels_last
from .strips import in_strips

_BORDERS = {"zero": "zeros", "replicate": "border"}
_FEW = 8  # channels of maps that `grid_sample` is faster for


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Pixel-centre coordinates `(1, 2, H, W)` float32 [px]: x in channel 0, y in channel 1."""
    y = torch.arange(height, dtype=torch.float32, device=like.device).view(1, 1, height, 1).expand(1, 1, height, width)
    x = torch.arange(width, dtype=torch.float32, device=like.device).view(1, 1, 1, width).expand(1, 1, height, width)
    return torch.cat((x, y), dim=1)


def warp(features: Tensor, flow: Tensor, border: str = "zero") -> Tensor:
    """Bilinear sample of `features` at x + flow(x); each of the four neighbours outside the map counts as zero.

    No validity mask and no renormalisation: a sample half a pixel outside returns half the border value.

    Args:
        features: `(B, C, H, W)` of the second frame.
        flow: `(B, 2, H, W)` [px of this grid]; used in float32 whatever the dtype of the features.
        border: "zero", or "replicate": samples outside take the nearest border value.

    Returns:
        `(B, C, H, W)` in the dtype of `features`.

    Source: LiteFlowNet, section 3.2, equation (1) (f-warp).
    """
    height, width = features.shape[-2:]
    target = pixel_grid(height, width, features) + flow.float()
    if _can_gather(features):
        return in_strips(lambda part: _gathered(features, part, border), target, margin=0)
    dtype = features.dtype
    scale = constant((2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)), features)
    features = features.float()

    def sample(target: Tensor) -> Tensor:
        grid = target.permute(0, 2, 3, 1) * scale - 1.0
        sampled = F.grid_sample(features, grid, mode="bilinear", padding_mode=_BORDERS[border], align_corners=True)
        return sampled.to(dtype)

    return in_strips(sample, target, margin=0)


def _can_gather(features: Tensor) -> bool:
    """Whether the channels of a position are a row in memory, worth reading as one, and nobody asks for a gradient."""
    plain = features.device.type == "cpu" and type(features) is Tensor and not (torch.is_grad_enabled() or in_graph())
    return plain and features.shape[1] >= _FEW and is_channels_last(features) and features.numel() > 0


def _gathered(features: Tensor, target: Tensor, border: str) -> Tensor:
    """`features` at the coordinates `target` `(B, 2, H', W')` [px], as weighted sums of four rows of a table: two to four times
    as fast as `grid_sample`, which is written for maps that lie in memory channel by channel."""
    (batch, channels, height, width), size = features.shape, target.shape[-2:]
    last = torch.tensor((width - 1, height - 1), dtype=torch.int32).view(2, 1, 1)
    outside = 0 if border == "replicate" else 1  # a step beyond the map, from where half of a sample is still on it
    target = target.clamp(torch.full_like(last, -outside), last + outside)
    before = target.floor()
    after = target - before
    # Of both axes, the positions before and after a coordinate, and their weights: (2, B, 2, H', W').
    weights = torch.stack((1.0 - after, after))
    positions = torch.stack((before, before + 1.0)).int()
    rows = positions.clamp(torch.zeros_like(last), last)  # those of a coordinate that is no number may be anything
    weights = weights * (positions == rows)
    (left, right), (upper, lower) = rows.unbind(2)[0], rows.unbind(2)[1] * width
    if batch > 1:
        first = torch.arange(batch, dtype=torch.int32).view(batch, 1, 1) * (height * width)
        upper, lower = upper + first, lower + first
    corners = torch.stack((upper + left, upper + right, lower + left, lower + right), dim=-1)
    (left, right), (upper, lower) = weights.unbind(2)
    shares = torch.stack((upper * left, upper * right, lower * left, lower * right), dim=-1)
    table = features.permute(0, 2, 3, 1).reshape(-1, channels)
    sums = F.embedding_bag(corners.view(-1, 4), table, mode="sum", per_sample_weights=shares.view(-1, 4).to(table.dtype))
    return sums.view(batch, *size, channels).permute(0, 3, 1, 2)
