"""FlowNetC: FlowNet with the comparison built in, a correlation layer between the features of the two frames.

    frame 1, frame 2 -> mean-free; conv1 ... conv3 each, with the same weights       1/8 size
    correlation       441 displacements, 16 px of the frame apart, up to 160
    conv3_1 ...       contraction and refinement as in FlowNetS

Papers: Dosovitskiy et al., ICCV 2015; weights and details of Ilg et al., CVPR 2017 (FlowNet2-C).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import correlate_dilated, full_precision
from .flownets import FlowNetTrunk, conv

SEARCH_RADIUS = 10  # steps
SEARCH_STEP = 2  # px of the 1/8 map


class FlowNetC(FlowNetTrunk):
    """FlowNetCorr (FlowNet, section 3, "Correlation layer")."""

    def __init__(self):
        super().__init__(upflow_bias=True)
        self.conv1 = conv(3, 64, 7, stride=2)
        self.conv2 = conv(64, 128, 5, stride=2)
        self.conv3 = conv(128, 256, 5, stride=2)
        self.conv_redir = conv(256, 32, 1)
        self.conv3_1 = conv(32 + (2 * SEARCH_RADIUS + 1) ** 2, 256)

    def units(self, stacked: Tensor) -> dict[int, Tensor]:
        """Flows u by level, 6 to 2, from mean-free frames `(B, 6, H, W)`."""
        conv2, _ = both = [self.conv2(self.conv1(frame)) for frame in stacked.chunk(2, dim=1)]
        conv3, other3 = (self.conv3(features) for features in both)
        costs = F.leaky_relu(match(conv3, other3), 0.1)
        conv3_1 = self.conv3_1(torch.cat((self.conv_redir(conv3), costs), dim=1))
        return self.refine({2: conv2, **self.contract(conv3_1)})


def match(features1: Tensor, features2: Tensor) -> Tensor:
    """Costs of all displacements of the search grid, `(B, 441, H, W)`; in float32, since they are sums of 256 products."""
    with full_precision(features1):
        return correlate_dilated(features1.float(), features2.float(), SEARCH_RADIUS, SEARCH_STEP)
