"""LiteFlowNet's units with one set of weights for all levels: the recurrence of a coarse-to-fine solver, learned. Ours.

    frame 1, frame 2 -> encoder: features at 1/2 and 1/4, and one stage used again at 1/8, 1/16, ... until about 8 cells are left
    for each level from the coarsest to 1/4, twice above 1/4, where it costs little (sweeps):
        M  descriptor matching        cost volume of F1 and warped F2, state             -> flow + residual
        S  sub-pixel refinement       F1, warped F2, flow                                -> flow + residual
        R  flow regularization        brightness error, flow, F1                         -> flow filtered by a kernel per pixel
        state                         what S and R saw, kept or not, channel by channel
    at 1/2: a narrow S with weights of its own, for what is smaller than the cells of 1/4
    finest flow, enlarged by 2, each pixel a mixture of the flows around it that follows from what S saw

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
    in_strips,
    join_channels,
    lengths,
    reach,
    resize,
    reverse_channels,
    size_of,
    warp,
)
from ..ops.graphs import in_graph
from .contract import FeatureNetwork, Traits
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

FINEST_LEVEL, FINEST_TIED = 2, 3  # 1/2 and 1/4, counted as LiteFlowNet does: level k has 1/2^(k-1) of the frame's side
_LEAST_CELLS = 4  # of the shorter side at the coarsest level
_MOST_PIXELS = 7680 * 4352  # of frames that stand in memory whole
_LOCAL = 5  # cells of 1/2 along the square that S compares a flow with there
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
    #: At half size: channels of the state that are brought up, of S, and of the layer before the weights of the enlargement.
    half_state: int = 14
    half_subpixel: tuple[int, ...] = (48, 32, 32)
    enlargement: int = 32
    #: Sweeps over each level, and how many times as often those above 1/4 are swept.
    iterations: int = 1
    coarse_sweeps: int = 2


class Pyramid(NamedTuple):
    """What is kept of one frame, by level: features, and from 1/4 on mean-free BGR images and the features as M matches them,
    normalised."""

    images: dict[int, Tensor]
    features: dict[int, Tensor]
    normalized: dict[int, Tensor]

    def mapped(self, function) -> Pyramid:
        """The same with `function` of every map."""
        return Pyramid(*({level: function(x) for level, x in maps.items()} for maps in self))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        height, width = size_of(self.features[FINEST_LEVEL])
        return height * 2 ** (FINEST_LEVEL - 1), width * 2 ** (FINEST_LEVEL - 1)


def coarsest_level(size: tuple[int, int]) -> int:
    """The level at which the shorter side of a frame has 4 to 8 cells, in crops of training as in frames."""
    return max(FINEST_TIED, 1 + math.floor(math.log2(min(size) / _LEAST_CELLS)))


class Encoder(nn.Module):
    """Features at 1/2 and 1/4, and one stage for all levels above."""

    def __init__(self, config: TiedConfig):
        super().__init__()
        stem, width = config.stem, config.features
        self.stem = Convolutions((conv(3, stem, 7, 2),))
        self.fine = Convolutions((conv(stem, stem, 3),))
        self.quarter = Convolutions((conv(stem, width, 3, 2), conv(width, width, 3)))
        self.stage = Convolutions((conv(width, width, 3, 2), conv(width, width, 3)))

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Mean-free image `(B, 3, H, W)` to features by level."""
        first = in_strips(self.stem, image, margin=reach(self.stem), unit=2)
        features = {
            FINEST_LEVEL: in_strips(self.fine, first, margin=reach(self.fine)),
            FINEST_TIED: in_strips(self.quarter, first, margin=2 * reach(self.quarter), unit=2),
        }
        for level in range(FINEST_TIED + 1, coarsest_level(size_of(image)) + 1):
            features[level] = self.stage(features[level - 1])
        return features


class Decoder(nn.Module):
    """M, S, R and the state, at any level from 1/4 on."""

    def __init__(self, config: TiedConfig):
        super().__init__()
        self.radius = config.search_radius
        self.size = size = config.kernel_size
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
        self, level: int, frame1: Pyramid, frame2: Pyramid, u: Tensor, state: Tensor, detach: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both frames, flow u `(B, 2, H, W)` [px of the level] and state to the flows after M, S and R, and the next state."""

        def handed_over(flow: Tensor) -> Tensor:
            return flow.detach() if detach else flow

        features1 = frame1.features[level]
        u = handed_over(u)
        matched = warp(frame2.normalized[level], u)
        margin = self.radius + reach(self.matching) + reach(self.matching_flow)
        u_matching = u + in_strips(self._match, frame1.normalized[level], matched, state, margin=margin).float()
        u = handed_over(u_matching)
        margin = reach(self.subpixel) + reach(self.subpixel_flow)
        residual, seen = in_strips(self._refine, features1, warp(frame2.features[level], u), u, margin=margin)
        u_subpixel = u + residual.float()
        u = handed_over(u_subpixel)
        difference = lengths(frame1.images[level] - warp(frame2.images[level], u))
        mean_free = u - u.mean(dim=(2, 3), keepdim=True)
        margin = reach(self.regularization) + reach(self.distance) + self.size // 2
        u_regularized, looked_at = in_strips(self._regularize, difference, mean_free, features1, u, margin=margin)
        state = in_strips(self._update, state, seen, looked_at, margin=reach(self.gate))
        return u_matching, u_subpixel, u_regularized, state

    def _match(self, features1: Tensor, features2: Tensor, state: Tensor) -> Tensor:
        costs = F.leaky_relu(correlate(features1, features2, self.radius), SLOPE)
        return self.matching_flow(self.matching(join_channels(costs, state, dtype=features1.dtype)))

    def _refine(self, features1: Tensor, features2: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.subpixel(join_channels(features1, features2, u / _FLOW_UNIT, dtype=features1.dtype))
        return self.subpixel_flow(hidden), hidden

    def _regularize(self, difference: Tensor, mean_free: Tensor, features1: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        projected = convolve_leaky(self.projection, features1, SLOPE)
        hidden = self.regularization(join_channels(difference, mean_free / _FLOW_UNIT, projected, dtype=features1.dtype))
        return regularize(u, self.distance(hidden)), hidden

    def _update(self, state: Tensor, *hidden: Tensor) -> Tensor:
        keep, new = self.gate(join_channels(state, *hidden, dtype=hidden[0].dtype)).chunk(2, dim=1)
        state, new, share = state.to(new.dtype), torch.tanh(new), torch.sigmoid(keep)
        # The same in plain operators, for engines that do not know the other.
        return state + share * (new - state) if in_graph() else torch.lerp(state, new, share)


class HalfSize(nn.Module):
    """S at 1/2: narrow, with weights of its own."""

    def __init__(self, config: TiedConfig):
        super().__init__()
        self.projection = conv(config.state, config.half_state, 1)
        self.subpixel = trunk(2 * config.stem + config.half_state + 2, config.half_subpixel)
        self.subpixel_flow = conv(config.half_subpixel[-1], 2, config.kernel_size)

    def forward(self, features1: Tensor, features2: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Features of both frames, flow u `(B, 2, H, W)` [px of the level] and the projected state to the next flow and to what S
        saw."""
        margin = _LOCAL // 2 + reach(self.subpixel) + reach(self.subpixel_flow)
        residual, seen = in_strips(self._refine, features1, warp(features2, u), state, u, margin=margin)
        return u + residual.float(), seen

    def _refine(self, features1: Tensor, features2: Tensor, state: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        # How u differs from the flow around it: long flows themselves would drown a tenth of a pixel in bfloat16.
        local = u - F.avg_pool2d(u, _LOCAL, 1, _LOCAL // 2, count_include_pad=False)
        hidden = self.subpixel(join_channels(features1, features2, state, local, dtype=features1.dtype))
        return self.subpixel_flow(hidden), hidden


class LiteFlowNetTied(FeatureNetwork):
    """See the module."""

    traits = Traits(
        size_multiple=SIZE_MULTIPLE,
        smallest_size=SMALLEST_SIZE,
        size_rule="resize",
        max_untiled_pixels=_MOST_PIXELS,
        iterates=True,
        shares_features=True,
        graph_follows_size=True,
    )

    def __init__(self, config: TiedConfig = TiedConfig()):
        super().__init__()
        self.config: TiedConfig = config
        self.register_buffer("mean1", torch.tensor(OFFICIAL_MEANS[0]))
        self.register_buffer("mean2", torch.tensor(OFFICIAL_MEANS[0]))
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.finest = HalfSize(config)
        self.upsampling = ConvexUpsampling(config.half_subpixel[-1], 2 ** (FINEST_LEVEL - 1), config.enlargement)

    def encode(self, frame: Tensor, mean: Tensor) -> Pyramid:
        """Images and features of one frame `(B, 3, H, W)` RGB in [0, 1]."""
        image = reverse_channels(frame.contiguous()) - mean.view(1, 3, 1, 1)
        features = self.encoder(image.to(next(self.encoder.parameters()).dtype))
        tied = {level: x for level, x in features.items() if level >= FINEST_TIED}
        images = {}
        with full_precision(image):
            reduced = image.float()
            for level, x in tied.items():
                images[level] = reduced = F.adaptive_avg_pool2d(reduced, x.shape[-2:])
        return Pyramid(images, features, {level: normalize_features(x) for level, x in tied.items()})

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
        for level in range(coarsest, FINEST_TIED - 1, -1):
            if level < coarsest:
                size = size_of(frame1.features[level])
                u, state = upscaled(u, size), resize(state, size)
            for _ in range(iterations if level == FINEST_TIED else iterations * self.config.coarse_sweeps):
                u_matching, u_subpixel, u, state = self.decoder(level, frame1, frame2, u, state, detach)
                unit = 2 ** (level - 1) / FLOW_SCALE
                estimates.append(FlowEstimate(level, u_matching * unit, u_subpixel * unit, u * unit, state, None))
        features1, features2 = frame1.features[FINEST_LEVEL], frame2.features[FINEST_LEVEL]
        size = size_of(features1)
        u, state = upscaled(u, size), resize(convolve_leaky(self.finest.projection, state, SLOPE), size)
        for _ in range(iterations):
            u, seen = self.finest(features1, features2, u.detach() if detach else u, state)
            estimates.append(FlowEstimate(FINEST_LEVEL, None, u * (2 ** (FINEST_LEVEL - 1) / FLOW_SCALE), None, seen, None))
        return estimates

    def full_size(self, estimate: FlowEstimate, size: tuple[int, int]) -> Tensor:
        """The finest estimate at the size of the frame, or another: `(B, 2, *size)` float32 [px of that size]."""
        u = estimate.last * (FLOW_SCALE / 2 ** (FINEST_LEVEL - 1))
        return upscaled(self.upsampling(u, estimate.hidden_subpixel), size)

    def forward(self, frame1: Tensor, frame2: Tensor, size: tuple[int, int] | None = None, iterations: int | None = None) -> Tensor:
        """Flow from frame 1 to frame 2, `(B, 3, H, W)` RGB in [0, 1] each: `(B, 2, *size)` float32 [px]."""
        check_frames(frame1, frame2, SIZE_MULTIPLE, SMALLEST_SIZE)
        return self.decode(self.encode(frame1, self.mean1), self.encode(frame2, self.mean2), size, iterations)

    def decode(
        self, frame1: Pyramid, frame2: Pyramid, size: tuple[int, int] | None = None, iterations: int | None = None
    ) -> Tensor:
        """Flow from frame 1 to frame 2, as `forward`, of two frames that are encoded already."""
        return self.full_size(self.flows(frame1, frame2, iterations=iterations)[-1], size or frame1.size)


def upscaled(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """A flow on the grid of another level, in its pixels."""
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    return resize(flow, size) * constant((size[1] / width, size[0] / height), flow).view(1, 2, 1, 1)
