"""Numbers on the device that computes with them."""

import torch
from torch import Tensor


def constant(value: float | tuple[float, ...], like: Tensor) -> Tensor:
    """A number or a row of numbers, float32, on the device of `like`.

    A GPU fills it in itself: a copy from the CPU would wait until all that is queued there is done.
    """
    if like.device.type == "cpu":
        return torch.tensor(value, dtype=torch.float32)
    if isinstance(value, tuple):
        return torch.stack([constant(number, like) for number in value])
    return torch.full((), value, dtype=torch.float32, device=like.device)
