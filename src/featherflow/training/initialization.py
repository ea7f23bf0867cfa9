"""Starting values for training from scratch."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..networks.liteflownet import DescriptorMatching, FlowRegularization, LiteFlowNet, PseudoLevel, SubPixelRefinement

_OTHER_NEIGHBOURS = 2.0  # distance of each neighbour but the centre: weights exp(-4) against 1

_NORMALIZATIONS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm)


@torch.no_grad()
def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Starting weights, by what the network needs.

    LiteFlowNet family: variance-preserving for leaky ReLU 0.1; flow layers start near zero, local convolutions near the
    identity. A unit that starts by passing its flow on does no harm to the units before it while it is still untrained.

    Other networks without normalisation (FlowNet, SPyNet, PWC-Net): the same for their convolutions, flow layers near zero.
    Networks with normalisation keep PyTorch's own start, drawn from `generator`'s seed.
    """
    if any(isinstance(module, _NORMALIZATIONS) for module in network.modules()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            for module in network.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
        return
    gain = math.sqrt(2.0 / (1.0 + 0.1**2))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(module, nn.ConvTranspose2d)
            fan_in = module.weight[:, 0].numel() / 4 if transposed else module.weight[0].numel()
            small = 0.1 if not isinstance(network, LiteFlowNet) and module.out_channels == 2 and not transposed else 1.0
            module.weight.normal_(0.0, small * gain / math.sqrt(fan_in), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    for module in network.modules():
        if isinstance(module, DescriptorMatching | SubPixelRefinement | PseudoLevel):
            module.flow.weight.mul_(0.1)
        if isinstance(module, FlowRegularization | PseudoLevel):
            last = module.distance[-1]
            last.weight.mul_(0.3)
            last.bias.fill_(_OTHER_NEIGHBOURS)
            last.bias[len(last.bias) // 2] = 0.0
