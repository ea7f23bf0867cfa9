"""Convolutions over large maps, strip by strip, so that what lies between the first layer and the last stays small."""

from collections.abc import Callable
from fractions import Fraction
from typing import overload

import torch
from torch import Tensor, nn

from .graphs import in_graph

#: Maps of fewer positions are taken whole.
LEAST = 500_000
_STRIP = 250_000
_SUMMED = 250_000  # the same for maps of any size, so that sums come out the same
_LEAST_MARGINS = 8  # rows of a strip, in margins: what two strips both compute stays below a quarter


@overload
def in_strips(function: Callable[..., Tensor], *maps: Tensor, margin: int, unit: int = 1) -> Tensor: ...


@overload
def in_strips(function: Callable[..., tuple[Tensor, ...]], *maps: Tensor, margin: int, unit: int = 1) -> tuple[Tensor, ...]: ...


def in_strips(
    function: Callable[..., Tensor | tuple[Tensor, ...]], *maps: Tensor, margin: int, unit: int = 1
) -> Tensor | tuple[Tensor, ...]:
    """`function(*maps)`, of large maps in strips of full width; each strip also sees what lies `margin` rows above and below it.

    The values are those of the whole maps. Maps are taken whole where they are small, where gradients are wanted, and in graphs.

    Args:
        function: "same" convolutions and the like, of one or several maps to one or several, reduced or enlarged by one factor.
        maps: `(B, C, H, W)`, of one H and W.
        margin: rows from which a row of the answer takes something, to each side, on the grid of `maps`.
        unit: rows that must stay together, such as the stride of a convolution; H is a multiple of it.
    """
    batch, _, height, width = maps[0].shape
    if torch.is_grad_enabled() or in_graph():
        return function(*maps)
    margin = -(-margin // unit) * unit
    rows = max(_STRIP // (batch * width * unit) * unit, _LEAST_MARGINS * margin, unit)
    if batch * height * width < LEAST or height <= rows:
        return function(*maps)
    answers: list[Tensor] = []
    several = False
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(top - margin, 0), min(bottom + margin, height)
        part = function(*(x[..., first:last, :] for x in maps))
        several = isinstance(part, tuple)
        strips = part if isinstance(part, tuple) else (part,)
        row = Fraction(strips[0].shape[-2], last - first)  # of the answer, for one of the maps
        if not answers:
            answers = [
                strip.new_empty(batch, int(height * row), strip.shape[-1], strip.shape[1]).permute(0, 3, 1, 2) for strip in strips
            ]
        for answer, strip in zip(answers, strips, strict=True):
            start, end = int((top - first) * row), int((bottom - first) * row)
            answer[..., int(top * row) : int(bottom * row), :] = strip[..., start:end, :]
    return tuple(answers) if several else answers[0]


def sum_in_strips(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Sum of `function(x)` over all positions, `(B, C, 1, 1)`; of a large map strip by strip.

    Args:
        function: of each position by itself, `(B, C, H, W)` to the same shape.
    """
    if torch.is_grad_enabled() or in_graph():
        return function(x).sum(dim=(2, 3), keepdim=True)
    strips = x.split(max(_SUMMED // (x.shape[0] * x.shape[3]), 1), dim=2)
    first, *rest = (function(strip).sum(dim=(2, 3), keepdim=True) for strip in strips)
    return sum(rest, start=first)


def reach(module: nn.Module) -> int:
    """Rows to each side from which "same" convolutions of stride 1, one after the other, take something."""
    return sum(int(layer.padding[0]) for layer in module.modules() if isinstance(layer, nn.Conv2d))
