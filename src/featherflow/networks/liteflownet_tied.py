"""LiteFlowNet's units with one set of weights for all levels: the recurrence of a coarse-to-fine solver, learned. Ours.

    frame 1, frame 2 -> encoder: features at 1/4, and one stage used again at 1/8, 1/16, ... until about 8 cells are left
    for each level from the coarsest to 1/4, once or more (sweeps):
        M  descriptor matching        cost volume of F1 and warped F2, state             -> flow + residual
        S  sub-pixel refinement       F1, warped F2, flow                                -> flow + residual
        R  flow regularization        brightness error, flow, F1                         -> flow filtered by a kernel per pixel
        state                         what S and R saw, kept or not, channel by channel
    finest flow, enlarged by 4

All flows inside are in pixels of the level they stand on, so that a unit sees the same numbers at every level. Any size of frame
has as many levels as it needs.

Sources: the units of LiteFlowNet (CVPR 2018) and LiteFlowNet2 (TPAMI 2020); tied weights and convex upsampling as in RAFT (ECCV
2020); one decoder for all levels as in IRR-PWC (CVPR 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import (
    check_frames,
    constant,
    convolve_leaky,
    correlate,
    full_precision,
    join_channels,
    lengths,
    resize,
    size_of,
    warp,
)
from .contract import FlowNetwork, Traits
from .liteflownet import (
    FLOW_SCALE,
    OFFICIAL_MEANS,
    SIZE_MULTIPLE,
    SLOPE,
    SMALLEST_SIZE,
    ConvexUpsampling,
    Convolutions,
    FlowEstimate,
    conv,
    distance_layers,
    normalize_features,
    regularize,
    trunk,
)

FINEST_LEVEL = 3  # 1/4, counted as LiteFlowNet does: level k has 1/2^(k-1) of the frame's side
_LEAST_CELLS = 8  # of the shorter side at the coarsest level, about
_FLOW_UNIT = 16.0  # px of a level in one unit of what convolutions see of a flow


@dataclass(frozen=True)
class TiedConfig:
    """Numbers of the network."""

    stem: int = 24
    features: int = 64
    state: int = 32
    search_radius: int = 3
    matching: tuple[int, ...] = (96, 64, 48)
    subpixel: tuple[int, ...] = (64, 48, 32)
    regularization: tuple[int, ...] = (48, 48, 32)
    projected_features: int = 32
    kernel_size: int = 5
    #: Sweeps over each level.
    iterations: int = 1
    #: The finest flow is enlarged by weights made from the state, not bilinearly.
    convex_upsampling: bool = False


class Pyramid(NamedTuple):
    """What is kept of one frame: mean-free BGR images and features by level."""

    images: dict[int, Tensor]
    features: dict[int, Tensor]

    def mapped(self, function) -> Pyramid:
        """The same with `function` of every map."""
        return Pyramid(*({level: function(x) for level, x in maps.items()} for maps in self))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        height, width = size_of(self.features[FINEST_LEVEL])
        return height * 2 ** (FINEST_LEVEL - 1), width * 2 ** (FINEST_LEVEL - 1)


def coarsest_level(size: tuple[int, int]) -> int:
    """The level at which the shorter side of a frame has between 6 and 11 cells."""
    return max(FINEST_LEVEL, 1 + round(math.log2(min(size) / _LEAST_CELLS)))


class Encoder(nn.Module):
    """Features at 1/4, and one stage for all levels above."""

    def __init__(self, config: TiedConfig):
        super().__init__()
        width = config.features
        self.stem = Convolutions((conv(3, config.stem, 7, 2), conv(config.stem, width, 3, 2), conv(width, width, 3)))
        self.stage = Convolutions((conv(width, width, 3, 2), conv(width, width, 3)))

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Mean-free image `(B, 3, H, W)` to features by level."""
        features = {FINEST_LEVEL: self.stem(image)}
        for level in range(FINEST_LEVEL + 1, coarsest_level(size_of(image)) + 1):
            features[level] = self.stage(features[level - 1])
        return features


class Decoder(nn.Module):
    """M, S, R and the state, at any level."""

    def __init__(self, config: TiedConfig):
        super().__init__()
        self.radius, size = config.search_radius, config.kernel_size
        costs = (2 * self.radius + 1) ** 2
        self.matching = trunk(costs + config.state, config.matching)
        self.matching_flow = conv(config.matching[-1], 2, size)
        self.subpixel = trunk(2 * config.features + 2, config.subpixel)
        self.subpixel_flow = conv(config.subpixel[-1], 2, size)
        self.projection = conv(config.features, config.projected_features, 1)
        self.regularization = trunk(3 + config.projected_features, config.regularization)
        self.distance = distance_layers(config.regularization[-1], size, separable=True)
        self.gate = conv(config.state + config.subpixel[-1] + config.regularization[-1], 2 * config.state, 3)

    def forward(
        self, maps: tuple[Tensor, Tensor, Tensor, Tensor], normalized: tuple[Tensor, Tensor], u: Tensor, state: Tensor, detach: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images and features of both frames, the features once more normalised, flow u `(B, 2, H, W)` [px of the level] and state
        to the flows after M, S and R, and the next state."""
        image1, image2, features1, features2 = maps
        dtype = features1.dtype

        def handed_over(flow: Tensor) -> Tensor:
            return flow.detach() if detach else flow

        u = handed_over(u)
        costs = F.leaky_relu(correlate(normalized[0], warp(normalized[1], u), self.radius), SLOPE)
        u_matching = u + self.matching_flow(self.matching(join_channels(costs, state, dtype=dtype))).float()
        u = handed_over(u_matching)
        seen = join_channels(features1, warp(features2, u), u / _FLOW_UNIT, dtype=dtype)
        hidden_subpixel = self.subpixel(seen)
        u_subpixel = u + self.subpixel_flow(hidden_subpixel).float()
        u = handed_over(u_subpixel)
        difference = lengths(image1 - warp(image2, u))
        mean_free = (u - u.mean(dim=(2, 3), keepdim=True)) / _FLOW_UNIT
        projected = convolve_leaky(self.projection, features1, SLOPE)
        hidden_regularization = self.regularization(join_channels(difference, mean_free, projected, dtype=dtype))
        u_regularized = regularize(u, self.distance(hidden_regularization))
        keep, new = self.gate(join_channels(state, hidden_subpixel, hidden_regularization, dtype=dtype)).chunk(2, dim=1)
        state = torch.lerp(state, torch.tanh(new), torch.sigmoid(keep))
        return u_matching, u_subpixel, u_regularized, state


class LiteFlowNetTied(FlowNetwork):
    """See the module."""

    mean1: Tensor
    mean2: Tensor

    traits = Traits(size_multiple=SIZE_MULTIPLE, smallest_size=SMALLEST_SIZE, size_rule="resize", iterates=True)

    def __init__(self, config: TiedConfig = TiedConfig()):
        super().__init__()
        self.config: TiedConfig = config
        self.register_buffer("mean1", torch.tensor(OFFICIAL_MEANS[0]))
        self.register_buffer("mean2", torch.tensor(OFFICIAL_MEANS[0]))
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.upsampling = ConvexUpsampling(config.state, 2 ** (FINEST_LEVEL - 1)) if config.convex_upsampling else None

    def encode(self, frame: Tensor, mean: Tensor) -> Pyramid:
        """Images and features of one frame `(B, 3, H, W)` RGB in [0, 1]."""
        image = frame.contiguous().flip(1) - mean.view(1, 3, 1, 1)
        features = self.encoder(image.to(next(self.encoder.parameters()).dtype))
        images = {}
        with full_precision(image):
            reduced = image.float()
            for level, x in features.items():
                images[level] = reduced = F.adaptive_avg_pool2d(reduced, x.shape[-2:])
        return Pyramid(images, features)

    def flows(self, frame1: Pyramid, frame2: Pyramid, detach: bool = False, iterations: int | None = None) -> list[FlowEstimate]:
        """The estimates of all levels and sweeps, coarsest first, in units of `FLOW_SCALE` px of the frame.

        Args:
            detach: cut the gradient where a flow is handed from unit to unit.
        """
        iterations = self.config.iterations if iterations is None else iterations
        coarsest = max(frame1.features)
        features = frame1.features[coarsest]
        u = features.new_zeros((features.shape[0], 2, *features.shape[-2:]), dtype=torch.float32)
        state = features.new_zeros((features.shape[0], self.config.state, *features.shape[-2:]))
        estimates = []
        for level in range(coarsest, FINEST_LEVEL - 1, -1):
            features1, features2 = frame1.features[level], frame2.features[level]
            if level < coarsest:
                u, state = upscaled(u, size_of(features1)), resize(state, size_of(features1))
            normalized = normalize_features(features1), normalize_features(features2)
            maps = frame1.images[level], frame2.images[level], features1, features2
            for _ in range(iterations):
                u_matching, u_subpixel, u, state = self.decoder(maps, normalized, u, state, detach)
                unit = 2 ** (level - 1) / FLOW_SCALE
                estimates.append(FlowEstimate(level, u_matching * unit, u_subpixel * unit, u * unit, state, None))
        return estimates

    def full_size(self, estimate: FlowEstimate, size: tuple[int, int]) -> Tensor:
        """The finest estimate at the size of the frame, or another: `(B, 2, *size)` float32 [px of that size]."""
        u, state = estimate.last * (FLOW_SCALE / 2 ** (FINEST_LEVEL - 1)), estimate.hidden_subpixel
        return upscaled(u if self.upsampling is None else self.upsampling(u, state), size)

    def forward(self, frame1: Tensor, frame2: Tensor, size: tuple[int, int] | None = None, iterations: int | None = None) -> Tensor:
        """Flow from frame 1 to frame 2, `(B, 3, H, W)` RGB in [0, 1] each: `(B, 2, *size)` float32 [px]."""
        check_frames(frame1, frame2, SIZE_MULTIPLE, SMALLEST_SIZE)
        pyramids = self.encode(frame1, self.mean1), self.encode(frame2, self.mean2)
        return self.full_size(self.flows(*pyramids, iterations=iterations)[-1], size or pyramids[0].size)


def upscaled(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """A flow on the grid of another level, in its pixels."""
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    return resize(flow, size) * constant((size[1] / width, size[0] / height), flow).view(1, 2, 1, 1)
