"""LiteFlowNet, LiteFlowNet2 and LiteFlowNetX, top to bottom in data-flow order.

    frame 1, frame 2 -> NetC: one feature pyramid each, levels 1 (full size) to 6 (1/32)
    for level 6 down to the finest:
        M  descriptor matching        cost volume of F1 and warped F2      -> flow + residual
        S  sub-pixel refinement       F1, warped F2, flow                  -> flow + residual
        R  flow regularization        brightness error, flow, F1           -> flow filtered by a kernel per pixel
    finest flow * 20, enlarged to the frame

Papers: Hui, Tang, Loy: "LiteFlowNet: A Lightweight Convolutional Neural Network for Optical Flow Estimation", CVPR 2018;
Hui, Tang, Loy: "A Lightweight Optical Flow CNN: Revisiting Data Fidelity and Regularization", TPAMI 2020 (LiteFlowNet2,
LiteFlowNetX). Where papers and official release differ, the network is that of the release.

Inside the network a flow is u = (pixels of the full frame) / FLOW_SCALE at every level; it is not rescaled between levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..ops import (
    bilinear_upsampling_kernel,
    channel_softmax,
    check_frames,
    constant,
    convex_upsample,
    convolve_leaky,
    correlate,
    downsample,
    full_precision,
    in_strips,
    join_channels,
    lengths,
    local_convolution,
    reach,
    resize,
    resize_flow,
    reverse_channels,
    size_of,
    sum_in_strips,
    warp,
)
from .contract import FeatureNetwork, Traits

FLOW_SCALE = 20.0
COARSEST_LEVEL = 6
SIZE_MULTIPLE = 32
SMALLEST_SIZE = 64
SLOPE = 0.1  # of every leaky ReLU
_MOST_OCTAVES = 8
_MOST_AT_FINEST_LEVEL = 140_000_000  # channels times positions: of liteflownet2-slim, frames of 7680x4320

# Mean colour (B, G, R) of the first and the second frame in the official training, on the [0, 1] scale.
OFFICIAL_MEANS = ((0.411618, 0.434631, 0.454253), (0.410782, 0.433645, 0.452793))


# ------------------------------------------------------------------------------------------------ tables of numbers


@dataclass(frozen=True)
class LiteFlowNetConfig:
    """One member of the family. Tuples that vary by level run from level 6 down to level 2."""

    #: NetC: output channels of each 3x3 convolution (7x7 at level 1), one tuple per level 1..6.
    features: tuple[tuple[int, ...], ...] = ((32,), (32, 32, 32), (64, 64), (96, 96), (128,), (192,))
    #: Finest level with a full NetE unit: 2 (half size) or 3 (quarter size).
    finest_level: int = 2
    #: Hidden widths of M, S and R; an empty tuple leaves the unit out.
    matching: tuple[int, ...] = (128, 64, 32)
    subpixel: tuple[int, ...] = (128, 64, 32)
    regularization: tuple[int, ...] = (128, 128, 64, 64, 32, 32)
    #: Size of the flow layers and of the local convolution.
    kernel_size: tuple[int, ...] = (3, 3, 5, 5, 7)
    #: Cost volume: steps to each side, and spacing of positions and steps [px].
    search_radius: tuple[int, ...] = (3, 3, 3, 3, 3)
    search_stride: tuple[int, ...] = (1, 1, 1, 2, 2)
    #: Width of the 1x1 layer before M and S at level 2 (F0_F1_64_L2).
    expanded_features: int = 64
    #: Width of the 1x1 layer before R at levels 4, 3, 2 (F0_128).
    projected_features: int = 128
    #: The distance of R at levels 4, 3, 2 as a K x 1 and a 1 x K convolution instead of one K x K.
    separable_distance: bool = True
    #: Warp F2 by the current flow before M and S (off only in ablations M and MS).
    warping: bool = True
    #: LiteFlowNet2 for KITTI: a light level 2 made from hidden features of level 3.
    pseudo_level: bool = False
    #: Section 6.5: image features, through a 1x1 layer of this width, beside the cost volume; 0 = none.
    redirected_features: int = 0
    #: Ours, off in all official networks: features are normalised to zero mean and unit variance per channel over the map
    #: before they are matched, by M or, without it, by S. Costs then start informative, and training from scratch moves from the
    #: first minute.
    normalized_matching: bool = False
    #: Ours, none in all official networks: the pyramid goes on above level 6. The same network first sees the frames at half
    #: their size, this many times over, and level 6 starts from what it found there: motions of twice the length in reach,
    #: for a quarter more operations.
    octaves: int = 0
    #: Ours, off in all official networks: the finest flow is enlarged to the frame by weights of its own at each pixel, made from
    #: the last hidden features of S and R, instead of bilinearly.
    convex_upsampling: bool = False

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels with a full NetE unit, coarsest first."""
        return tuple(range(COARSEST_LEVEL, self.finest_level - 1, -1))

    def at(self, table: tuple[int, ...], level: int) -> int:
        """Entry of a per-level table."""
        return table[COARSEST_LEVEL - level]


LITEFLOWNET = LiteFlowNetConfig()

LITEFLOWNET2 = LiteFlowNetConfig(finest_level=3, matching=(128, 128, 96, 64, 32), subpixel=(128, 128, 96, 64, 32))
LITEFLOWNET2_KITTI = replace(LITEFLOWNET2, pseudo_level=True)

# Ours: LiteFlowNet2 at half the width throughout, a quarter of its multiplications.
LITEFLOWNET2_SLIM = replace(
    LITEFLOWNET2,
    features=((16,), (16, 16, 16), (32, 32), (48, 48), (64,), (96,)),
    matching=(64, 64, 48, 32, 16),
    subpixel=(64, 64, 48, 32, 16),
    regularization=(64, 64, 32, 32, 16, 16),
    projected_features=64,
)

# Never published: 0.90 M weights in 69 layers, reconstructed from the counts in the paper.
LITEFLOWNETX = LiteFlowNetConfig(
    features=((16,), (16, 16, 16), (32, 32), (48, 48), (64,), (96,)),
    matching=(),
    subpixel=(40, 40, 16),
    regularization=(40, 40, 40, 40, 16, 16),
    expanded_features=32,
    projected_features=64,
    separable_distance=False,
)


def with_options(config: LiteFlowNetConfig, options: Mapping[str, object]) -> LiteFlowNetConfig:
    """`config` with some fields replaced. Lists stand for tuples, so that options survive a trip through JSON.

    Raises:
        InputError: for a field that the table does not have, or a value of another kind than the field's.
    """

    def plain(value: object) -> object:
        return tuple(plain(entry) for entry in value) if isinstance(value, list | tuple) else value

    def sane(value: object) -> bool:
        return all(sane(entry) for entry in value) if isinstance(value, tuple) else type(value) is int and value >= 0

    chosen: dict[str, Any] = {key: plain(value) for key, value in options.items()}
    for key, value in chosen.items():
        if key not in LiteFlowNetConfig.__dataclass_fields__:
            known = ", ".join(LiteFlowNetConfig.__dataclass_fields__)
            raise InputError(f"The LiteFlowNet family has no option '{key}'; it has {known}.")
        kind = type(getattr(config, key))
        if kind is int and type(value) is int and value < 0:
            raise InputError(f"Option '{key}' of the LiteFlowNet family must be at least 0, got {value}.")
        if type(value) is not kind or not (kind is bool or sane(value)):
            raise InputError(f"Option '{key}' of the LiteFlowNet family must be like {getattr(config, key)}, got {value!r}.")
    config = replace(config, **chosen)
    if not 2 <= config.finest_level <= COARSEST_LEVEL:
        raise InputError(f"Option 'finest_level' must be from 2 to {COARSEST_LEVEL}, got {config.finest_level}.")
    if config.octaves > _MOST_OCTAVES or (config.octaves and config.finest_level == COARSEST_LEVEL):
        most = 0 if config.finest_level == COARSEST_LEVEL else _MOST_OCTAVES
        raise InputError(f"Option 'octaves' must be from 0 to {most} here, got {config.octaves}.")
    if config.convex_upsampling and (config.pseudo_level or not (config.subpixel and config.regularization)):
        raise InputError("Option 'convex_upsampling' needs hidden features of S and R at the finest level.")
    return config


# ------------------------------------------------------------------------------------------------ building blocks


def conv(channels_in: int, channels_out: int, kernel: int | tuple[int, int], stride: int = 1) -> nn.Conv2d:
    """Convolution with bias and "same" zero padding."""
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.Conv2d(channels_in, channels_out, kernel, stride, (kernel[0] // 2, kernel[1] // 2))


class Convolutions(nn.ModuleList):
    """Convolutions one after the other, each followed by a leaky ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = convolve_leaky(layer, x, SLOPE)
        return x

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[nn.Conv2d]: ...


def trunk(channels_in: int, widths: tuple[int, ...]) -> Convolutions:
    """The 3x3 convolutions of a unit."""
    return Convolutions(conv(a, b, 3) for a, b in pairwise((channels_in, *widths)))


class BilinearUpsampling(nn.Module):
    """Grouped 4x4 transposed convolution of stride 2 with a fixed bilinear kernel. Official files store the kernel."""

    weight: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("weight", bilinear_upsampling_kernel(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, 2H, 2W)`; values unchanged."""
        with full_precision(x):
            wide = x.to(self.weight.dtype)  # this convolution is twenty times slower in bfloat16
            return F.conv_transpose2d(wide, self.weight, stride=2, padding=1, groups=x.shape[1]).to(x.dtype)


# ------------------------------------------------------------------------------------------------ NetC


class NetC(nn.Module):
    """Pyramidal feature extraction (LiteFlowNet, section 3.1; Table 8). The same weights serve both frames."""

    def __init__(self, features: tuple[tuple[int, ...], ...]):
        super().__init__()
        self.levels = nn.ModuleList()
        channels = 3
        for index, widths in enumerate(features):
            level = Convolutions()
            for position, width in enumerate(widths):
                first = position == 0
                level.append(conv(channels, width, 7 if index == 0 else 3, stride=2 if first and index > 0 else 1))
                channels = width
            self.levels.append(level)

    def forward(self, image: Tensor, finest: int = 2) -> dict[int, Tensor]:
        """Mean-free BGR image `(B, 3, H, W)` to features by level, `finest` (2: 1/2 size) to 6 (1/32)."""
        margin = sum(2**index * reach(layers) for index, layers in enumerate(self.levels[:finest]))
        x = in_strips(lambda part: self._run(part, 1, finest), image, margin=margin, unit=2 ** (finest - 1))
        pyramid = {finest: x}
        for level in range(finest + 1, COARSEST_LEVEL + 1):
            pyramid[level] = x = self._run(x, level, level)
        return pyramid

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        return next(self.parameters()).dtype

    def _run(self, x: Tensor, first: int, last: int) -> Tensor:
        for layers in self.levels[first - 1 : last]:
            x = layers(x)
        return x


# ------------------------------------------------------------------------------------------------ NetE


class DescriptorMatching(nn.Module):
    """M: flow residual from a cost volume of short search range (LiteFlowNet, section 3.2; Table 9)."""

    def __init__(self, config: LiteFlowNetConfig, level: int, features: int):
        super().__init__()
        self.radius = config.at(config.search_radius, level)
        self.stride = config.at(config.search_stride, level)
        self.normalized = config.normalized_matching
        costs = (2 * self.radius + 1) ** 2
        self.upcost = BilinearUpsampling(costs) if self.stride > 1 else None
        self.redirection = conv(features, config.redirected_features, 1) if config.redirected_features else None
        self.convs = trunk(costs + config.redirected_features, config.matching)
        self.flow = conv(config.matching[-1], 2, config.at(config.kernel_size, level))

    def forward(self, features1: Tensor, features2: Tensor) -> Tensor:
        """Features `(B, C, H, W)`, the second warped, to a residual of u `(B, 2, H, W)`."""
        costs = F.leaky_relu(correlate(features1, features2, self.radius, self.stride), SLOPE)
        if self.upcost is not None:
            height, width = features1.shape[-2:]
            costs = self.upcost(costs)[..., :height, :width]
        if self.redirection is not None:
            costs = join_channels(costs, convolve_leaky(self.redirection, features1, SLOPE), dtype=costs.dtype)
        return self.flow(self.convs(costs))


class SubPixelRefinement(nn.Module):
    """S: flow residual from the features themselves (LiteFlowNet, section 3.2; Table 10)."""

    def __init__(self, config: LiteFlowNetConfig, level: int, features: int):
        super().__init__()
        self.convs = trunk(2 * features + 2, config.subpixel)
        self.flow = conv(config.subpixel[-1], 2, config.at(config.kernel_size, level))

    def forward(self, features1: Tensor, features2: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Features `(B, C, H, W)`, the second warped by u, to a residual of u and the last hidden features."""
        hidden = self.convs(join_channels(features1, features2, u, dtype=features1.dtype))
        return self.flow(hidden), hidden


class FlowRegularization(nn.Module):
    """R: feature-driven local convolution of the flow (LiteFlowNet, section 3.3; Table 11)."""

    def __init__(self, config: LiteFlowNetConfig, level: int, features: int):
        super().__init__()
        self.size = size = config.at(config.kernel_size, level)
        projected = level <= 4
        width = config.projected_features if projected else features
        self.projection = conv(features, width, 1) if projected else None
        self.convs = trunk(3 + width, config.regularization)
        self.distance = distance_layers(config.regularization[-1], size, projected and config.separable_distance)

    def forward(self, image1: Tensor, image2: Tensor, features1: Tensor, u: Tensor, u_mean: Tensor) -> tuple[Tensor, Tensor]:
        """Mean-free images `(B, 3, H, W)`, the second warped by u, features of frame 1, u, and its mean over the frame, to u
        filtered, and the last hidden features."""
        if self.projection is not None:
            features1 = convolve_leaky(self.projection, features1, SLOPE)
        hidden = self.convs(join_channels(lengths(image1 - image2), u - u_mean, features1, dtype=features1.dtype))
        return regularize(u, self.distance(hidden)), hidden


def distance_layers(channels: int, size: int, separable: bool) -> nn.Sequential:
    """Distances D of each position to its size x size neighbours; rows first where separable, nothing in between."""
    if separable:
        return nn.Sequential(conv(channels, size * size, (size, 1)), conv(size * size, size * size, (1, size)))
    return nn.Sequential(conv(channels, size * size, size))


def regularize(u: Tensor, distance: Tensor) -> Tensor:
    """Equation (8): neighbours weighed by softmax(-D^2), then f-lconv. D `(B, K*K, H, W)`."""
    with full_precision(u):
        return local_convolution(u, channel_softmax(distance.float().square().neg_()))


class FlowLevel(nn.Module):
    """NetE at one level: up-sampled flow from the level above, then M, S, R, whichever the network has."""

    def __init__(self, config: LiteFlowNetConfig, level: int):
        super().__init__()
        features = config.features[level - 1][-1]
        self.pixels_per_unit = FLOW_SCALE / 2 ** (level - 1)  # m_k: internal unit to pixels of this level
        self.warping = config.warping
        self.upflow = BilinearUpsampling(2) if level < COARSEST_LEVEL else None
        self.expansion = conv(features, config.expanded_features, 1) if level == 2 else None
        expanded = config.expanded_features if level == 2 else features
        self.matching = DescriptorMatching(config, level, expanded) if config.matching else None
        self.subpixel = SubPixelRefinement(config, level, expanded) if config.subpixel else None
        self.subpixel_matches = config.normalized_matching and not config.matching
        self.regularization = FlowRegularization(config, level, features) if config.regularization else None

    def forward(
        self,
        frame1: FramePyramid,
        frame2: FramePyramid,
        level: int,
        above: FlowEstimate | None,
        detach: bool = False,
        start: Tensor | None = None,
    ) -> FlowEstimate:
        """Flow of this level from both pyramids and the estimate of the level above; at level 6 from `start`, if anything."""

        def handed_over(u: Tensor) -> Tensor:
            return u.detach() if detach else u

        raw1, raw2 = frame1.features[level], frame2.features[level]
        features1, features2 = raw1, raw2
        if self.expansion is not None:
            features1, features2 = convolve_leaky(self.expansion, raw1, SLOPE), convolve_leaky(self.expansion, raw2, SLOPE)
        u = start if above is None or self.upflow is None else self.upflow(handed_over(above.last))
        u_matching = u_subpixel = u_regularized = hidden_subpixel = hidden_regularization = None

        if self.matching is not None:
            residual = self._match(self.matching, features1, features2, u)
            u = u_matching = residual if u is None else u + residual
        if u is None:
            u = torch.zeros_like(raw1[:, :2], dtype=torch.float32)
        if self.subpixel_matches:
            features1, features2 = normalize_features(features1), normalize_features(features2)
        if self.subpixel is not None:
            u = handed_over(u)
            residual, hidden_subpixel = in_strips(
                self.subpixel, features1, self._warp(features2, u), u, margin=reach(self.subpixel)
            )
            u = u_subpixel = u + residual.float()
        if self.regularization is not None:
            u = handed_over(u)
            image2 = warp(frame2.images[level], u * self.pixels_per_unit)
            maps = frame1.images[level], image2, raw1, u
            u_regularized, hidden_regularization = self._regularize(self.regularization, *maps)
        return FlowEstimate(level, u_matching, u_subpixel, u_regularized, hidden_subpixel, hidden_regularization)

    def _match(self, unit: DescriptorMatching, features1: Tensor, features2: Tensor, u: Tensor | None) -> Tensor:
        if unit.normalized:
            features2 = normalize_features(features2)
        features2 = self._warp(features2, u)  # before the other is normalised, so that fewer maps are there at once
        if unit.normalized:
            features1 = normalize_features(features1)
        margin = reach(unit) + (unit.radius + 2) * unit.stride  # the enlargement of costs reaches two of them far
        return in_strips(unit, features1, features2, margin=margin, unit=unit.stride).float()

    def _regularize(
        self, unit: FlowRegularization, image1: Tensor, image2: Tensor, features1: Tensor, u: Tensor
    ) -> tuple[Tensor, ...]:
        u_mean, maps = u.mean(dim=(2, 3), keepdim=True), (image1, image2, features1, u)

        def strip(*parts: Tensor) -> tuple[Tensor, ...]:
            return unit(*parts, u_mean)

        return in_strips(strip, *maps, margin=reach(unit) + unit.size // 2)

    def _warp(self, features: Tensor, u: Tensor | None) -> Tensor:
        if u is None or not self.warping:
            return features
        return warp(features, u * self.pixels_per_unit)


def normalize_features(features: Tensor) -> Tensor:
    """Zero mean and unit variance per channel over the map, in float32 (see `normalized_matching`)."""
    with full_precision(features):
        wide = features.float()
        mean = wide.mean(dim=(2, 3), keepdim=True)
        variance = sum_in_strips(lambda part: (part - mean).square(), wide) / (wide.shape[2] * wide.shape[3])
        scale = torch.rsqrt(variance + 1e-6)
        shift = -mean * scale
        return in_strips(lambda part: torch.addcmul(shift, part, scale).to(features.dtype), wide, margin=0)


class PseudoLevel(nn.Module):
    """The light level 2 of LiteFlowNet2 for KITTI: learned enlargement of level 3's hidden features instead of M, S, R."""

    def __init__(self, config: LiteFlowNetConfig):
        super().__init__()
        size = config.at(config.kernel_size, 2)
        subpixel, regularization = config.subpixel[-1], config.regularization[-1]
        self.upflow = BilinearUpsampling(2)
        self.upsubpixel = nn.ConvTranspose2d(subpixel, subpixel, 4, stride=2, padding=1)
        self.flow = conv(subpixel, 2, size)
        self.upregularization = nn.ConvTranspose2d(regularization, regularization, 4, stride=2, padding=1)
        self.distance = distance_layers(regularization, size, separable=True)

    def forward(self, above: FlowEstimate, detach: bool = False) -> FlowEstimate:
        u = self.upflow(above.last.detach() if detach else above.last)
        u_subpixel = u + self.flow(self.upsubpixel(above.hidden_subpixel)).float()
        distance = self.distance(self.upregularization(above.hidden_regularization))
        u_regularized = regularize(u_subpixel.detach() if detach else u_subpixel, distance)
        return FlowEstimate(2, None, u_subpixel, u_regularized, None, None)


class ConvexUpsampling(nn.Module):
    """Enlarges the finest flow to the frame: each pixel is a convex combination of the 3x3 flows around it (RAFT, section 3.3).

    Args:
        inputs: channels of the hidden features that the combinations are made from.
        factor: pixels of the frame along one of the flow.
    """

    def __init__(self, inputs: int, factor: int, hidden: int = 64):
        super().__init__()
        self.factor = factor
        self.hidden = conv(inputs, hidden, 3)
        self.logits = conv(hidden, 9 * factor**2, 1)

    def forward(self, flow: Tensor, features: Tensor) -> Tensor:
        """Flow `(B, 2, H, W)` [px of its grid] to `(B, 2, factor*H, factor*W)` [px of the frame]."""
        return in_strips(self._enlarge, flow, features, margin=reach(self) + 1)

    def _enlarge(self, flow: Tensor, features: Tensor) -> Tensor:
        logits = self.logits(convolve_leaky(self.hidden, features, SLOPE))
        with full_precision(logits):
            return convex_upsample(flow, logits, self.factor)


# ------------------------------------------------------------------------------------------------ the network


def half_size(size: tuple[int, int]) -> tuple[int, int]:
    """Half of a (height, width), rounded up to what the network takes."""
    larger = torch.sym_max if isinstance(size[0], torch.SymInt) else max  # an exported file may leave sizes free

    def half(side: int) -> Any:
        return larger((side + SIZE_MULTIPLE) // (2 * SIZE_MULTIPLE) * SIZE_MULTIPLE, SMALLEST_SIZE)

    return half(size[0]), half(size[1])


def without_gradient():
    """Context in which nothing is recorded for a gradient; none where nothing is anyway, so that graphs stay plain."""
    return torch.no_grad() if torch.is_grad_enabled() else nullcontext()


class FramePyramid(NamedTuple):
    """What the network keeps of one frame: mean-free BGR images and NetC features, by level, and those of the frame at half
    its size where the network has another octave."""

    images: dict[int, Tensor]
    features: dict[int, Tensor]
    half: FramePyramid | None = None

    def mapped(self, function: Callable[[Tensor], Tensor]) -> FramePyramid:
        """The same with `function` of every map."""
        images, features = ({level: function(x) for level, x in maps.items()} for maps in self[:2])
        return FramePyramid(images, features, None if self.half is None else self.half.mapped(function))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        height, width = size_of(self.features[COARSEST_LEVEL])
        return SIZE_MULTIPLE * height, SIZE_MULTIPLE * width


class FlowEstimate(NamedTuple):
    """Flow u of one level in internal units, `(B, 2, H, W)` float32, after each unit that the network has."""

    level: int
    matching: Tensor | None
    subpixel: Tensor | None
    regularized: Tensor | None
    hidden_subpixel: Tensor | None
    hidden_regularization: Tensor | None

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The flows that exist, in data-flow order."""
        return tuple(u for u in (self.matching, self.subpixel, self.regularized) if u is not None)

    @property
    def last(self) -> Tensor:
        return self.outputs[-1]


class LiteFlowNet(FeatureNetwork):
    """Any member of the family, built from its table of numbers.

    Weights are as PyTorch initialises them until some are loaded or trained.
    """

    def __init__(self, config: LiteFlowNetConfig = LITEFLOWNET):
        super().__init__()
        self.config: LiteFlowNetConfig = config
        self.register_buffer("mean1", torch.tensor(OFFICIAL_MEANS[0]))
        self.register_buffer("mean2", torch.tensor(OFFICIAL_MEANS[1]))
        self.netc = NetC(config.features)
        self.nete = nn.ModuleDict({f"level{level}": FlowLevel(config, level) for level in config.levels})
        self.pseudo = PseudoLevel(config) if config.pseudo_level else None
        self.upsampling = None
        if config.convex_upsampling:
            hidden = config.subpixel[-1] + config.regularization[-1]
            self.upsampling = ConvexUpsampling(hidden, 2 ** (config.finest_level - 1))

    @property
    def traits(self) -> Traits:
        """See `contract`. Frames need no tiles as long as what is kept of each at the finest level is bounded; levels that are
        finer stand in memory strip by strip."""
        widths = (2 * self.config.features[self.config.finest_level - 1][-1], *self.config.subpixel, *self.config.regularization)
        return Traits(
            size_multiple=SIZE_MULTIPLE,
            smallest_size=SMALLEST_SIZE,
            size_rule="resize",
            max_untiled_pixels=4 ** (self.config.finest_level - 1) * _MOST_AT_FINEST_LEVEL // max(widths),
            shares_features=True,
            has_octaves=True,
            usual_octaves=self.config.octaves,
        )

    def encode(self, frame: Tensor, mean: Tensor, octaves: int | None = None) -> FramePyramid:
        """Feature and image pyramid of one frame `(B, 3, H, W)` RGB in [0, 1], with the colour mean of its slot.

        Images of levels 2, 3, 4 are made from the frame, those of 5 and 6 from level 4, as the release does it.

        Args:
            octaves: as `forward`; of both frames of a pair the same.
        """
        config = self.config if octaves is None else with_options(self.config, {"octaves": octaves})
        return self._encode(frame, mean, config.octaves)

    def _encode(self, frame: Tensor, mean: Tensor, octaves: int) -> FramePyramid:
        with without_gradient():
            half = self._encode(resize(frame, half_size(size_of(frame))), mean, octaves - 1) if octaves else None
        image = reverse_channels(frame.contiguous()) - mean.view(1, 3, 1, 1)  # the official networks see BGR
        height, width = image.shape[-2:]
        images = {}
        if self.config.regularization:
            with full_precision(image):
                image = image.float()
                for level in range(2, COARSEST_LEVEL + 1):
                    if level in self.config.levels or level == 4:
                        source = image if level <= 4 else images[4]
                        images[level] = downsample(source, (height // 2 ** (level - 1), width // 2 ** (level - 1)))
        return FramePyramid(images, self.netc(image.to(self.netc.dtype), self.config.finest_level), half)

    def flows(self, frame1: FramePyramid, frame2: FramePyramid, detach: bool = False) -> list[FlowEstimate]:
        """NetE: the estimates of all levels, coarsest first.

        Args:
            detach: cut the gradient where a flow is handed from unit to unit, so that each unit answers for its own
                loss only. For training; the values do not change.
        """
        start = None
        if frame1.half is not None and frame2.half is not None:
            start = self._start(frame1, frame1.half, frame2.half)
        estimates: list[FlowEstimate] = []
        for level in self.config.levels:
            above = estimates[-1] if estimates else None
            estimates.append(self.nete[f"level{level}"](frame1, frame2, level, above, detach, start))
        if self.pseudo is not None:
            estimates.append(self.pseudo(estimates[-1], detach))
        return estimates

    def _start(self, frame1: FramePyramid, half1: FramePyramid, half2: FramePyramid) -> Tensor:
        """u to start level 6 from: what the network finds in the frames at half their size. It carries no gradient."""
        with without_gradient():
            u = self.flows(half1, half2)[-1].last
        u = downsample(u, size_of(frame1.features[COARSEST_LEVEL]))
        (height, width), (half_height, half_width) = frame1.size, half1.size
        return torch.cat((u[:, :1] * (width / half_width), u[:, 1:] * (height / half_height)), dim=1)

    def forward(self, frame1: Tensor, frame2: Tensor, size: tuple[int, int] | None = None, octaves: int | None = None) -> Tensor:
        """Flow from frame 1 to frame 2.

        Args:
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1], floating point; H and W multiples of 32 and at least 64.
            size: (height, width) of the answer where the frames were resized to fit; the flow then goes from the finest
                level to that size in one step and is measured in its pixels. Default: the size of the frames.
            octaves: of the pyramid above level 6. Default: as the table of numbers says.

        Returns:
            `(B, 2, *size)` float32 [px].

        Raises:
            InputError: for any other shape, size or dtype.
        """
        check_frames(frame1, frame2, SIZE_MULTIPLE, SMALLEST_SIZE)
        return self.decode(self.encode(frame1, self.mean1, octaves), self.encode(frame2, self.mean2, octaves), size)

    def decode(self, frame1: FramePyramid, frame2: FramePyramid, size: tuple[int, int] | None = None) -> Tensor:
        """Flow from frame 1 to frame 2, as `forward`, of two frames that are encoded already."""
        return self.full_size(self.flows(frame1, frame2)[-1], frame1.size if size is None else size)

    def full_size(self, estimate: FlowEstimate, size: tuple[int, int]) -> Tensor:
        """The finest estimate at the size of the frame, or another: `(B, 2, *size)` float32 [px of that size]."""
        u, factor = estimate.last, 2 ** (estimate.level - 1)
        height, width = (factor * side for side in u.shape[-2:])
        if self.upsampling is not None:
            subpixel, regularization = estimate.hidden_subpixel, estimate.hidden_regularization
            assert subpixel is not None and regularization is not None  # `with_options` sees to it
            features = join_channels(subpixel, regularization, dtype=subpixel.dtype)
            return resize_flow(self.upsampling(estimate.last * (FLOW_SCALE / self.upsampling.factor), features), size)
        scale = constant((FLOW_SCALE * size[1] / width, FLOW_SCALE * size[0] / height), u)
        return resize(u * scale.view(1, 2, 1, 1), size)
