"""Starting values for training from scratch."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..networks.liteflownet import DescriptorMatching, FlowRegularization, LiteFlowNet, PseudoLevel, SubPixelRefinement

_OTHER_NEIGHBOURS = 2.0  # distance of each neighbour but the centre: weights exp(-4) against 1


@torch.no_grad()
def initialize(network: LiteFlowNet, generator: torch.Generator) -> None:
    """Variance-preserving weights for leaky ReLU 0.1; flow layers start near zero, local convolutions near the identity.

    A unit that starts by passing its flow on does no harm to the units before it while it is still untrained.
    """
    gain = math.sqrt(2.0 / (1.0 + 0.1**2))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_in = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.weight[:, 0].numel() / 4
            module.weight.normal_(0.0, gain / math.sqrt(fan_in), generator=generator)
            module.bias.zero_()
    for module in network.modules():
        if isinstance(module, DescriptorMatching | SubPixelRefinement | PseudoLevel):
            module.flow.weight.mul_(0.1)
        if isinstance(module, FlowRegularization | PseudoLevel):
            last = module.distance[-1]
            last.weight.mul_(0.3)
            last.bias.fill_(_OTHER_NEIGHBOURS)
            last.bias[len(last.bias) // 2] = 0.0
