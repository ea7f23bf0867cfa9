"""Keep coordinates and flow in float32 while the convolutions around them run in half precision."""

from contextlib import nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor):
    """Context in which autocast is off for the device of `like`; free when autocast is not on.

    bfloat16 holds 8 bits of mantissa: a flow of 40 px would be rounded to a quarter of a pixel.
    """
    device = like.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
