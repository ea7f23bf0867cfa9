"""A median filter of whole maps by minima and maxima: what vectorises, and what autograd knows.

The columns of a window are sorted once for all windows that they belong to, then each of the rows of equal rank. After both, of
place (i, j) it is known that at least (i + 1)(j + 1) - 1 of the window are no larger, and how many are no smaller; few places are
left that can hold the median (13 of 25). Among these it is found by dropping extremes. Comparisons whose answer nobody reads are
left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: Rows of a map that are filtered at a time: their windows stay in the processor's cache.
_STRIP = 64


class Comparison(NamedTuple):
    """The smaller of two places goes to `low`, the larger to `high`; each only if it is read later."""

    low: object
    high: object
    keeps_low: bool = True
    keeps_high: bool = True


def median_filter(x: Tensor, side: int) -> Tensor:
    """Median of each `side` x `side` window (odd) of each channel of `(B, C, H, W)`; edges repeat."""
    if side == 1:
        return x
    reach, height = side // 2, x.shape[-2]
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    strips = [padded[..., top : min(top + _STRIP, height) + 2 * reach, :] for top in range(0, height, _STRIP)]
    return torch.cat([_filtered(strip, side) for strip in strips], dim=-2)


def _filtered(padded: Tensor, side: int) -> Tensor:
    height, width = (length - side + 1 for length in padded.shape[-2:])
    columns = _run(_sorting(range(side)), {i: padded[..., i : i + height, :] for i in range(side)})
    windows = {(i, j): columns[i][..., j : j + width] for i in range(side) for j in range(side)}
    comparisons, median = _selection(side)
    return _run(comparisons, windows)[median]


def _run(comparisons: list[Comparison], values: dict) -> dict:
    for low, high, keeps_low, keeps_high in comparisons:
        a, b = values[low], values[high]
        if keeps_low:
            values[low] = torch.minimum(a, b)
        if keeps_high:
            values[high] = torch.maximum(a, b)
    return values


def _sorting(places) -> list[Comparison]:
    """Sort places, smallest first, by insertion."""
    places = list(places)
    return [Comparison(places[j - 1], places[j]) for i in range(1, len(places)) for j in range(i, 0, -1)]


@lru_cache(maxsize=4)
def _selection(side: int) -> tuple[list[Comparison], tuple[int, int]]:
    """From sorted columns to the median of a window, and the place where it is then."""
    comparisons = [step for i in range(side) for step in _sorting((i, j) for j in range(side))]
    most = (side * side + 1) // 2  # of a window are no larger than the median, with itself
    left = [(i, j) for i in range(side) for j in range(side) if (i + 1) * (j + 1) <= most and (side - i) * (side - j) <= most]
    # Of n + 1 values, n >= the number not yet seen, neither the smallest nor the largest can be the median of all.
    held, waiting = left[: len(left) // 2 + 2], left[len(left) // 2 + 2 :]
    while len(held) > 1:
        comparisons += [Comparison(held[0], place) for place in held[1:]]  # the smallest moves to the front, ...
        comparisons += [Comparison(place, held[-1]) for place in held[1:-1]]  # ... the largest of the rest to the back
        held = held[1:-1] + waiting[:1]
        waiting = waiting[1:]
    return _needed(comparisons, held[0]), held[0]


def _needed(comparisons: list[Comparison], answer: object) -> list[Comparison]:
    """Those that the answer depends on, each without what is not read after it."""
    read, kept = {answer}, []
    for low, high, *_ in reversed(comparisons):
        if low in read or high in read:
            kept.append(Comparison(low, high, low in read, high in read))
            read |= {low, high}
    return kept[::-1]
