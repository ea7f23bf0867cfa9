"""FlowNet2: a cascade of FlowNets, each given the frames warped by what the last one found, and a network that fuses the ends.

    x1, x2 mean-free frames
    FlowNetC    x1, x2                                        -> Fc
    FlowNetS 1  x1, x2, x2 warped by Fc,  Fc,  brightness error  -> Fs1
    FlowNetS 2  x1, x2, x2 warped by Fs1, Fs1, brightness error  -> Fs2      large displacements
    FlowNetSD   x1, x2                                        -> Fsd      small displacements
    Fusion      x1, both flows, their lengths and their brightness errors -> flow at full size

Paper: Ilg et al.: "FlowNet 2.0: Evolution of Optical Flow Estimation with Deep Networks", CVPR 2017, figure 2. The parts
FlowNet2-CS and FlowNet2-CSS stop after the first and second FlowNetS; FlowNet2-SD is the small-displacement network alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import check_frames, full_precision, lengths, resize_flow, size_of, warp
from .contract import FlowNetwork
from .flownetc import FlowNetC
from .flownets import FLOW_SCALE, FlowNetS, FlowNetTrunk, conv, deconv, flow_head, mean_free_pair


@dataclass(frozen=True)
class FlowNet2Config:
    """How far the cascade goes."""

    #: Refining FlowNetS after FlowNetC: 1 (CS) or 2 (CSS).
    refinements: int = 2
    #: FlowNetSD and the fusion network at the end.
    fusion: bool = True


FLOWNET2 = FlowNet2Config()
FLOWNET2_CS = FlowNet2Config(refinements=1, fusion=False)
FLOWNET2_CSS = FlowNet2Config(fusion=False)


class FlowNetSD(FlowNetTrunk):
    """FlowNetS for small displacements: 3x3 kernels, a first layer at full size, smoother flows (section 4.3)."""

    def __init__(self):
        super().__init__(upflow_bias=True, smoothing=True)
        self.conv0 = conv(6, 64)
        self.conv1 = conv(64, 64, stride=2)
        self.conv1_1 = conv(64, 128)
        self.conv2 = conv(128, 128, stride=2)
        self.conv2_1 = conv(128, 128)
        self.conv3 = conv(128, 256, stride=2)
        self.conv3_1 = conv(256, 256)

    def units(self, stacked: Tensor) -> dict[int, Tensor]:
        """Flows u by level, 6 to 2, from mean-free frames `(B, 6, H, W)`."""
        conv1 = self.conv1_1(self.conv1(self.conv0(stacked)))
        conv2 = self.conv2_1(self.conv2(conv1))
        return self.refine({2: conv2, **self.contract(self.conv3_1(self.conv3(conv2)))})


class FlowNetFusion(nn.Module):
    """Takes the better of two flows at each pixel and sharpens it, at full size (section 4.3)."""

    def __init__(self):
        super().__init__()
        self.conv0 = conv(11, 64)
        self.conv1 = conv(64, 64, stride=2)
        self.conv1_1 = conv(64, 128)
        self.conv2 = conv(128, 128, stride=2)
        self.conv2_1 = conv(128, 128)
        self.deconv1 = deconv(128, 32)
        self.deconv0 = deconv(162, 16)
        self.inter_conv1 = nn.Sequential(nn.Conv2d(162, 32, 3, padding=1))
        self.inter_conv0 = nn.Sequential(nn.Conv2d(82, 16, 3, padding=1))
        self.predict_flow2 = flow_head(128)
        self.predict_flow1 = flow_head(32)
        self.predict_flow0 = flow_head(16)
        self.upsampled_flow2_to_1 = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
        self.upsampled_flow1_to_0 = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)

    def forward(self, evidence: Tensor) -> list[Tensor]:
        """Evidence `(B, 11, H, W)` to flows [px of the frame] at 1/4, 1/2 and full size."""
        conv0 = self.conv0(evidence)
        conv1 = self.conv1_1(self.conv1(conv0))
        conv2 = self.conv2_1(self.conv2(conv1))
        flow2 = self.predict_flow2(conv2)
        joined1 = torch.cat((conv1, self.deconv1(conv2), self.upsampled_flow2_to_1(flow2)), dim=1)
        flow1 = self.predict_flow1(self.inter_conv1(joined1))
        joined0 = torch.cat((conv0, self.deconv0(joined1), self.upsampled_flow1_to_0(flow1)), dim=1)
        return [flow.float() for flow in (flow2, flow1, self.predict_flow0(self.inter_conv0(joined0)))]


class FlowNet2(FlowNetwork):
    """The cascade, or its first two or three networks."""

    traits = FlowNetC.traits

    def __init__(self, config: FlowNet2Config = FLOWNET2):
        super().__init__()
        self.config: FlowNet2Config = config
        self.flownetc = FlowNetC()
        self.flownets_1 = FlowNetS(channels_in=12)
        if config.refinements > 1:
            self.flownets_2 = FlowNetS(channels_in=12)
        if config.fusion:
            self.flownets_d = FlowNetSD()
            self.flownetfusion = FlowNetFusion()

    def flows(self, frame1: Tensor, frame2: Tensor) -> list[Tensor]:
        """Flows at full size `(B, 2, H, W)` [px] in the order in which they arise: Fc, Fs1, then Fs2, then Fsd and the fused."""
        check_frames(frame1, frame2, self.traits.size_multiple, self.traits.smallest_size)
        pair = mean_free_pair(frame1, frame2)
        x1, x2 = pair.chunk(2, dim=1)
        flows = [_enlarged(self.flownetc.units(pair)[2] * FLOW_SCALE, "bilinear")]
        for index in range(self.config.refinements):
            warped, error = _compare(x1, x2, flows[-1])
            u = getattr(self, f"flownets_{index + 1}").units(torch.cat((pair, warped, flows[-1] / FLOW_SCALE, error), dim=1))[2]
            flows.append(_enlarged(u * FLOW_SCALE, "nearest" if index == 1 else "bilinear"))
        if self.config.fusion:
            # Divided where the others are multiplied: so the release does, and so the weights of the cascade were trained.
            small = _enlarged(self.flownets_d.units(pair)[2] / FLOW_SCALE, "nearest")
            large = flows[-1]
            evidence = [x1, small, large, lengths(small), lengths(large)]
            evidence += [_compare(x1, x2, flow)[1] for flow in (small, large)]
            flows += [small, self.flownetfusion(torch.cat(evidence, dim=1))[-1]]
        return flows

    def forward(self, frame1: Tensor, frame2: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Flow from frame 1 to frame 2.

        Args:
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1], floating point; H and W multiples of 64.
            size: (height, width) of the answer where the frames were resized to fit. Default: the size of the frames.

        Returns:
            `(B, 2, *size)` float32 [px].

        Raises:
            InputError: for any other shape, size or dtype.
        """
        flow = self.flows(frame1, frame2)[-1]
        with full_precision(flow):
            return resize_flow(flow, size or size_of(frame1))


def _enlarged(flow: Tensor, mode: str) -> Tensor:
    """Flow at 1/4 size to full size; values unchanged."""
    with full_precision(flow):
        return F.interpolate(flow, scale_factor=4, mode=mode, align_corners=False if mode == "bilinear" else None)


def _compare(x1: Tensor, x2: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Frame 2 warped by a flow, and its brightness error against frame 1."""
    warped = warp(x2, flow, border="replicate")
    return warped, lengths(x1 - warped)
