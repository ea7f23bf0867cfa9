"""A frame on its way to a flow, and what a network has made of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..networks import FlowNetwork
from .runners import pytorch


@dataclass
class Frame:
    """A frame, or a batch of them."""

    #: `(B, 3, H, W)` float32 RGB in [0, 1].
    batch: Tensor
    #: Its number in a stream.
    number: int = 0
    _encoded: dict[int, object] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) [px]."""
        height, width = self.batch.shape[-2:]
        return height, width

    def encoded(self, network: FlowNetwork, spec: pytorch.InferenceSpec, place: int) -> object:
        """What the network makes of this frame in a place (0 or 1) of a pair, computed once: for both places, if it has one colour
        mean for them."""
        if pytorch.has_one_mean(network):
            place = 0
        if place not in self._encoded:
            self._encoded[place] = pytorch.encode(network, spec, self.batch, place)
        return self._encoded[place]
