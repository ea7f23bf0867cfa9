"""GMFlow: flow as one global matching of features that a transformer has made comparable.

    frame 1, frame 2 -> convolutional backbone                    1/8 size; with refinement also 1/4
    position encoding, then 6 transformer layers: self attention, cross attention with the other frame, in shifted windows
    matching      softmax over all positions of frame 2 -> expected displacement
    propagation   attention of frame 1 with itself carries flow to where matching fails
    (refinement   the same at 1/4 size: features of frame 2 warped, matching within 4 px, propagation within 1 px)
    convex upsampling

Paper: Xu, Zhang, Cai, Rezatofighi, Tao: "GMFlow: Learning Optical Flow via Global Matching", CVPR 2022. Layer names are those of
the release.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import (
    check_frames,
    convex_upsample,
    correlate,
    full_precision,
    local_convolution,
    pixel_grid,
    resize_flow,
    size_of,
    warp,
)
from .contract import FlowNetwork, Traits

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS = 128
FEED_FORWARD = 4
MASKED = -100.0  # added between positions of different regions in a shifted window
OUTSIDE = -1e9


@dataclass(frozen=True)
class Scale:
    """How one resolution is matched."""

    #: Pixels of the frame per position.
    stride: int
    #: Windows per axis that attention and position encoding are confined to.
    windows: int
    #: Matching and propagation: reach to each side [positions], 0 = the whole map.
    matching_radius: int = 0
    propagation_radius: int = 0


@dataclass(frozen=True)
class GMFlowConfig:
    """GMFlow, plain or with refinement (section 3.4)."""

    refinement: bool = False
    layers: int = 6

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Coarse first."""
        coarse = Scale(stride=8, windows=2)
        return (coarse, Scale(stride=4, windows=8, matching_radius=4, propagation_radius=1)) if self.refinement else (coarse,)


GMFLOW = GMFlowConfig()
GMFLOW_REFINE = GMFlowConfig(refinement=True)


# ------------------------------------------------------------------------------------------------ backbone


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions without bias beside a skip, projected where grid or width changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.InstanceNorm2d(channels_out), nn.InstanceNorm2d(channels_out)
        self.downsample = None
        if stride > 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride), nn.InstanceNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    """Frame to features, finest scale first."""

    def __init__(self, refinement: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.norm1 = nn.InstanceNorm2d(64)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1), ResidualBlock(64, 64, 1))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, 2), ResidualBlock(96, 96, 1))
        self.layer3 = nn.Sequential(ResidualBlock(96, CHANNELS, 1 if refinement else 2), ResidualBlock(CHANNELS, CHANNELS, 1))
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 1)
        # One convolution makes both scales, with stride 1 and 2.
        self.trident_conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False) if refinement else None

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normalised `(B, 3, H, W)` to `[(B, 128, H/8, W/8)]`, or those of 1/4 and 1/8 size."""
        x = F.relu(self.norm1(self.conv1(image)))
        x = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        if self.trident_conv is None:
            return [x]
        return [F.conv2d(x, self.trident_conv.weight, stride=stride, padding=1) for stride in (1, 2)]


# ------------------------------------------------------------------------------------------------ position and windows


def into_windows(x: Tensor, windows: int) -> Tensor:
    """`(B, H, W, C)` to `(B * windows^2, h * w, C)`, window by window, row by row."""
    batch, height, width, channels = x.shape
    x = x.view(batch, windows, height // windows, windows, width // windows, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(batch * windows**2, -1, channels)


def out_of_windows(x: Tensor, windows: int, height: int, width: int) -> Tensor:
    """Inverse of `into_windows`."""
    x = x.view(-1, windows, windows, height // windows, width // windows, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, x.shape[-1])


def rolled(x: Tensor, rows: int, columns: int) -> Tensor:
    """`(B, H, W, C)` with its first rows and columns moved to the end. Unlike `torch.roll`, every exporter knows slices."""
    x = torch.cat((x[:, rows:], x[:, :rows]), dim=1)
    return torch.cat((x[:, :, columns:], x[:, :, :columns]), dim=2)


def position_encoding(height: int, width: int, windows: int, like: Tensor) -> Tensor:
    """Sines and cosines of the place inside the window, `(1, 2 * 64, height, width)`: first of y, then of x (section 3.2)."""

    def along(length: int) -> Tensor:
        window = length // windows
        place = torch.arange(1, window + 1, dtype=torch.float32, device=like.device) / (window + 1e-6) * (2 * math.pi)
        channel = torch.arange(like.shape[1] // 2, device=like.device)
        angle = place / (10000.0 ** (2 * channel.div(2, rounding_mode="floor") / channel.shape[0])).unsqueeze(1)
        code = torch.where(channel.unsqueeze(1) % 2 == 0, angle.sin(), angle.cos())
        return code.repeat(1, windows)  # (64, length)

    rows, columns = along(height), along(width)
    code = torch.cat((rows.unsqueeze(2).expand(-1, -1, width), columns.unsqueeze(1).expand(-1, height, -1)))
    return code.unsqueeze(0).to(like.dtype)


def shift_mask(height: int, width: int, windows: int, like: Tensor) -> Tensor:
    """What is added to attention scores in rolled windows, `(windows^2, h*w, h*w)`: parts that the roll has brought together
    from opposite ends of the map do not see each other (section 3.2, after Swin)."""

    def regions(length: int) -> Tensor:
        window = length // windows
        place = torch.arange(length, device=like.device)
        return (place >= length - window).long() + (place >= length - window // 2).long()

    region = regions(height).unsqueeze(1) * 3 + regions(width)
    region = into_windows(region.view(1, height, width, 1), windows).squeeze(2)
    return (region.unsqueeze(1) != region.unsqueeze(2)) * MASKED


# ------------------------------------------------------------------------------------------------ transformer


class Attention(nn.Module):
    """Single-head attention with its residual; with `feed_forward`, through an MLP that sees source and message."""

    def __init__(self, feed_forward: bool):
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.k_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.v_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.merge = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.mlp = None
        if feed_forward:
            wide = 2 * CHANNELS * FEED_FORWARD
            self.mlp = nn.Sequential(nn.Linear(2 * CHANNELS, wide, bias=False), nn.GELU(), nn.Linear(wide, CHANNELS, bias=False))
            self.norm2 = nn.LayerNorm(CHANNELS)

    def forward(self, source: Tensor, target: Tensor, windows: int, mask: Tensor | None) -> Tensor:
        """Source and target `(B, H, W, C)`; `mask`, of `shift_mask`, where the windows are to be shifted."""
        batch, height, width, _ = source.shape
        q, k, v = self.q_proj(source), self.k_proj(target), self.v_proj(target)
        shift = (0, 0) if mask is None else (height // windows // 2, width // windows // 2)
        if mask is not None:
            q, k, v = (rolled(x, *shift) for x in (q, k, v))
        q, k, v = (into_windows(x, windows) for x in (q, k, v))
        scores = q @ k.transpose(1, 2) * CHANNELS**-0.5
        if mask is not None:
            scores = scores + mask.to(scores.dtype).repeat(batch, 1, 1)
        message = out_of_windows(torch.softmax(scores, dim=-1) @ v, windows, height, width)
        if mask is not None:
            message = rolled(message, height - shift[0], width - shift[1])
        message = self.norm1(self.merge(message))
        if self.mlp is not None:
            message = self.norm2(self.mlp(torch.cat((source, message.to(source.dtype)), dim=-1)))
        return source + message


class TransformerLayer(nn.Module):
    """Self attention, then cross attention to the other frame as it was before this layer."""

    def __init__(self):
        super().__init__()
        self.self_attn = Attention(feed_forward=False)
        self.cross_attn_ffn = Attention(feed_forward=True)

    def forward(self, source: Tensor, target: Tensor, windows: int, mask: Tensor | None) -> Tensor:
        return self.cross_attn_ffn(self.self_attn(source, source, windows, mask), target, windows, mask)


class FeatureTransformer(nn.Module):
    """Makes the features of both frames aware of each other (section 3.2)."""

    def __init__(self, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer() for _ in range(layers))

    def forward(self, features1: Tensor, features2: Tensor, windows: int) -> tuple[Tensor, Tensor]:
        """Two maps `(B, C, H, W)` to two such maps."""
        source = torch.cat((features1, features2)).permute(0, 2, 3, 1)
        mask = shift_mask(source.shape[1], source.shape[2], windows, source) if windows > 1 else None
        for index, layer in enumerate(self.layers):
            target = torch.cat(source.chunk(2)[::-1])
            source = layer(source, target, windows, mask if index % 2 else None)
        first, second = source.permute(0, 3, 1, 2).chunk(2)
        return first, second


# ------------------------------------------------------------------------------------------------ matching and propagation


def match_globally(features1: Tensor, features2: Tensor) -> Tensor:
    """Expected displacement under a softmax over all positions of frame 2, `(B, 2, H, W)` (section 3.1, equations 2 and 3)."""
    batch, channels, height, width = features1.shape
    scores = features1.flatten(2).transpose(1, 2) @ features2.flatten(2) * channels**-0.5
    grid = pixel_grid(height, width, features1)
    places = grid.flatten(2).transpose(1, 2)  # (1, H*W, 2)
    expected = torch.softmax(scores, dim=-1) @ places
    return expected.transpose(1, 2).view(batch, 2, height, width) - grid


def match_locally(features1: Tensor, features2: Tensor, radius: int) -> Tensor:
    """As `match_globally`, among the positions at most `radius` away on each axis."""
    _, channels, height, width = features1.shape
    scores = correlate(features1, features2, radius) * channels**0.5
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=features1.device)
    offsets = torch.stack((steps.repeat(steps.shape[0]), steps.repeat_interleave(steps.shape[0])))  # (2, D*D): x, y
    places = pixel_grid(height, width, features1).unsqueeze(2) + offsets.view(1, 2, -1, 1, 1)
    limits = places.new_tensor((width, height)).view(1, 2, 1, 1, 1)
    inside = ((places >= 0) & (places < limits)).all(dim=1)
    chances = torch.softmax(scores.masked_fill(~inside, OUTSIDE), dim=1)
    return torch.einsum("bdhw,cd->bchw", chances, offsets)


class FlowPropagation(nn.Module):
    """Flow spread among positions of frame 1 that look alike (section 3.3, equation 5)."""

    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, CHANNELS)
        self.k_proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, features: Tensor, flow: Tensor, radius: int) -> Tensor:
        """Features `(B, 128, H, W)` and flow `(B, 2, H, W)`; radius 0 = over the whole map."""
        tokens = features.permute(0, 2, 3, 1)
        query = self.q_proj(tokens)
        # The release projects the query once more to get the key of the global form, and was trained so.
        key = self.k_proj(tokens if radius else query)
        query, key = query.permute(0, 3, 1, 2), key.permute(0, 3, 1, 2)
        with full_precision(flow):
            query, key = query.float(), key.float()
            if radius:
                scores = correlate(query, key, radius) * CHANNELS**0.5
                return local_convolution(flow, torch.softmax(scores, dim=1))
            scores = query.flatten(2).transpose(1, 2) @ key.flatten(2) * CHANNELS**-0.5
            spread = torch.softmax(scores, dim=-1) @ flow.flatten(2).transpose(1, 2)
            return spread.transpose(1, 2).reshape(flow.shape)


# ------------------------------------------------------------------------------------------------ the network


class GMFlow(FlowNetwork):
    """GMFlow, plain or with refinement. Transformer, propagation and upsampler serve all scales with the same weights."""

    def __init__(self, config: GMFlowConfig = GMFLOW):
        super().__init__()
        self.config: GMFlowConfig = config
        # Every window of the finest scale must be whole, and wide enough to be shifted.
        multiple, smallest = (32, 64) if config.refinement else (16, 32)
        self.traits = Traits(size_multiple=multiple, smallest_size=smallest, size_rule="pad")
        self.backbone = Backbone(config.refinement)
        self.transformer = FeatureTransformer(config.layers)
        self.feature_flow_attn = FlowPropagation()
        self.factor = config.scales[-1].stride
        self.upsampler = nn.Sequential(nn.Conv2d(CHANNELS + 2, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * self.factor**2, 1))

    def flows(self, frame1: Tensor, frame2: Tensor, last_only: bool = False) -> list[Tensor]:
        """Flows `(B, 2, H, W)` [px] in the order in which they arise: at each scale matched, then propagated.

        All but the last are enlarged bilinearly, and are there for training.

        Args:
            last_only: leave them out.
        """
        check_frames(frame1, frame2, self.traits.size_multiple, self.traits.smallest_size)
        with full_precision(frame1):
            frames = torch.cat((frame1, frame2)).float()
            mean, deviation = (frames.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, DEVIATION))
            frames = (frames - mean) / deviation
        pyramid = self.backbone(frames)[::-1]
        flow: Tensor | None = None
        results: list[Tensor] = []
        for scale, both in zip(self.config.scales, pyramid, strict=True):
            features1, features2 = both.chunk(2)
            if flow is not None:
                with full_precision(flow):
                    flow = F.interpolate(flow.detach(), scale_factor=2, mode="bilinear", align_corners=True) * 2
                    features2 = warp(features2, flow)
            code = position_encoding(*size_of(features1), scale.windows, features1)
            features1, features2 = self.transformer(features1 + code, features2 + code, scale.windows)
            with full_precision(features1):
                wide1, wide2 = features1.float(), features2.float()
                if scale.matching_radius:
                    residual = match_locally(wide1, wide2, scale.matching_radius)
                else:
                    residual = match_globally(wide1, wide2)
            matched = residual if flow is None else flow + residual
            flow = propagated = self.feature_flow_attn(features1, matched.detach(), scale.propagation_radius)
            if not last_only:
                results += [enlarged(matched, scale.stride), enlarged(propagated, scale.stride)]
        assert flow is not None  # there is a scale
        mask = self.upsampler(torch.cat((flow.to(features1.dtype), features1), dim=1))
        with full_precision(flow):
            return [*results[:-1], convex_upsample(flow, mask, self.factor)]

    def forward(self, frame1: Tensor, frame2: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Flow from frame 1 to frame 2.

        Args:
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1], floating point; H and W multiples of 16 (32 with refinement).
            size: (height, width) of the answer where the frames were resized to fit. Default: the size of the frames.

        Returns:
            `(B, 2, *size)` float32 [px].

        Raises:
            InputError: for any other shape, size or dtype.
        """
        flow = self.flows(frame1, frame2, last_only=True)[-1]
        with full_precision(flow):
            return resize_flow(flow, size or size_of(frame1))


def enlarged(flow: Tensor, factor: int) -> Tensor:
    """Corner-aligned bilinear enlargement of a flow, in pixels of the fine grid."""
    with full_precision(flow):
        return F.interpolate(flow, scale_factor=factor, mode="bilinear", align_corners=True) * factor
