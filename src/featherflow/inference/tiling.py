"""Frames too large for memory, estimated tile by tile.

A pass over the whole frames, reduced to the size of a tile, finds the large motions. Each tile of frame 1 then meets the part
of frame 2 that it has moved to by that pass, in whole pixels, so that what is left to find fits into a tile. Neighbouring tiles
overlap; the outer quarter of an overlap is only looked at, and between the quarters one flow fades into the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .settings import OVERLAP, Tile

#: (height, width) of a tile where nobody says otherwise [px]; its sides are multiples of every network's.
USUAL_TILE = (768, 1024)
#: Frames of at most so many pixels are not tiled by "auto", whatever estimates them: a little more than 1920x1088.
LARGEST_WHOLE = 2_200_000
#: Motions of a tile below this are found without moving frame 2 [px]: networks find them better by themselves.
LEAST_SHIFT = 64

Method = Callable[[Tensor, Tensor], Tensor]


def tile_for(tile: Tile, size: tuple[int, int], largest: int = LARGEST_WHOLE) -> tuple[int, int] | None:
    """(height, width) of the tiles for frames of a size [px], or None where they are estimated whole.

    Args:
        tile: as `settings.checked_tile` gives it. "auto": `USUAL_TILE` above `largest` pixels.
    """
    if tile is None or (tile == "auto" and size[0] * size[1] <= largest):
        return None
    height, width = USUAL_TILE if isinstance(tile, str) else tile
    fitting = (min(height, size[0]), min(width, size[1]))
    return None if fitting == size else fitting


def estimate_in_tiles(method: Method, first: Tensor, second: Tensor, tile: tuple[int, int]) -> Tensor:
    """Flow of large frames by a method that only ever sees frames of the size of a tile, or about.

    Args:
        method: two batches of frames of one size to their flow, on the CPU.
        first, second: `(B, 3, H, W)` float32.
        tile: (height, width) [px], not larger than the frames.

    Returns:
        `(B, 2, H, W)` float32 [px].
    """
    if first.shape[0] > 1:
        return torch.cat([estimate_in_tiles(method, a, b, tile) for a, b in zip(first.split(1), second.split(1), strict=True)])
    height, width = first.shape[-2:]
    coarse = _coarse_flow(method, first, second, tile)
    total = torch.zeros(1, 2, height, width)
    weights = torch.zeros(1, 1, height, width)
    for top, fade_y in _places(height, tile[0]):
        for left, fade_x in _places(width, tile[1]):
            rows, columns = slice(top, top + tile[0]), slice(left, left + tile[1])
            down, right = _shift(coarse, (height, width), rows, columns)
            flow = method(first[..., rows, columns].contiguous(), _moved(second, rows, columns, down, right))
            flow = flow + flow.new_tensor((right, down)).view(1, 2, 1, 1)
            weight = fade_y.view(-1, 1) * fade_x
            total[..., rows, columns] += flow * weight
            weights[..., rows, columns] += weight
    return total.div_(weights)


def _coarse_flow(method: Method, first: Tensor, second: Tensor, tile: tuple[int, int]) -> Tensor:
    """Flow of the whole frames, reduced to about the pixels of a tile, in pixels of the frames."""
    height, width = first.shape[-2:]
    factor = (tile[0] * tile[1] / (height * width)) ** 0.5
    size = tuple(max(round(side * factor / 64), 1) * 64 for side in (height, width))
    flow = method(*(F.interpolate(frame, size, mode="area") for frame in (first, second)))
    return flow * flow.new_tensor((width / size[1], height / size[0])).view(1, 2, 1, 1)


def _places(length: int, tile: int) -> Iterator[tuple[int, Tensor]]:
    """Where tiles begin along one axis, and how much each of their pixels counts."""
    starts = [*range(0, length - tile, tile - OVERLAP), length - tile]
    steps = (torch.arange(tile) + 0.5 - OVERLAP / 4) / (OVERLAP / 2)
    for start in starts:
        fade = torch.ones(tile)
        if start > 0:
            fade = fade.minimum(steps)
        if start + tile < length:
            fade = fade.minimum(steps.flip(0))
        yield start, fade.clamp(0, 1)


def _shift(coarse: Tensor, size: tuple[int, int], rows: slice, columns: slice) -> tuple[int, int]:
    """How far a tile moves (down, right) in whole pixels: the median of the coarse flow inside, or nothing if that is little."""
    y, x = coarse.shape[-2] / size[0], coarse.shape[-1] / size[1]
    inside = coarse[0, :, round(rows.start * y) : round(rows.stop * y), round(columns.start * x) : round(columns.stop * x)]
    right, down = (round(statistics.median(part.flatten().tolist())) for part in inside)
    return (down, right) if max(abs(down), abs(right)) >= LEAST_SHIFT else (0, 0)


def _moved(second: Tensor, rows: slice, columns: slice, down: int, right: int) -> Tensor:
    """Part of frame 2 that a tile has moved to; outside the frame its border repeats."""
    height, width = second.shape[-2:]
    y = torch.arange(rows.start + down, rows.stop + down).clamp(0, height - 1)
    x = torch.arange(columns.start + right, columns.stop + right).clamp(0, width - 1)
    return second[..., y[0] : y[-1] + 1, x[0] : x[-1] + 1][..., y - y[0], :][..., x - x[0]].contiguous()
