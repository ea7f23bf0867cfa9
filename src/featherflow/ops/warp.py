"""Backward warping of images and features towards the first frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .constant import constant
from .strips import in_strips

_BORDERS = {"zero": "zeros", "replicate": "border"}


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
    dtype, (height, width) = features.dtype, features.shape[-2:]
    scale = constant((2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)), features)
    features = features.float()

    def sample(target: Tensor) -> Tensor:
        grid = target.permute(0, 2, 3, 1) * scale - 1.0
        sampled = F.grid_sample(features, grid, mode="bilinear", padding_mode=_BORDERS[border], align_corners=True)
        return sampled.to(dtype)

    return in_strips(sample, pixel_grid(height, width, features) + flow.float(), margin=0)
