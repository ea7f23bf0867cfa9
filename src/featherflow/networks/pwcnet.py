"""PWC-Net: pyramid, warping, cost volume; the classical pipeline with learned features and learned estimators.

    frame 1, frame 2 -> feature pyramid each, levels 1 (1/2) to 6 (1/64)
    for level 6 down to 2:
        warp      features of frame 2 by the flow of the level above, with a validity mask
        cost      correlation over 9x9 displacements
        estimate  densely connected convolutions -> flow
    context network: dilated convolutions, a residual for the flow of level 2
    flow of level 2 (1/4 size) * 20, enlarged to the frame

Paper: Sun, Yang, Liu, Kautz: "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume", CVPR 2018. The network
is that of the PyTorch release; its class "old" (two convolutions per pyramid level, another order of dense features) has the
parameter count of the paper and the Caffe release.

Inside, a flow is u = (pixels of the full frame) / FLOW_SCALE at every level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import check_frames, correlate, full_precision, resize_flow, reverse_channels, size_of, warp
from .contract import FlowNetwork, Traits

FLOW_SCALE = 20.0
COARSEST_LEVEL, FINEST_LEVEL = 6, 2
FEATURES = (16, 32, 64, 96, 128, 196)
SEARCH_RADIUS = 4
COSTS = (2 * SEARCH_RADIUS + 1) ** 2
DENSE = (128, 128, 96, 64, 32)
CONTEXT = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))  # width, dilation


@dataclass(frozen=True)
class PWCNetConfig:
    """One of the two networks of the release."""

    #: The class "old".
    old: bool = False

    @property
    def pyramid_names(self) -> tuple[tuple[str, ...], ...]:
        """Layer names of each pyramid level 1..6 in the order of use; level 6 of the newer class is named in another order."""
        if self.old:
            return tuple((f"conv{level}a", f"conv{level}b") for level in range(1, 7))
        return (*((f"conv{level}a", f"conv{level}aa", f"conv{level}b") for level in range(1, 6)), ("conv6aa", "conv6a", "conv6b"))

    @property
    def appended(self) -> tuple[int, ...]:
        """Dense convolutions whose output goes behind what was there; the others' goes in front."""
        return (0, 2, 3, 4) if self.old else ()

    @property
    def valid_from(self) -> float:
        """Share of a warped sample that must come from inside the map for the sample to count."""
        return 0.999 if self.old else 0.9999


PWCNET = PWCNetConfig()
PWCNET_OLD = PWCNetConfig(old=True)


def conv(channels_in: int, channels_out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(channels_in, channels_out, 3, stride, padding=dilation, dilation=dilation)
    return nn.Sequential(layer, nn.LeakyReLU(0.1))


class PWCNet(FlowNetwork):
    """PWC-Net, or the class "old" of its release. Layer names are the release's."""

    traits = Traits(size_multiple=64, smallest_size=64, size_rule="resize", rounds_to_8_bits=True)

    def __init__(self, config: PWCNetConfig = PWCNET):
        super().__init__()
        self.config: PWCNetConfig = config
        channels = 3
        for names, width in zip(config.pyramid_names, FEATURES, strict=True):
            for position, name in enumerate(names):
                self.add_module(name, conv(channels, width, stride=2 if position == 0 else 1))
                channels = width
        for level in range(COARSEST_LEVEL, FINEST_LEVEL - 1, -1):
            channels = COSTS if level == COARSEST_LEVEL else COSTS + FEATURES[level - 1] + 4
            for index, width in enumerate(DENSE):
                self.add_module(f"conv{level}_{index}", conv(channels, width))
                channels += width
            self.add_module(f"predict_flow{level}", nn.Conv2d(channels, 2, 3, padding=1))
            # The last of these has no use, but it is in the files and in the published count.
            self.add_module(f"deconv{level}", nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1))
            if level > FINEST_LEVEL:
                self.add_module(f"upfeat{level}", nn.ConvTranspose2d(channels, 2, 4, stride=2, padding=1))
        for index, (width, dilation) in enumerate(CONTEXT, start=1):
            self.add_module(f"dc_conv{index}", conv(channels, width, dilation=dilation))
            channels = width
        self.dc_conv7 = nn.Conv2d(channels, 2, 3, padding=1)

    def encode(self, frame: Tensor) -> dict[int, Tensor]:
        """Features of levels 1 to 6 of a frame `(B, 3, H, W)` RGB in [0, 1] (section 3, "Feature pyramid extractor")."""
        x = reverse_channels(frame.float())  # the released networks see BGR
        pyramid = {}
        for level, names in enumerate(self.config.pyramid_names, start=1):
            for name in names:
                x = getattr(self, name)(x)
            pyramid[level] = x
        return pyramid

    def flows(self, frame1: Tensor, frame2: Tensor) -> list[Tensor]:
        """Flows u of levels 6 to 2, coarsest first; that of level 2 with the context network's residual."""
        check_frames(frame1, frame2, self.traits.size_multiple, self.traits.smallest_size)
        pyramid1, pyramid2 = self.encode(frame1), self.encode(frame2)
        flows: list[Tensor] = []
        dense = frame1  # replaced by the features of the level above before they are wanted
        for level in range(COARSEST_LEVEL, FINEST_LEVEL - 1, -1):
            features1, features2 = pyramid1[level], pyramid2[level]
            if level == COARSEST_LEVEL:
                x = self._match(features1, features2)
            else:
                upflow = getattr(self, f"deconv{level + 1}")(flows[-1]).float()
                upfeatures = getattr(self, f"upfeat{level + 1}")(dense)
                with full_precision(upflow):
                    warped = masked_warp(features2, upflow * (FLOW_SCALE / 2**level), self.config.valid_from)
                x = torch.cat((self._match(features1, warped), features1, upflow, upfeatures), dim=1)
            dense = self._estimate(level, x)
            flows.append(getattr(self, f"predict_flow{level}")(dense).float())
        for index in range(1, len(CONTEXT) + 1):
            dense = getattr(self, f"dc_conv{index}")(dense)
        flows[-1] = flows[-1] + self.dc_conv7(dense).float()
        return flows

    def _match(self, features1: Tensor, features2: Tensor) -> Tensor:
        """Cost volume (section 3, equation 1), in float32: sums of up to 196 products."""
        with full_precision(features1):
            return F.leaky_relu(correlate(features1.float(), features2.float(), SEARCH_RADIUS), 0.1)

    def _estimate(self, level: int, x: Tensor) -> Tensor:
        """Optical flow estimator with DenseNet connections: the features before the flow layer."""
        for index in range(len(DENSE)):
            new = getattr(self, f"conv{level}_{index}")(x)
            x = torch.cat((x, new) if index in self.config.appended else (new, x), dim=1)
        return x

    def forward(self, frame1: Tensor, frame2: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Flow from frame 1 to frame 2.

        Args:
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1], floating point; H and W multiples of 64.
            size: (height, width) of the answer where the frames were resized to fit; the flow then goes from the finest
                level to that size in one step. Default: the size of the frames.

        Returns:
            `(B, 2, *size)` float32 [px].

        Raises:
            InputError: for any other shape, size or dtype.
        """
        frame_size = size_of(frame1)
        flow = self.flows(frame1, frame2)[-1] * FLOW_SCALE
        with full_precision(flow):
            return resize_flow(flow, size or frame_size, unit=frame_size)


def masked_warp(features: Tensor, flow: Tensor, valid_from: float) -> Tensor:
    """Features warped by a flow [px of this grid], zero wherever a sample is not fully inside the map."""
    inside = warp(torch.ones_like(features[:, :1], dtype=torch.float32), flow)
    return warp(features, flow) * (inside >= valid_from)
