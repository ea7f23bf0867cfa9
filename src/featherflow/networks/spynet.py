"""SPyNet: the classical coarse-to-fine pyramid, with one small network per level in place of the solver.

    frame 1, frame 2 -> normalised; halved until both sides are at most 32 px
    for the coarsest level down to the frame itself:
        flow of the level above, doubled
        frame 2 warped by it
        G_k: 7x7 convolutions on [frame 1, warped frame 2, flow] -> residual flow

Paper: Ranjan, Black: "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017. Layer names are those of the
PyTorch conversion; `featherflow.weights.torch7` reads the original files.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import check_frames, full_precision, resize_flow, size_of, warp
from .contract import FlowNetwork, Traits

LEVELS = 6
COARSEST_SIDE = 32  # px: halving stops when no side is longer
WIDTHS = (8, 32, 64, 32, 16, 2)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PyramidLevel(nn.Module):
    """G_k: frame 1 (3), warped frame 2 (3) and flow (2) to the residual flow of one level (section 3.2)."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise(WIDTHS):
            layers += [nn.Conv2d(channels_in, channels_out, 7, padding=3), nn.ReLU()]
        self.moduleBasic = nn.Sequential(*layers[:-1])

    def forward(self, image1: Tensor, warped2: Tensor, flow: Tensor) -> Tensor:
        return self.moduleBasic(torch.cat((image1, warped2, flow), dim=1)).float()


class SPyNet(FlowNetwork):
    """The spatial pyramid. Networks are numbered from the coarsest level present; small frames leave the last ones unused."""

    traits = Traits(size_multiple=32, smallest_size=32, size_rule="resize", graph_follows_size=True)

    def __init__(self):
        super().__init__()
        self.moduleBasic = nn.ModuleList(PyramidLevel() for _ in range(LEVELS))

    def flows(self, frame1: Tensor, frame2: Tensor) -> list[Tensor]:
        """Flow of each level `(B, 2, h, w)` [px of that level], coarsest first."""
        check_frames(frame1, frame2, self.traits.size_multiple, self.traits.smallest_size)
        with full_precision(frame1):
            pyramids = [image_pyramid(normalize(frame)) for frame in (frame1, frame2)]
        flows: list[Tensor] = []
        for level, (image1, image2) in enumerate(zip(*pyramids, strict=True)):
            with full_precision(frame1):
                # Below the coarsest level there is nothing to double; its start is at rest.
                flow = doubled(flows[-1], image1.shape[-2:]) if flows else torch.zeros_like(image1[:, :2])
                warped = warp(image2, flow, border="replicate")
            flows.append(flow + self.moduleBasic[level](image1, warped, flow))
        return flows

    def forward(self, frame1: Tensor, frame2: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Flow from frame 1 to frame 2.

        Args:
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1], floating point; H and W multiples of 32.
            size: (height, width) of the answer where the frames were resized to fit. Default: the size of the frames.

        Returns:
            `(B, 2, *size)` float32 [px].

        Raises:
            InputError: for any other shape, size or dtype.
        """
        flow = self.flows(frame1, frame2)[-1]
        with full_precision(flow):
            return resize_flow(flow, size or size_of(frame1))


def normalize(frame: Tensor) -> Tensor:
    """RGB in [0, 1] less the mean colour of ImageNet, over its deviation."""
    mean, deviation = (frame.new_tensor(numbers, dtype=torch.float32).view(1, 3, 1, 1) for numbers in (MEAN, DEVIATION))
    return (frame.float() - mean) / deviation


def image_pyramid(image: Tensor) -> list[Tensor]:
    """The image and its halvings by 2x2 averaging, coarsest first."""
    pyramid = [image]
    while len(pyramid) < LEVELS and max(pyramid[0].shape[-2:]) > COARSEST_SIDE:
        pyramid.insert(0, F.avg_pool2d(pyramid[0], 2, stride=2))
    return pyramid


def doubled(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Flow of the level above on the grid of this one (u in the paper's equation 2); an odd row or column repeats the last."""
    flow = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True) * 2
    rows, columns = size[0] - flow.shape[-2], size[1] - flow.shape[-1]
    return F.pad(flow, (0, columns, 0, rows), mode="replicate") if rows or columns else flow
