"""FlowFormer: the 4-D cost volume read by transformers into a few tokens per pixel, and asked again at every update.

    frame 1, frame 2 -> Twins transformer, first two stages     1/8 size: features
    frame 1          -> another one: context
    cost volume: every position of frame 1 has a cost map over frame 2
    cost encoder     each map -> patches -> 8 latent tokens; 3 layers of attention inside a map and across maps
    repeat: crop costs around the match; ask the cost memory; motion encoder with global aggregation; ConvGRU; flow + residual
    convex combination of the coarse flow, 8 times enlarged

Paper: Huang et al.: "FlowFormer: A Transformer Architecture for Optical Flow", ECCV 2022; the backbone is of Chu et al.: "Twins",
NeurIPS 2021, the update unit of Teed, Deng (RAFT, ECCV 2020) with the aggregation of Jiang et al. (GMA, ICCV 2021). Layer names
are those of the release.
"""

from __future__ import annotations

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
    pixel_grid,
    resize_flow,
    size_of,
    starting_flow,
)
from .contract import FlowNetwork, Traits

STRIDE = 8  # px of the frame per position of the feature maps
FEATURES = 256
HIDDEN = CONTEXT = 128
TOKENS, TOKEN_CHANNELS = 8, 128  # latent tokens per cost map
COST_LAYERS = 3
MAPS_AT_ONCE = 2048  # cost maps encoded together: bounds the memory of their first convolutions
PATCH = 8  # positions of a cost map per patch, each axis
QUERY = 64  # channels of a flow token
HEADS = 8
RADIUS = 4  # of the cost crop
NEAR_PI = 3.14  # the release's pi, with which its weights were trained
POSITION_PERIOD = 200.0


# ------------------------------------------------------------------------------------------------ shared by the parts


def position_code(places: Tensor, channels: int) -> Tensor:
    """Sines and cosines of places x, y `(..., 2)`, `(..., channels)`: linear frequencies 0 to channels/4 - 1."""
    with full_precision(places):
        frequencies = torch.arange(channels // 4, dtype=torch.float32, device=places.device) * (NEAR_PI / POSITION_PERIOD)
        x, y = places[..., :1].float() * frequencies, places[..., 1:].float() * frequencies
        return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), dim=-1)


def places_of(height: int, width: int, like: Tensor) -> Tensor:
    """x, y of every position, `(height, width, 2)`."""
    return pixel_grid(height, width, like)[0].permute(1, 2, 0)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head attention of `(N, T, C)` to `(N, S, C)`, scaled by the size of a head."""
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """`(B, H, W, C)` with zeros to the right and below."""
    height, width = x.shape[1:3]
    return F.pad(x, (0, 0, 0, -width % multiple, 0, -height % multiple))


def into_windows(x: Tensor, size: int) -> Tensor:
    """`(B, H, W, C)` to `(B * windows, size * size, C)`, row by row."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.transpose(2, 3).reshape(-1, size * size, channels)


def out_of_windows(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """Inverse of `into_windows`."""
    x = x.view(-1, height // size, width // size, size, size, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, x.shape[-1])


def on_map(layer: nn.Module, x: Tensor) -> Tensor:
    """A convolution on `(B, H, W, C)`."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class MLP(nn.Module):
    def __init__(self, channels: int, ratio: int = 4):
        super().__init__()
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a skip."""

    def __init__(self, channels: int, attention: nn.Module, epsilon: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=epsilon)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels, eps=epsilon)
        self.mlp = MLP(channels)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """`(B, H, W, C)` to the same."""
        x = x + self.attn(self.norm1(x), *context)
        return x + self.mlp(self.norm2(x))


# ------------------------------------------------------------------------------------------------ Twins backbone


class WindowAttention(nn.Module):
    """Attention inside 7x7 windows; the zeros that fill the last ones up take part (Twins, section 3.2, LSA)."""

    size = 7

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.size)
        queries, keys, values = self.qkv(into_windows(x, self.size)).chunk(3, dim=2)
        message = attend(queries, keys, values, self.heads)
        return self.proj(out_of_windows(message, self.size, x.shape[1], x.shape[2])[:, :height, :width])


class SubsampledAttention(nn.Module):
    """Attention of every position to a coarse grid of summaries (Twins, section 3.2, GSA)."""

    def __init__(self, channels: int, heads: int, stride: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr = nn.Conv2d(channels, channels, stride, stride)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        summaries = self.norm(on_map(self.sr, x).flatten(1, 2))
        keys, values = self.kv(summaries).chunk(2, dim=2)
        message = attend(self.q(x).flatten(1, 2), keys, values, self.heads)
        return self.proj(message).view_as(x)


class PatchEmbedding(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(channels_in, channels_out, stride, stride)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H / stride, W / stride, C')`."""
        return self.norm(on_map(self.proj, x))


class PositionConvolution(nn.Module):
    """Conditional position encoding: a depthwise convolution beside a skip (Twins, section 3.1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + on_map(self.proj, x)


class Twins(nn.Module):
    """First two of the four stages of Twins-SVT-large."""

    def __init__(self):
        super().__init__()
        stages = ((3, 128, 4, 4, 8), (128, FEATURES, 2, 8, 4))  # channels in and out, patch, heads, stride of summaries
        self.patch_embeds = nn.ModuleList(PatchEmbedding(a, b, patch) for a, b, patch, _, _ in stages)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                (Block(width, WindowAttention(width, heads), 1e-6), Block(width, SubsampledAttention(width, heads, stride), 1e-6))
            )
            for _, width, _, heads, stride in stages
        )
        self.pos_block = nn.ModuleList(PositionConvolution(width) for _, width, _, _, _ in stages)
        # Norm behind the fourth stage, which is not there: without use, but in the files and in the published count.
        self.norm = nn.LayerNorm(1024)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, 256, H/8, W/8)`."""
        x = image.permute(0, 2, 3, 1)
        for embedding, blocks, position in zip(self.patch_embeds, self.blocks, self.pos_block, strict=True):
            near, far = blocks.children()
            x = far(position(near(embedding(x))))
        return x.permute(0, 3, 1, 2)


class Backbone(nn.Module):
    """A place for `svt` in the names of the release."""

    def __init__(self):
        super().__init__()
        self.svt = Twins()

    def forward(self, image: Tensor) -> Tensor:
        return self.svt(image)


# ------------------------------------------------------------------------------------------------ cost encoder


class CostPatches(nn.Module):
    """A cost map to tokens, one per 8x8 patch, that know their place (section 3.1, "Cost map patchification")."""

    def __init__(self):
        super().__init__()
        widths = (1, TOKEN_CHANNELS // 8, TOKEN_CHANNELS // 4, TOKEN_CHANNELS // 2)
        layers: list[nn.Module] = []
        for index in range(3):
            layers += [nn.Conv2d(widths[index], widths[index + 1], 6, stride=2, padding=2), nn.ReLU()]
        self.proj = nn.Sequential(*layers[:-1])
        self.ffn_with_coord = nn.Sequential(
            nn.Conv2d(TOKEN_CHANNELS, TOKEN_CHANNELS, 1), nn.ReLU(), nn.Conv2d(TOKEN_CHANNELS, TOKEN_CHANNELS, 1)
        )
        self.norm = nn.LayerNorm(TOKEN_CHANNELS)

    def forward(self, maps: Tensor) -> Tensor:
        """Cost maps `(N, 1, H, W)` to tokens `(N, patches, 128)`."""
        height, width = maps.shape[-2:]
        x = self.proj(F.pad(maps, (0, -width % PATCH, 0, -height % PATCH)))
        centres = places_of(x.shape[-2], x.shape[-1], x) * PATCH + PATCH // 2
        code = position_code(centres, TOKEN_CHANNELS // 2).permute(2, 0, 1).expand(x.shape[0], -1, -1, -1)
        x = self.ffn_with_coord(torch.cat((x, code.to(x.dtype)), dim=1))
        return self.norm(x.flatten(2).transpose(1, 2))


def feed_forward(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Identity(), nn.Linear(channels, channels))


class TokenAttention(nn.Module):
    """Attention of queries to a memory, with a feed-forward network; the memory is not normalised.

    Args:
        query_in_projection: the projection sees the query beside what was attended (decoder).
    """

    def __init__(self, channels: int, memory: int, query_in_projection: bool = False):
        super().__init__()
        self.query_in_projection = query_in_projection
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(memory, channels)
        self.v = nn.Linear(memory, channels)
        self.proj = nn.Linear(2 * channels if query_in_projection else channels, channels)
        self.ffn = feed_forward(channels)

    def forward(self, query: Tensor, k: Tensor, v: Tensor, code: Tensor | float = 0.0) -> Tensor:
        """Query `(N, T, C)`, keys and values `(N, S, C)`; `code` is added to the normalised query."""
        message = attend(self.q(self.norm1(query) + code), k, v, HEADS)
        if self.query_in_projection:
            message = torch.cat((message, query.to(message.dtype)), dim=2)
        x = query + self.proj(message)
        return x + self.ffn(self.norm2(x))


class TokenSelfAttention(TokenAttention):
    """Attention among the tokens of one cost map (section 3.2, "intra-cost-map")."""

    def __init__(self):
        super().__init__(TOKEN_CHANNELS, TOKEN_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.proj(attend(self.q(normed), self.k(normed), self.v(normed), HEADS))
        return x + self.ffn(self.norm2(x))


class ContextAttention(nn.Module):
    """What both attentions across maps share: queries and keys see frame 1's context beside the tokens (section 3.2,
    "inter-cost-map")."""

    def __init__(self):
        super().__init__()
        context = TOKEN_CHANNELS // 2
        self.wide = TOKEN_CHANNELS + context
        self.context_proj = nn.Linear(FEATURES, context)
        self.q = nn.Linear(self.wide, TOKEN_CHANNELS)
        self.v = nn.Linear(TOKEN_CHANNELS, TOKEN_CHANNELS)
        self.proj = nn.Linear(TOKEN_CHANNELS, TOKEN_CHANNELS)

    def with_context(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens `(B * 8, H, W, 128)` and context `(B, H, W, 256)` to `(B * 8, H, W, 192)`."""
        context = self.context_proj(context).repeat_interleave(x.shape[0] // context.shape[0], dim=0)
        return torch.cat((x, context.to(x.dtype)), dim=3)


class LocalContextAttention(ContextAttention):
    """Across maps inside 7x7 windows; positions are counted inside the window."""

    size = 7

    def __init__(self):
        super().__init__()
        self.k = nn.Linear(self.wide, TOKEN_CHANNELS)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        wide = pad_to_multiple(self.with_context(x, context), self.size)
        x = pad_to_multiple(x, self.size)
        code = position_code(places_of(self.size, self.size, x), self.wide).flatten(0, 1)
        wide = into_windows(wide, self.size) + code
        message = attend(self.q(wide), self.k(wide), self.v(into_windows(x, self.size)), HEADS)
        return self.proj(out_of_windows(message, self.size, *x.shape[1:3])[:, :height, :width])


class GlobalContextAttention(ContextAttention):
    """Across all maps, keys and values from summaries of 4x4 positions; one norm serves both."""

    stride = 4

    def __init__(self):
        super().__init__()
        self.k = nn.Linear(TOKEN_CHANNELS, TOKEN_CHANNELS)
        self.sr_key = nn.Conv2d(self.wide, TOKEN_CHANNELS, self.stride, self.stride)
        self.sr_value = nn.Conv2d(TOKEN_CHANNELS, TOKEN_CHANNELS, self.stride, self.stride)
        self.norm = nn.LayerNorm(TOKEN_CHANNELS)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        wide = pad_to_multiple(self.with_context(x, context), self.stride)
        x = pad_to_multiple(x, self.stride)
        keys, values = self.norm(on_map(self.sr_key, wide)), self.norm(on_map(self.sr_value, x))
        keys = keys + position_code(places_of(keys.shape[1], keys.shape[2], x) * self.stride, TOKEN_CHANNELS)
        queries = wide + position_code(places_of(wide.shape[1], wide.shape[2], x), self.wide)
        message = attend(self.q(queries).flatten(1, 2), self.k(keys).flatten(1, 2), self.v(values).flatten(1, 2), HEADS)
        return self.proj(message.view_as(x)[:, :height, :width])


class AcrossMaps(nn.Module):
    """Attention across cost maps, for each of their tokens separately: near, then far."""

    def __init__(self):
        super().__init__()
        self.local_block = Block(TOKEN_CHANNELS, LocalContextAttention(), 1e-5)
        self.global_block = Block(TOKEN_CHANNELS, GlobalContextAttention(), 1e-5)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens `(B * H * W, 8, 128)` and context `(B, H, W, 256)` to tokens."""
        batch, height, width, _ = context.shape
        x = x.view(batch, height, width, *x.shape[1:]).permute(0, 3, 1, 2, 4).flatten(0, 1)  # (B * 8, H, W, 128)
        x = self.global_block(self.local_block(x, context), context)
        return x.unflatten(0, (batch, -1)).permute(0, 2, 3, 1, 4).flatten(0, 2)


class CostPerceiver(nn.Module):
    """Cost maps to cost memory: 8 latent tokens each (section 3.2)."""

    def __init__(self):
        super().__init__()
        self.latent_tokens = nn.Parameter(torch.randn(1, TOKENS, TOKEN_CHANNELS))
        self.patch_embed = CostPatches()
        self.input_layer = TokenAttention(TOKEN_CHANNELS, TOKEN_CHANNELS)
        self.encoder_layers = nn.ModuleList(TokenSelfAttention() for _ in range(COST_LAYERS))
        self.vertical_encoder_layers = nn.ModuleList(AcrossMaps() for _ in range(COST_LAYERS))

    def forward(self, costs: Tensor, context: Tensor) -> Tensor:
        """Costs `(B, H*W, H, W)` and context `(B, 256, H, W)` to `(B * H * W, 8, 128)`."""
        parts = []
        for maps in costs.flatten(0, 1).unsqueeze(1).split(MAPS_AT_ONCE):
            patches = self.patch_embed(maps)
            latents = self.latent_tokens.expand(patches.shape[0], -1, -1)
            parts.append(self.input_layer(latents, self.input_layer.k(patches), self.input_layer.v(patches)))
        x = first = torch.cat(parts)
        context = context.permute(0, 2, 3, 1)
        for inside, across in zip(self.encoder_layers, self.vertical_encoder_layers, strict=True):
            x = across(inside(x), context)
        return x + first


class MemoryEncoder(nn.Module):
    """Frames to the cost volume and its memory."""

    def __init__(self):
        super().__init__()
        self.feat_encoder = Backbone()
        self.channel_convertor = nn.Conv2d(FEATURES, FEATURES, 1, bias=False)
        self.cost_perceiver_encoder = CostPerceiver()

    def forward(self, images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Both images as one batch, `(2 * B, 3, H, W)`, to costs `(B, H/8 * W/8, H/8, W/8)` and memory."""
        features1, features2 = self.channel_convertor(self.feat_encoder(images)).chunk(2)
        with full_precision(features1):
            costs = all_pairs(features1.float(), features2.float(), scale=1.0)  # not divided by anything, here
        return costs, self.cost_perceiver_encoder(costs, context)


# ------------------------------------------------------------------------------------------------ decoder


class MotionEncoder(nn.Module):
    """As RAFT's; beside the costs it sees what the cost memory answered."""

    def __init__(self, inputs: int):
        super().__init__()
        self.convc1 = nn.Conv2d(inputs, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(256, 126, 3, padding=1)

    def forward(self, flow: Tensor, seen: Tensor) -> Tensor:
        seen = F.relu(self.convc2(F.relu(self.convc1(seen))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        motion = F.relu(self.conv(torch.cat((seen, moved), dim=1)))
        return torch.cat((motion, flow.to(motion.dtype)), dim=1)


class SeparableConvGRU(nn.Module):
    """As RAFT's: a pass with 1x5 kernels, then one with 5x1."""

    def __init__(self, hidden: int, inputs: int):
        super().__init__()
        for suffix, kernel in (("1", (1, 5)), ("2", (5, 1))):
            for gate in "zrq":
                layer = nn.Conv2d(hidden + inputs, hidden, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
                self.add_module(f"conv{gate}{suffix}", layer)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        for suffix in "12":
            hx = torch.cat((h, x), dim=1)
            z = torch.sigmoid(getattr(self, f"convz{suffix}")(hx))
            r = torch.sigmoid(getattr(self, f"convr{suffix}")(hx))
            q = torch.tanh(getattr(self, f"convq{suffix}")(torch.cat((r * h, x), dim=1)))
            h = (1 - z) * h + z * q
        return h


class FlowHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(h)))


class Aggregation(nn.Module):
    """Motion carried among positions of frame 1 that look alike (GMA, section 3.2)."""

    def __init__(self):
        super().__init__()
        self.to_v = nn.Conv2d(HIDDEN, HIDDEN, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, attention: Tensor, motion: Tensor) -> Tensor:
        """Attention `(B, H*W, H*W)` and motion features `(B, 128, H, W)` to such features."""
        values = self.to_v(motion).flatten(2).transpose(1, 2)
        return motion + self.gamma * (attention.to(values.dtype) @ values).transpose(1, 2).reshape(motion.shape)


class UpdateBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = MotionEncoder(QUERY + (2 * RADIUS + 1) ** 2)
        self.gru = SeparableConvGRU(HIDDEN, CONTEXT + 2 * HIDDEN)
        self.flow_head = FlowHead()
        self.mask = nn.Sequential(nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * STRIDE**2, 1))
        self.aggregator = Aggregation()

    def forward(self, h: Tensor, context: Tensor, seen: Tensor, flow: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """New hidden state, and the residual of the flow in float32."""
        motion = self.encoder(flow, seen)
        h = self.gru(h, torch.cat((context, motion, self.aggregator(attention, motion)), dim=1))
        return h, self.flow_head(h).float()


class RelativePosition(nn.Module):
    """Position tables of GMA: without use here, but in the files and in the published count."""

    def __init__(self):
        super().__init__()
        # As `nn.Embedding` fills itself, which on the meta device would import PyTorch's compiler.
        self.rel_height, self.rel_width = (
            nn.Embedding.from_pretrained(torch.randn(2 * 160 - 1, HIDDEN), freeze=False) for _ in range(2)
        )


class GlobalAttention(nn.Module):
    """Which positions of frame 1 look alike: `(B, H*W, H*W)`, computed once per pair."""

    def __init__(self):
        super().__init__()
        self.to_qk = nn.Conv2d(CONTEXT, 2 * HIDDEN, 1, bias=False)
        self.pos_emb = RelativePosition()

    def forward(self, context: Tensor) -> Tensor:
        q, k = self.to_qk(context).flatten(2).chunk(2, dim=1)
        return torch.softmax(((q * HIDDEN**-0.5).transpose(1, 2) @ k).float(), dim=-1)


class DecoderLayer(nn.Module):
    """A place for `cross_attend` in the names of the release."""

    def __init__(self):
        super().__init__()
        self.cross_attend = TokenAttention(QUERY, TOKEN_CHANNELS, query_in_projection=True)


class FlowIterate(NamedTuple):
    """Flow after one update."""

    #: `(B, 2, H/8, W/8)` [px of that grid].
    coarse: Tensor
    #: `(B, 2, H, W)` [px of the frame]; None where it was not asked for.
    flow: Tensor | None


class MemoryDecoder(nn.Module):
    """Recurrent decoding from the cost memory (section 3.3)."""

    def __init__(self):
        super().__init__()
        self.flow_token_encoder = nn.Sequential(nn.Conv2d((2 * RADIUS + 1) ** 2, QUERY, 1), nn.GELU(), nn.Conv2d(QUERY, QUERY, 1))
        self.proj = nn.Conv2d(FEATURES, HIDDEN + CONTEXT, 1)
        self.decoder_layer = DecoderLayer()
        self.update_block = UpdateBlock()
        self.att = GlobalAttention()

    def forward(
        self, costs: Tensor, memory: Tensor, context: Tensor, flow: Tensor, iterations: int, last_only: bool
    ) -> list[FlowIterate]:
        """Costs and memory of the encoder, context `(B, 256, H/8, W/8)` and a flow to start from, to the flow after each update."""
        hidden, context = self.proj(context).split((HIDDEN, CONTEXT), dim=1)
        hidden, context = torch.tanh(hidden), torch.relu(context)
        attention = self.att(context)
        layer = self.decoder_layer.cross_attend
        keys, values = layer.k(memory), layer.v(memory)
        grid = pixel_grid(*size_of(context), context)
        iterates = []
        for index in range(iterations):
            flow = flow.detach()
            with full_precision(flow):
                matches = grid + flow
                crop = lookup(costs, matches, RADIUS)
            seen = torch.cat((self.ask(crop, matches, keys, values), crop.to(keys.dtype)), dim=1)
            hidden, residual = self.update_block(hidden, context, seen, flow, attention)
            flow = flow + residual
            fine = None
            if not last_only or index == iterations - 1:
                mask = 0.25 * self.update_block.mask(hidden)
                with full_precision(flow):
                    fine = convex_upsample(flow, mask, STRIDE)
            iterates.append(FlowIterate(flow, fine))
        return iterates

    def ask(self, crop: Tensor, matches: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the memory of each position says about its match, `(B, 64, H, W)`."""
        batch, _, height, width = matches.shape
        query = self.flow_token_encoder(crop).permute(0, 2, 3, 1).reshape(-1, 1, QUERY)
        code = position_code(matches.permute(0, 2, 3, 1), QUERY).reshape(-1, 1, QUERY)
        answer = self.decoder_layer.cross_attend(query, keys, values, code)
        return answer.view(batch, height, width, QUERY).permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------------ the network


class FlowFormer(FlowNetwork):
    """FlowFormer. Nothing is kept between calls.

    The release runs large frames in overlapping tiles; here a frame is run whole.

    Attributes:
        iterations: updates per call where the call does not say (the release's evaluation on Sintel).
    """

    traits = Traits(
        size_multiple=STRIDE,
        smallest_size=64,  # the coarsest summaries of the backbone need it
        size_rule="pad",
        iterates=True,
        accepts_initial_flow=True,
        graph_follows_size=True,
    )

    def __init__(self):
        super().__init__()
        self.iterations = 32
        self.memory_encoder = MemoryEncoder()
        self.memory_decoder = MemoryDecoder()
        self.context_encoder = Backbone()

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
        images = torch.cat((frame1, frame2)).float() * 2 - 1
        context = self.context_encoder(images.chunk(2)[0])
        flow = starting_flow(initial_flow, context)
        costs, memory = self.memory_encoder(images, context)
        return self.memory_decoder(costs, memory, context, flow, iterations, last_only)

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
            frame1, frame2: `(B, 3, H, W)` RGB in [0, 1], floating point; H and W multiples of 8 and at least 64.
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
