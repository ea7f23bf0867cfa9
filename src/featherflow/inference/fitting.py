"""How frames are fitted to a network's grid, and how its flow comes back to their size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks import Traits
from ..ops import resize, resize_flow


@dataclass(frozen=True)
class Fitting:
    """How a network sees frames of one size, by its official size rule (`Traits.size_rule`).

    Sizes are (height, width) [px]: of the frames, as the network sees them enlarged, and of its grid.
    """

    size: tuple[int, int]
    seen: tuple[int, int]
    grid: tuple[int, int]
    pads: bool
    rounds_to_8_bits: bool

    @classmethod
    def of(cls, traits: Traits, size: tuple[int, int], enlarge: float = 1.0) -> Fitting:
        """For frames of (height, width) [px], which the network sees enlarged by a factor."""
        seen = (max(round(size[0] * enlarge), 1), max(round(size[1] * enlarge), 1))
        multiple, smallest = traits.size_multiple, traits.smallest_size
        grid = (max(-(-seen[0] // multiple) * multiple, smallest), max(-(-seen[1] // multiple) * multiple, smallest))
        return cls(size, seen, grid, traits.size_rule == "pad", traits.rounds_to_8_bits)

    def fit(self, frame: Tensor) -> Tensor:
        """Frames `(B, 3, *size)` as the network takes them, `(B, 3, *grid)`."""
        if self.pads:
            top, left = self._corner()
            bottom, right = self.grid[0] - self.seen[0] - top, self.grid[1] - self.seen[1] - left
            frame = F.pad(resize(frame, self.seen), (left, right, top, bottom), mode="replicate")
        elif self.grid != self.size:
            frame = resize(frame, self.grid)
            if self.rounds_to_8_bits:
                frame = (frame * 255).round() / 255
        return frame.contiguous(memory_format=torch.channels_last)

    def restore(self, flow: Tensor) -> Tensor:
        """Flow `(B, 2, *size)` float32 [px] from the network's answer, which has that size already unless it pads."""
        if not self.pads:
            return flow.float()
        top, left = self._corner()
        return resize_flow(flow[..., top : top + self.seen[0], left : left + self.seen[1]], self.size)

    def _corner(self) -> tuple[int, int]:
        """Where the frame begins on the padded grid."""
        return (self.grid[0] - self.seen[0]) // 2, (self.grid[1] - self.seen[1]) // 2
