"""RAFT-Stereo: RAFT's skeleton pointed at disparity. The match moves along a row, so costs need one axis less.

    left, right frame -> feature network, the same weights     1/4 size
    left frame        -> context network at 1/4, 1/8, 1/16: hidden states and gate biases of three update units
    correlation along rows, pooled to 4 levels
    repeat: look up costs around the match; motion encoder; three ConvGRUs, coarse to fine; flow head: flow + residual
    convex combination of the coarse flow, 4 times enlarged

Paper: Lipson, Teed, Deng: "RAFT-Stereo: Multilevel Recurrent Field Transforms for Stereo Matching", 3DV 2021. Layer names are
those of the release.

Convention: frame 1 is the left and frame 2 the right frame of a rectified pair. The flow's y is zero, and its x is the disparity
with its sign changed: a point at column x of the left frame is at x + flow = x - disparity of the right one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import (
    check_frames,
    check_iterations,
    convex_upsample,
    full_precision,
    lookup_rows,
    pixel_grid,
    resize_flow,
    size_of,
    starting_flow,
)
from .contract import FlowNetwork, Traits

HIDDEN = 128
FEATURES = 256
CORRELATION_LEVELS = 4
RADIUS = 4


@dataclass(frozen=True)
class RAFTStereoConfig:
    """Options of the release's models."""

    #: Halvings down to the finest maps: 2 = 1/4 size.
    halvings: int = 2
    #: Sizes that have a hidden state, each half as large as the one before; at most 3.
    levels: int = 3
    #: One trunk for features and context (section 4.4).
    shared_backbone: bool = False
    #: Before each update, another one of the coarse hidden states alone (section 3.3, "Slow-fast bi-level GRU").
    slow_fast: bool = False
    #: Updates per call where the call does not say.
    iterations: int = 32


RAFT_STEREO = RAFTStereoConfig()
RAFT_STEREO_REALTIME = RAFTStereoConfig(halvings=3, levels=2, shared_backbone=True, slow_fast=True, iterations=7)

NORMS = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}


# ------------------------------------------------------------------------------------------------ encoders


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a skip, projected where grid or width changes."""

    def __init__(self, channels_in: int, channels_out: int, norm: str, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.norm1, self.norm2 = NORMS[norm](channels_out), NORMS[norm](channels_out)
        self.downsample = None
        if stride > 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride), NORMS[norm](channels_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def stage(channels_in: int, channels_out: int, norm: str, stride: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(channels_in, channels_out, norm, stride), ResidualBlock(channels_out, channels_out, norm))


class Trunk(nn.Module):
    """Frame to the finest maps: RAFT's encoder, its strides given up from the front where fewer halvings are wanted."""

    def __init__(self, norm: str, halvings: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2 if halvings > 2 else 1, padding=3)
        self.norm1 = NORMS[norm](64)
        self.layer1 = stage(64, 64, norm, 1)
        self.layer2 = stage(64, 96, norm, 2 if halvings > 1 else 1)
        self.layer3 = stage(96, HIDDEN, norm, 2 if halvings > 0 else 1)

    def finest(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` in [-1, 1] to `(B, 128, H/4, W/4)`, or as many halvings as there are."""
        x = F.relu(self.norm1(self.conv1(image)))
        return self.layer3(self.layer2(self.layer1(x)))


class FeatureNetwork(Trunk):
    def __init__(self, halvings: int):
        super().__init__("instance", halvings)
        self.conv2 = nn.Conv2d(HIDDEN, FEATURES, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv2(self.finest(image))


class ContextNetwork(Trunk):
    """At each of three sizes a map to start the hidden state from, and one for the gates (section 3.3)."""

    def __init__(self, halvings: int):
        super().__init__("batch", halvings)
        self.layer4 = stage(HIDDEN, HIDDEN, "batch", 2)
        self.layer5 = stage(HIDDEN, HIDDEN, "batch", 2)

        def head() -> nn.Sequential:
            return nn.Sequential(ResidualBlock(HIDDEN, HIDDEN, "batch"), nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1))

        # Named for 1/8, 1/16 and 1/32 size, which these are with three halvings. All are in every file, used or not.
        self.outputs08 = nn.ModuleList((head(), head()))
        self.outputs16 = nn.ModuleList((head(), head()))
        self.outputs32 = nn.ModuleList(nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1) for _ in range(2))

    def forward(self, finest: Tensor, levels: int) -> tuple[list[Tensor], list[Tensor]]:
        """The trunk's maps to maps for hidden states and for contexts, each fine to coarse, before their activations."""
        maps = [finest]
        for layer in (self.layer4, self.layer5)[: levels - 1]:
            maps.append(layer(maps[-1]))
        heads = (self.outputs08, self.outputs16, self.outputs32)[:levels]
        hidden, contexts = ([pair[side](x) for pair, x in zip(heads, maps, strict=True)] for side in (0, 1))
        return hidden, contexts


# ------------------------------------------------------------------------------------------------ update unit


class MotionEncoder(nn.Module):
    """Costs and flow to motion features, the flow itself among them."""

    def __init__(self):
        super().__init__()
        self.convc1 = nn.Conv2d(CORRELATION_LEVELS * (2 * RADIUS + 1), 64, 1)
        self.convc2 = nn.Conv2d(64, 64, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 64, 7, padding=3)
        self.convf2 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv = nn.Conv2d(128, HIDDEN - 2, 3, padding=1)

    def forward(self, flow: Tensor, costs: Tensor) -> Tensor:
        seen = F.relu(self.convc2(F.relu(self.convc1(costs))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        motion = F.relu(self.conv(torch.cat((seen, moved), dim=1)))
        return torch.cat((motion, flow.to(motion.dtype)), dim=1)


class ConvGRU(nn.Module):
    """Gated recurrent unit whose gates have a bias map each, from the context."""

    def __init__(self, inputs: int):
        super().__init__()
        self.convz, self.convr, self.convq = (nn.Conv2d(HIDDEN + inputs, HIDDEN, 3, padding=1) for _ in range(3))

    def forward(self, h: Tensor, biases: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        bias_z, bias_r, bias_q = biases
        x = torch.cat(inputs, dim=1)
        hx = torch.cat((h, x), dim=1)
        z = torch.sigmoid(self.convz(hx) + bias_z)
        r = torch.sigmoid(self.convr(hx) + bias_r)
        q = torch.tanh(self.convq(torch.cat((r * h, x), dim=1)) + bias_q)
        return (1 - z) * h + z * q


class FlowHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(h)))


class UpdateBlock(nn.Module):
    """Hidden states at three sizes, each told about its neighbours (section 3.3, figure 3)."""

    def __init__(self, config: RAFTStereoConfig):
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru08 = ConvGRU(HIDDEN + (HIDDEN if config.levels > 1 else 0))
        self.gru16 = ConvGRU(HIDDEN + (HIDDEN if config.levels > 2 else 0))
        self.gru32 = ConvGRU(HIDDEN)
        self.flow_head = FlowHead()
        factor = 2**config.halvings
        self.mask = nn.Sequential(nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * factor**2, 1))

    def coarse(self, hidden: list[Tensor], biases: list[tuple[Tensor, ...]], finest: int = 1) -> list[Tensor]:
        """Hidden states, those of level `finest` and coarser renewed, coarse to fine."""
        hidden = list(hidden)
        grus = (self.gru08, self.gru16, self.gru32)
        for level in range(len(hidden) - 1, finest - 1, -1):
            inputs = [halved(hidden[level - 1])]
            if level + 1 < len(hidden):
                inputs.append(enlarged(hidden[level + 1], hidden[level]))
            hidden[level] = grus[level](hidden[level], biases[level], *inputs)
        return hidden

    def forward(
        self, hidden: list[Tensor], biases: list[tuple[Tensor, ...]], costs: Tensor, flow: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """New hidden states, and the residual of the flow in float32; everything fine to coarse."""
        hidden = self.coarse(hidden, biases)
        inputs = [self.encoder(flow, costs)]
        if len(hidden) > 1:
            inputs.append(enlarged(hidden[1], hidden[0]))
        hidden[0] = self.gru08(hidden[0], biases[0], *inputs)
        return hidden, self.flow_head(hidden[0]).float()


def halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


# ------------------------------------------------------------------------------------------------ the network


class FlowIterate(NamedTuple):
    """Flow after one update."""

    #: `(B, 2, H/4, W/4)` [px of that grid].
    coarse: Tensor
    #: `(B, 2, H, W)` [px of the frame]; None where it was not asked for.
    flow: Tensor | None


class RAFTStereo(FlowNetwork):
    """RAFT-Stereo, with the options of the release's default models or of its real-time model.

    Attributes:
        iterations: updates per call where the call does not say (the release's evaluation).
    """

    traits = Traits(size_multiple=32, smallest_size=64, size_rule="pad", iterates=True, accepts_initial_flow=True)

    def __init__(self, config: RAFTStereoConfig = RAFT_STEREO):
        super().__init__()
        self.config: RAFTStereoConfig = config
        self.iterations = config.iterations
        self.cnet = ContextNetwork(config.halvings)
        self.update_block = UpdateBlock(config)
        self.context_zqr_convs = nn.ModuleList(nn.Conv2d(HIDDEN, 3 * HIDDEN, 3, padding=1) for _ in range(config.levels))
        if config.shared_backbone:
            self.conv2 = nn.Sequential(ResidualBlock(HIDDEN, HIDDEN, "instance"), nn.Conv2d(HIDDEN, FEATURES, 3, padding=1))
        else:
            self.fnet = FeatureNetwork(config.halvings)

    def encode(self, image1: Tensor, image2: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Images in [-1, 1] to the features of both, and the maps for hidden states and contexts of the first."""
        both = torch.cat((image1, image2))
        if self.config.shared_backbone:
            finest = self.cnet.finest(both)
            features1, features2 = self.conv2(finest).chunk(2)
            return features1, features2, *self.cnet(finest.chunk(2)[0], self.config.levels)
        features1, features2 = self.fnet(both).chunk(2)
        return features1, features2, *self.cnet(self.cnet.finest(image1), self.config.levels)

    def flows(
        self,
        frame1: Tensor,
        frame2: Tensor,
        iterations: int | None = None,
        initial_flow: Tensor | None = None,
        last_only: bool = False,
    ) -> list[FlowIterate]:
        """The flow after every update.

        Args:
            frame1, frame2: left and right frame, `(B, 3, H, W)` RGB in [0, 1]; H and W multiples of 32.
            iterations: number of updates. Default: the attribute.
            initial_flow: on the finest maps' grid, `(B, 2, H/4, W/4)` [px of that grid], to start from; its y is not used.
                Default: no motion.
            last_only: enlarge the last flow only.

        Raises:
            InputError: for frames, a flow or a number that cannot be used.
        """
        check_frames(frame1, frame2, self.traits.size_multiple, self.traits.smallest_size)
        iterations = check_iterations(self.iterations if iterations is None else iterations)
        features1, features2, hidden, contexts = self.encode(frame1.float() * 2 - 1, frame2.float() * 2 - 1)
        hidden = [torch.tanh(x) for x in hidden]
        biases = [layer(torch.relu(x)).chunk(3, dim=1) for layer, x in zip(self.context_zqr_convs, contexts, strict=True)]
        along_rows = frame1.new_tensor((1.0, 0.0), dtype=torch.float32).view(1, 2, 1, 1)
        flow = starting_flow(initial_flow, features1) * along_rows
        columns = pixel_grid(*size_of(features1), features1)[:, 0]
        with full_precision(features1):
            levels = row_costs(features1.float(), features2.float())
        iterates = []
        for index in range(iterations):
            flow = flow.detach()
            with full_precision(flow):
                matches = columns + flow[:, 0]
                costs = torch.cat([lookup_rows(maps, matches / 2**level, RADIUS) for level, maps in enumerate(levels)], dim=1)
            if self.config.slow_fast:
                for finest in range(self.config.levels - 1, 0, -1):
                    hidden = self.update_block.coarse(hidden, biases, finest)
            hidden, residual = self.update_block(hidden, biases, costs, flow)
            flow = flow + residual * along_rows
            fine = None
            if not last_only or index == iterations - 1:
                mask = 0.25 * self.update_block.mask(hidden[0])
                with full_precision(flow):
                    fine = convex_upsample(flow, mask, 2**self.config.halvings)
            iterates.append(FlowIterate(flow, fine))
        return iterates

    def forward(
        self,
        frame1: Tensor,
        frame2: Tensor,
        size: tuple[int, int] | None = None,
        iterations: int | None = None,
        initial_flow: Tensor | None = None,
    ) -> Tensor:
        """Flow from the left to the right frame of a rectified pair: minus the disparity, and zero.

        Args:
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1], floating point; H and W multiples of 32 and at least 64.
            size: (height, width) of the answer where the frames were resized to fit. Default: the size of the frames.
            iterations, initial_flow: as in `flows`.

        Returns:
            `(B, 2, *size)` float32 [px].

        Raises:
            InputError: for any other shape, size or dtype.
        """
        flow = self.flows(frame1, frame2, iterations, initial_flow, last_only=True)[-1].flow
        assert flow is not None  # the last one is always enlarged
        with full_precision(flow):
            return resize_flow(flow, size or size_of(frame1))


def row_costs(features1: Tensor, features2: Tensor) -> list[Tensor]:
    """Costs `(B, H, W, w)` of every position with every column of the same row, and their halvings along w (section 3.2)."""
    costs = features1.permute(0, 2, 3, 1) @ features2.permute(0, 2, 1, 3) * features1.shape[1] ** -0.5
    levels = [costs]
    for _ in range(CORRELATION_LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1], (1, 2), stride=(1, 2)))
    return levels
