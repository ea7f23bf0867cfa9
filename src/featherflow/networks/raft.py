"""RAFT and RAFT-small: one flow at 1/8 size, updated many times by one recurrent unit that looks around the current match.

    frame 1, frame 2 -> feature network, the same weights       1/8 size
    frame 1          -> context network: hidden state and input of the update unit
    all-pairs correlation, pooled to 4 levels
    repeat: look up costs around the match; motion encoder; ConvGRU; flow head: flow + residual
    convex combination of the coarse flow, 8 times enlarged (RAFT-small: bilinear)

Paper: Teed, Deng: "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020. Layer names are those of the
release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import (
    all_pairs,
    check_frames,
    check_iterations,
    convex_upsample,
    full_precision,
    lookup,
    lookup_features,
    pixel_grid,
    pooled,
    resize_flow,
    size_of,
    starting_flow,
)
from .contract import FlowNetwork, Traits

STRIDE = 8  # px of the frame per position of the feature maps
CORRELATION_LEVELS = 4
#: Largest correlation volume that is stored when the network chooses by itself [bytes].
MOST_VOLUME_BYTES = 4 * 2**30


@dataclass(frozen=True)
class RAFTConfig:
    """One of the two sizes of the paper (appendix, figures 9 and 10)."""

    #: RAFT-small: bottleneck blocks, a plain 3x3 GRU, no upsampling mask.
    small: bool = False
    #: Encoders: channels of the first layer and the three stages.
    stages: tuple[int, int, int, int] = (64, 64, 96, 128)
    features: int = 256
    hidden: int = 128
    context: int = 128
    #: Normalisation in the context network; the feature network has instance normalisation.
    context_norm: str = "batch"
    #: Lookup window, steps to each side.
    radius: int = 4
    #: Motion encoder: widths on the costs, on the flow, and of both joined (2 more channels hold the flow).
    cost_encoder: tuple[int, ...] = (256, 192)
    flow_encoder: tuple[int, int] = (128, 64)
    motion: int = 126
    head: int = 256


RAFT_LARGE = RAFTConfig()
RAFT_SMALL = RAFTConfig(
    small=True, stages=(32, 32, 64, 96), features=128, hidden=96, context=64, context_norm="none", radius=3,
    cost_encoder=(96,), flow_encoder=(64, 32), motion=80, head=128,
)  # fmt: skip

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "none": lambda channels: nn.Identity(),
}


# ------------------------------------------------------------------------------------------------ encoders


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a skip, which is strided and projected where the grid changes."""

    def __init__(self, channels_in: int, channels_out: int, norm: str, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.norm1 = NORMS[norm](channels_out)
        self.norm2 = NORMS[norm](channels_out)
        self.downsample = projection(channels_in, channels_out, norm, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 at a quarter of the width: the block of RAFT-small."""

    def __init__(self, channels_in: int, channels_out: int, norm: str, stride: int):
        super().__init__()
        narrow = channels_out // 4
        self.conv1 = nn.Conv2d(channels_in, narrow, 1)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(narrow, channels_out, 1)
        self.norm1 = NORMS[norm](narrow)
        self.norm2 = NORMS[norm](narrow)
        self.norm3 = NORMS[norm](channels_out)
        self.downsample = projection(channels_in, channels_out, norm, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = F.relu(self.norm3(self.conv3(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def projection(channels_in: int, channels_out: int, norm: str, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride), NORMS[norm](channels_out))


class Encoder(nn.Module):
    """Frame to features at 1/8 size: the shape of both the feature and the context network (section 3.1)."""

    def __init__(self, config: RAFTConfig, channels_out: int, norm: str):
        super().__init__()
        first, width1, width2, width3 = config.stages
        block = BottleneckBlock if config.small else ResidualBlock

        def stage(channels: int, width: int, stride: int) -> nn.Sequential:
            return nn.Sequential(block(channels, width, norm, stride), block(width, width, norm, 1))

        self.conv1 = nn.Conv2d(3, first, 7, stride=2, padding=3)
        self.norm1 = NORMS[norm](first)
        self.layer1 = stage(first, width1, 1)
        self.layer2 = stage(width1, width2, 2)
        self.layer3 = stage(width2, width3, 2)
        self.conv2 = nn.Conv2d(width3, channels_out, 1)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` in [-1, 1] to `(B, channels_out, H/8, W/8)`."""
        x = F.relu(self.norm1(self.conv1(image)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


# ------------------------------------------------------------------------------------------------ update unit


class MotionEncoder(nn.Module):
    """Costs and flow to motion features, the flow itself among them (section 3.3, "Inputs")."""

    def __init__(self, config: RAFTConfig):
        super().__init__()
        costs = CORRELATION_LEVELS * (2 * config.radius + 1) ** 2
        first, *second = config.cost_encoder
        self.convc1 = nn.Conv2d(costs, first, 1)
        self.convc2 = nn.Conv2d(first, second[0], 3, padding=1) if second else None
        self.convf1 = nn.Conv2d(2, config.flow_encoder[0], 7, padding=3)
        self.convf2 = nn.Conv2d(*config.flow_encoder, 3, padding=1)
        self.conv = nn.Conv2d(config.cost_encoder[-1] + config.flow_encoder[-1], config.motion, 3, padding=1)

    def forward(self, flow: Tensor, costs: Tensor) -> Tensor:
        """Flow `(B, 2, H, W)` and costs `(B, levels * window, H, W)` to `(B, motion + 2, H, W)`."""
        seen = F.relu(self.convc1(costs))
        if self.convc2 is not None:
            seen = F.relu(self.convc2(seen))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        motion = F.relu(self.conv(torch.cat((seen, moved), dim=1)))
        return torch.cat((motion, flow.to(motion.dtype)), dim=1)


class ConvGRU(nn.Module):
    """Gated recurrent unit with convolutions (section 3.3, equations 3 to 6).

    Args:
        separable: a pass with 1x5 kernels and one with 5x1 instead of one with 3x3.
    """

    def __init__(self, hidden: int, inputs: int, separable: bool):
        super().__init__()
        kernels = {"1": (1, 5), "2": (5, 1)} if separable else {"": (3, 3)}
        self.passes = tuple(kernels)
        for suffix, kernel in kernels.items():
            for gate in "zrq":
                layer = nn.Conv2d(hidden + inputs, hidden, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
                self.add_module(f"conv{gate}{suffix}", layer)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        for suffix in self.passes:
            hx = torch.cat((h, x), dim=1)
            z = torch.sigmoid(getattr(self, f"convz{suffix}")(hx))
            r = torch.sigmoid(getattr(self, f"convr{suffix}")(hx))
            q = torch.tanh(getattr(self, f"convq{suffix}")(torch.cat((r * h, x), dim=1)))
            h = (1 - z) * h + z * q
        return h


class FlowHead(nn.Module):
    """Hidden state to a residual flow [px at 1/8 size]."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(hidden, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(h)))


class UpdateBlock(nn.Module):
    """One step: motion encoder, GRU, flow head; the mask head serves the upsampling."""

    def __init__(self, config: RAFTConfig):
        super().__init__()
        self.encoder = MotionEncoder(config)
        self.gru = ConvGRU(config.hidden, config.context + config.motion + 2, separable=not config.small)
        self.flow_head = FlowHead(config.hidden, config.head)
        if not config.small:
            self.mask = nn.Sequential(nn.Conv2d(config.hidden, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * STRIDE**2, 1))

    def forward(self, h: Tensor, context: Tensor, costs: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """New hidden state, and the residual of the flow in float32."""
        h = self.gru(h, torch.cat((context, self.encoder(flow, costs)), dim=1))
        return h, self.flow_head(h).float()


# ------------------------------------------------------------------------------------------------ the network


class FlowIterate(NamedTuple):
    """Flow after one update."""

    #: `(B, 2, H/8, W/8)` [px of that grid].
    coarse: Tensor
    #: `(B, 2, H, W)` [px of the frame]; None where it was not asked for.
    flow: Tensor | None


class RAFT(FlowNetwork):
    """RAFT or RAFT-small. Nothing is kept between calls: a video hands on `initial_flow` itself.

    Attributes:
        iterations: updates per call where the call does not say (the release's evaluation on Sintel).
        compute_on_lookup: compute costs where they are looked at and store no volume: slower, and memory grows with the
            frame's size instead of its square. None: where the volume would take more than 4 GiB, as it does for 4K frames.
    """

    traits = Traits(
        size_multiple=STRIDE,
        smallest_size=128,  # the coarsest correlation level needs two rows and columns in the release
        size_rule="pad",
        iterates=True,
        accepts_initial_flow=True,
    )

    def __init__(self, config: RAFTConfig = RAFT_LARGE):
        super().__init__()
        self.config: RAFTConfig = config
        self.iterations = 32
        self.compute_on_lookup: bool | None = None
        self.fnet = Encoder(config, config.features, "instance")
        self.cnet = Encoder(config, config.hidden + config.context, config.context_norm)
        self.update_block = UpdateBlock(config)

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
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1]; H and W multiples of 8.
            iterations: number of updates. Default: the attribute.
            initial_flow: `(B, 2, H/8, W/8)` [px of that grid] to start from, for instance the last `coarse` of the frames
                before, through `ops.push_forward`. Default: no motion.
            last_only: enlarge the last flow only.

        Raises:
            InputError: for frames, a flow or a number that cannot be used.
        """
        check_frames(frame1, frame2, self.traits.size_multiple, self.traits.smallest_size)
        iterations = check_iterations(self.iterations if iterations is None else iterations)
        # Instance normalisation looks at each frame alone, so both frames can go through as one batch.
        images = torch.cat((frame1, frame2)).float() * 2 - 1
        features1, features2 = self.fnet(images).chunk(2)
        hidden, context = self.cnet(images.chunk(2)[0]).split((self.config.hidden, self.config.context), dim=1)
        hidden, context = torch.tanh(hidden), torch.relu(context)
        grid = pixel_grid(*size_of(features1), features1)
        flow = starting_flow(initial_flow, features1)
        with full_precision(features1):
            costs = Correlation(features1.float(), features2.float(), self.config.radius, self._on_lookup(features1))
        iterates = []
        for index in range(iterations):
            flow = flow.detach()
            with full_precision(features1):
                window = costs(grid + flow)
            hidden, residual = self.update_block(hidden, context, window, flow)
            flow = flow + residual
            wanted = not last_only or index == iterations - 1
            iterates.append(FlowIterate(flow, self._enlarge(flow, hidden) if wanted else None))
        return iterates

    def _on_lookup(self, features: Tensor) -> bool:
        if self.compute_on_lookup is not None:
            return self.compute_on_lookup
        batch, _, height, width = features.shape
        return 4 * batch * (height * width) ** 2 > MOST_VOLUME_BYTES

    def _enlarge(self, flow: Tensor, hidden: Tensor) -> Tensor:
        """Section 3.3, "Upsampling"."""
        if self.config.small:
            with full_precision(flow):
                return F.interpolate(flow, scale_factor=STRIDE, mode="bilinear", align_corners=True) * STRIDE
        mask = 0.25 * self.update_block.mask(hidden)  # balances the gradients, says the release
        with full_precision(flow):
            return convex_upsample(flow, mask, STRIDE)

    def forward(
        self,
        frame1: Tensor,
        frame2: Tensor,
        size: tuple[int, int] | None = None,
        iterations: int | None = None,
        initial_flow: Tensor | None = None,
    ) -> Tensor:
        """Flow from frame 1 to frame 2.

        Args:
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1], floating point; H and W multiples of 8 and at least 128.
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


class Correlation:
    """Costs around a match on all levels, from stored volumes or from features (section 3.2; appendix, "Efficient computation").

    Args:
        features1, features2: `(B, C, H, W)` float32.
    """

    def __init__(self, features1: Tensor, features2: Tensor, radius: int, on_lookup: bool):
        self.radius, self.on_lookup = radius, on_lookup
        self.features1 = features1
        self.scale = features1.shape[1] ** -0.5
        maps = features2 if on_lookup else all_pairs(features1, features2, self.scale)
        self.levels = pooled(maps, CORRELATION_LEVELS)

    def __call__(self, matches: Tensor) -> Tensor:
        """Matches `(B, 2, H, W)` [px of the 1/8 grid] to `(B, levels * window, H, W)`, fine to coarse."""
        windows = []
        for level, maps in enumerate(self.levels):
            centres = matches / 2**level
            if self.on_lookup:
                windows.append(lookup_features(self.features1, maps, centres, self.radius, self.scale))
            else:
                windows.append(lookup(maps, centres, self.radius))
        return torch.cat(windows, dim=1)
