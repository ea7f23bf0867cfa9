"""Sizes of maps, as pairs that say what they are."""

from torch import Tensor


def size_of(x: Tensor) -> tuple[int, int]:
    """(height, width) of maps `(..., H, W)`. While a graph is recorded these are what stands for numbers there."""
    return x.shape[-2], x.shape[-1]
