"""FlowNetS: the first learned flow. Two stacked frames down a contracting path, a coarse flow refined on the way back up.

    frame 1, frame 2 -> mean-free, stacked to 6 channels
    contraction   conv1 ... conv6_1                     1/2 to 1/64 size
    refinement    for level 6 down to 2: predict a flow; enlarge it and the features, join the contracting features
    flow of level 2 (1/4 size) * 20, enlarged to the frame

Papers: Dosovitskiy et al.: "FlowNet: Learning Optical Flow with Convolutional Networks", ICCV 2015; weights and details are
those of Ilg et al.: "FlowNet 2.0", CVPR 2017 (FlowNet2-S). Layer names are those of the released PyTorch files.

Inside, a flow is u = (pixels of the full frame) / FLOW_SCALE at every level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import check_frames, full_precision, resize_flow, size_of
from .contract import FlowNetwork, Traits

FLOW_SCALE = 20.0


def conv(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution with "same" zero padding, and a leaky ReLU."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2), nn.LeakyReLU(0.1))


def deconv(channels_in: int, channels_out: int) -> nn.Sequential:
    """Exact doubling of the grid by a transposed convolution, and a leaky ReLU."""
    return nn.Sequential(nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1), nn.LeakyReLU(0.1))


def flow_head(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, 2, 3, padding=1)


def mean_free_pair(frame1: Tensor, frame2: Tensor) -> Tensor:
    """Both frames stacked, `(B, 6, H, W)`, less the mean colour of the two together, per sample.

    Frames in [0, 1] stand for the release's (0..255 less its mean) / 255.
    """
    frame1, frame2 = frame1.float(), frame2.float()
    mean = torch.cat((frame1, frame2), dim=3).mean(dim=(2, 3), keepdim=True)
    return torch.cat((frame1 - mean, frame2 - mean), dim=1)


class FlowNetTrunk(FlowNetwork):
    """What FlowNetS, FlowNetC and FlowNetSD share: contraction from level 3 on and the whole refinement.

    Args:
        upflow_bias: bias in the layers that enlarge a flow; FlowNetS has none.
        smoothing: FlowNetSD's extra convolution (`inter_conv`) before each flow of levels 5 to 2 (FlowNet2, section 4.3).
    """

    # The PyTorch release crops to multiples of 64 and leaves the rim without flow; the Caffe release resizes, as we do.
    traits = Traits(size_multiple=64, smallest_size=64, size_rule="resize")

    def __init__(self, upflow_bias: bool = True, smoothing: bool = False):
        super().__init__()
        self.conv4 = conv(256, 512, stride=2)
        self.conv4_1 = conv(512, 512)
        self.conv5 = conv(512, 512, stride=2)
        self.conv5_1 = conv(512, 512)
        self.conv6 = conv(512, 1024, stride=2)
        self.conv6_1 = conv(1024, 1024)

        self.deconv5 = deconv(1024, 512)
        self.deconv4 = deconv(1026, 256)
        self.deconv3 = deconv(770, 128)
        self.deconv2 = deconv(386, 64)
        joined = {6: 1024, 5: 1026, 4: 770, 3: 386, 2: 194}
        smoothed = {6: 1024, 5: 512, 4: 256, 3: 128, 2: 64}
        if smoothing:
            for level in (5, 4, 3, 2):  # a bare convolution; the release wraps it all the same
                layer = nn.Conv2d(joined[level], smoothed[level], 3, padding=1)
                self.add_module(f"inter_conv{level}", nn.Sequential(layer))
        for level in (6, 5, 4, 3, 2):
            self.add_module(f"predict_flow{level}", flow_head((smoothed if smoothing else joined)[level]))
        for level in (6, 5, 4, 3):
            layer = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1, bias=upflow_bias)
            self.add_module(f"upsampled_flow{level}_to_{level - 1}", layer)

    def contract(self, conv3_1: Tensor) -> dict[int, Tensor]:
        """Features of levels 3 to 6 from those of level 3."""
        conv4 = self.conv4_1(self.conv4(conv3_1))
        conv5 = self.conv5_1(self.conv5(conv4))
        return {3: conv3_1, 4: conv4, 5: conv5, 6: self.conv6_1(self.conv6(conv5))}

    def refine(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """Flows u by level, 6 to 2, from the contracting features of levels 2 to 6 (FlowNet, section 3, "Refinement")."""
        flows = {}
        joined = features[6]
        for level in (6, 5, 4, 3, 2):
            if level < 6:
                enlarged = getattr(self, f"deconv{level}")(joined)
                upflow = getattr(self, f"upsampled_flow{level + 1}_to_{level}")(flows[level + 1])
                joined = torch.cat((features[level], enlarged, upflow), dim=1)
            smoothing = getattr(self, f"inter_conv{level}", None)
            flows[level] = getattr(self, f"predict_flow{level}")(joined if smoothing is None else smoothing(joined))
        return {level: flow.float() for level, flow in flows.items()}

    def units(self, stacked: Tensor) -> dict[int, Tensor]:
        """Flows u by level from the stacked, mean-free frames."""
        raise TypeError(f"{type(self).__name__} is only the shared part of the FlowNets.")

    def flows(self, frame1: Tensor, frame2: Tensor) -> list[Tensor]:
        """Flows u `(B, 2, h, w)` of levels 6 to 2, coarsest first; for training."""
        check_frames(frame1, frame2, self.traits.size_multiple, self.traits.smallest_size)
        return list(self.units(mean_free_pair(frame1, frame2)).values())

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
        frame_size = size_of(frame1)
        flow = self.flows(frame1, frame2)[-1] * FLOW_SCALE
        with full_precision(flow):
            return resize_flow(flow, size or frame_size, unit=frame_size)


class FlowNetS(FlowNetTrunk):
    """FlowNetSimple: the network finds out by itself how to compare the stacked frames.

    Args:
        channels_in: 6, two frames; 12 inside FlowNet2.
    """

    def __init__(self, channels_in: int = 6):
        super().__init__(upflow_bias=False)
        self.conv1 = conv(channels_in, 64, 7, stride=2)
        self.conv2 = conv(64, 128, 5, stride=2)
        self.conv3 = conv(128, 256, 5, stride=2)
        self.conv3_1 = conv(256, 256)

    def units(self, stacked: Tensor) -> dict[int, Tensor]:
        """Flows u by level, 6 to 2, from `(B, 6 or 12, H, W)`."""
        conv2 = self.conv2(self.conv1(stacked))
        return self.refine({2: conv2, **self.contract(self.conv3_1(self.conv3(conv2)))})
