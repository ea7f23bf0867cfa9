"""Maps in memory: row by row of each channel, or channels-last, all channels of a position together, as convolutions want them.

PyTorch's own operators answer correctly for either, but some are ten times slower for the one that they were not written for.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

from .graphs import in_graph

_Module = TypeVar("_Module", bound=nn.Module)


def channels_last(module: _Module) -> _Module:
    """`module` itself, its weights now channels-last."""
    return laid_out(module, torch.channels_last)


def laid_out(module: _Module, order: torch.memory_format) -> _Module:
    """`module` itself, its weights now in this order."""
    return module.to(memory_format=order)  # pyright: ignore[reportCallIssue]  # a form that its types lack


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a position lie side by side. In graphs always False: there, engines choose."""
    return not in_graph() and x.shape[1] > 1 and x.stride(1) == 1


def join_channels(*maps: Tensor, dtype: torch.dtype) -> Tensor:
    """`torch.cat(maps, dim=1)` in one dtype, channels-last where one of the maps is.

    Args:
        maps: `(B, C, H, W)`; C may differ.
    """
    alike = [x.to(dtype) for x in maps]
    if not any(is_channels_last(x) for x in alike):
        return torch.cat(alike, dim=1)
    return torch.cat([x.movedim(1, -1) for x in alike], dim=-1).movedim(-1, 1)


def reverse_channels(x: Tensor) -> Tensor:
    """`x.flip(1)` of a few channels, RGB to BGR: planes joined in the other order, where some engines would go number by number."""
    return torch.cat(x.split(1, dim=1)[::-1], dim=1)


def channel_softmax(x: Tensor) -> Tensor:
    """`torch.softmax(x, dim=1)`, which would first copy channels-last maps, without that copy."""
    return torch.softmax(x.movedim(1, -1), dim=-1).movedim(-1, 1) if is_channels_last(x) else torch.softmax(x, dim=1)


def as_planes(x: Tensor) -> Tensor:
    """`x.contiguous()`, where `x` is channels-last by the blocked transposition that PyTorch has for matrices."""
    if x.is_contiguous() or not is_channels_last(x):
        return x.contiguous()
    planes = torch.empty_like(x, memory_format=torch.contiguous_format)
    for plane, part in zip(planes, x, strict=True):
        plane.flatten(1).copy_(part.movedim(0, -1).flatten(0, 1).T)
    return planes
