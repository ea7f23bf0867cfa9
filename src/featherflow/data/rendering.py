"""Rendering scenes: from the tables of `scenes` to frames, flow and masks, on a CPU or a GPU.

Each frame is shaded once: shapes are evaluated only in the 16 x 16 blocks that a layer can touch, the two topmost
layers of every pixel are kept, and only these look up their texture (the second one only under an edge).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .scenes import BLOCK, WAVES, Scene
from .shapes import TILE, ShapeBank
from .space import LINES
from .textures import TextureBank


@dataclass
class PairBatch:
    """A batch of rendered pairs. `flow` lives on frame 1's grid and points to frame 2; x right, y down [px]."""

    frame1: Tensor
    """`(B, 3, H, W)` float32 RGB in [0, 1]."""
    frame2: Tensor
    """`(B, 3, H, W)` float32 RGB in [0, 1]."""
    flow: Tensor
    """`(B, 2, H, W)` float32 [px]."""
    occluded: Tensor
    """`(B, 1, H, W)` bool: the point seen in frame 1 is covered or out of the frame in frame 2."""
    valid: Tensor
    """`(B, 1, H, W)` bool: the flow may be trained on; false only where a perspective degenerates."""
    flow_backward: Tensor | None = None
    """`(B, 2, H, W)` float32 [px], on frame 2's grid, to frame 1; None unless asked for."""
    occluded_backward: Tensor | None = None
    """`(B, 1, H, W)` bool: the same for frame 2's points in frame 1; None unless asked for."""
    valid_backward: Tensor | None = None
    """`(B, 1, H, W)` bool: the backward flow may be trained on; None unless asked for."""

    def labels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Flow, valid and occluded; those of the backward flow follow, where there is one."""
        forward = self.flow, self.valid, self.occluded
        backward = self.backward_labels()
        if backward is None:
            return forward
        flow, valid, occluded = (torch.cat(both) for both in zip(forward, backward, strict=True))
        return flow, valid, occluded

    def backward_labels(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Flow, valid and occluded of the way back, which are there together or not at all."""
        if self.flow_backward is None or self.valid_backward is None or self.occluded_backward is None:
            return None
        return self.flow_backward, self.valid_backward, self.occluded_backward

    def part(self, begin: int, end: int) -> PairBatch:
        """Views of the samples begin..end, the last left out."""
        values: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return replace(self, **{name: value[begin:end] for name, value in values.items() if value is not None})


def render(scene: Scene, textures: TextureBank, shapes: ShapeBank, pairs: PairBatch) -> None:
    """Fill `pairs`."""
    batch, _, height, width = pairs.frame1.shape
    device = scene.motion.device
    waves_x, waves_y = _wave_fields(scene, height, width)

    top1, under1, alpha1 = _cover(scene, shapes, height, width, second=False)
    top2, under2, alpha2 = _cover(scene, shapes, height, width, second=True)
    owner1, owner2 = torch.where(alpha1 < 128, under1, top1), torch.where(alpha2 < 128, under2, top2)

    x = torch.arange(width, device=device, dtype=torch.float32).expand(batch, height, width).reshape(-1)
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None].expand(batch, height, width).reshape(-1)

    def deformed(pixel: Tensor | None, layer: Tensor) -> tuple[Tensor, Tensor]:
        """p + D(p) of all pixels, or of those listed."""
        qx, qy = (x.clone(), y.clone()) if pixel is None else (x[pixel], y[pixel])
        for k in range(WAVES):
            along, across = (waves_x[k], waves_y[k]) if pixel is None else (waves_x[k][pixel], waves_y[k][pixel])
            qx.addcmul_(scene.amplitude[k].index_select(0, layer), along)
            qy.addcmul_(scene.amplitude[WAVES + k].index_select(0, layer), across)
        return qx, qy

    words, side = textures.texels(device), textures.size

    surface = deformed(None, top1)

    def shade1(pixel: Tensor | None, layer: Tensor) -> list[Tensor]:
        qx, qy = surface if pixel is None else deformed(pixel, layer)
        return _texel(words, side, scene.texture_index.index_select(0, layer), *_map_by(scene.texture, layer, qx, qy))

    def shade2(pixel: Tensor | None, layer: Tensor) -> list[Tensor]:
        px, py = (x, y) if pixel is None else (x[pixel], y[pixel])
        return _texel(words, side, scene.texture_index.index_select(0, layer), *_map_by(scene.texture2, layer, px, py))

    def paint(image: Tensor, top: Tensor, under: Tensor, alpha: Tensor, shade) -> None:
        # All pixels show their topmost layer; under an edge (a few in a hundred) the next one shines through.
        colours = shade(None, top)
        edge = (alpha < 255).nonzero().flatten()
        weight = alpha[edge].float() / 255
        for channel, (colour, beneath) in enumerate(zip(colours, shade(edge, under[edge]), strict=True)):
            colour[edge] = torch.lerp(beneath, colour[edge], weight)
            image[:, channel] = colour.view(batch, height, width)

    paint(pairs.frame1, top1, under1, alpha1, shade1)
    paint(pairs.frame2, top2, under2, alpha2, shade2)
    to_x, to_y = _map_by(scene.motion, top1, *surface)
    yielded = (alpha1 < 128).nonzero().flatten()
    below = under1[yielded]
    to_x[yielded], to_y[yielded] = _map_by(scene.motion, below, *deformed(yielded, below))

    def write(flow: Tensor, occluded: Tensor, to_x: Tensor, to_y: Tensor, owner: Tensor, owners: Tensor) -> Tensor:
        """Returns where the flow is usable: a perspective may degenerate."""
        occluded[:, 0] = _occluded(to_x, to_y, owner, owners, batch, height, width)
        usable = ((to_x - x).abs() < 2 * width) & ((to_y - y).abs() < 2 * width)
        for channel, step in enumerate((to_x - x, to_y - y)):
            flow[:, channel] = step.where(usable, 0.0).view(batch, height, width)
        usable = usable.view(batch, height, width)
        occluded[:, 0] |= ~usable
        return usable

    pairs.valid[:, 0] = write(pairs.flow, pairs.occluded, to_x, to_y, owner1, owner2)
    backward = pairs.backward_labels()
    if backward is not None:
        flow, valid, occluded = backward
        from_x, from_y = _undeform(scene, owner2, *_map_by(scene.inverse_motion, owner2, x, y), height * width)
        valid[:, 0] = write(flow, occluded, from_x, from_y, owner2, owner1)


def _wave_fields(scene: Scene, height: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
    """The K waves in x and in y on the pixel grid, each `(B * H * W,)`: sin X cos Y and cos X sin Y."""
    fx, ax, fy, ay = scene.waves.unbind(-1)
    across = torch.arange(width, device=fx.device)
    down = torch.arange(height, device=fx.device)
    along_x, along_y = fx[..., None] * across + ax[..., None], fy[..., None] * down + ay[..., None]
    sin_x, cos_x = along_x.sin()[..., None, :], along_x.cos()[..., None, :]
    sin_y, cos_y = along_y.sin()[..., :, None], along_y.cos()[..., :, None]
    waves_x = [(cos_y[:, k] * sin_x[:, k]).reshape(-1) for k in range(WAVES)]
    waves_y = [(sin_y[:, k] * cos_x[:, k]).reshape(-1) for k in range(WAVES)]
    return waves_x, waves_y


def _map(h: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The homographies `h` `(9, ...)` (h22 = 1) at points of a shape that broadcasts with theirs."""
    w = (h[6] * x).addcmul_(h[7], y).add_(1.0).reciprocal_()
    return ((h[0] * x).addcmul_(h[1], y).add_(h[2]).mul_(w), (h[3] * x).addcmul_(h[4], y).add_(h[5]).mul_(w))


def _linear(table: Tensor, column: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """a x + b y + c with the rows a, b, c of `table` `(3, N)` at `column` `(n,)`.

    Tables are gathered row by row: one gather of all rows would need a temporary so large that the allocator hands
    its pages back and forth, which costs more than the arithmetic."""
    a, b, c = (table[row].index_select(0, column) for row in range(3))
    return a.mul_(x).addcmul_(b, y).add_(c)


def _map_by(table: Tensor, column: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The homographies of `table` `(9, N)` (h22 = 1), `column` `(n,)` saying which, at `n` points."""
    w = _linear(table[6:], column, x, y).reciprocal_()
    return _linear(table[:3], column, x, y).mul_(w), _linear(table[3:6], column, x, y).mul_(w)


def _texel(words: Tensor, side: int, index: Tensor, u: Tensor, v: Tensor) -> list[Tensor]:
    """Bilinear colours `[R, G, B]` in [0, 1] of textures `index` at texel (u, v), mirrored beyond their borders."""
    period, last = 2.0 * (side - 1), side - 1.0

    def mirrored(t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.remainder(period).sub_(last).abs_().neg_().add_(last).clamp_(0.0, last - 1e-3)
        whole = t.floor()
        return whole.to(torch.int32), t.sub_(whole)

    column, a = mirrored(u)
    row, b = mirrored(v)
    if words.numel() < 2**31:
        start = index.to(torch.int32) * (side * side)
    else:
        start, row = index * (side * side), row.long()
    start = start.add_(row, alpha=side).add_(column)
    corners = [
        words.index_select(0, start),
        words.index_select(0, start + 1),
        words.index_select(0, start + side),
        words.index_select(0, start + (side + 1)),
    ]
    both = (a * b).div_(255)
    a, b = a / 255, b / 255
    weights = (1 / 255 - a - b + both, a - both, b - both, both)
    colours = []
    for channel in range(3):
        total = None
        for corner, weight in zip(corners, weights, strict=True):
            value = corner.view(torch.uint8).view(-1, 4)[:, channel].float()
            total = value.mul_(weight) if total is None else total.addcmul_(value, weight)
        colours.append(total)
    return colours


def _cover(scene: Scene, shapes: ShapeBank, height: int, width: int, second: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The two topmost layers of every pixel of a frame.

    Returns:
        `(B * H * W,)` each: column of the topmost layer that touches the pixel, column of the next one, and how much
        of the pixel the topmost covers [0..255].
    """
    batch, layers, device = scene.batch, scene.layers, scene.motion.device
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    # Shape coordinates at the blocks' centres tell which blocks a layer can touch.
    shape = (
        scene.shape2
        if second
        else torch.cat((scene.shape, scene.shape.new_zeros(2, scene.shape.shape[1]), scene.shape.new_ones(1, scene.shape.shape[1])))
    )
    mid_x = (torch.arange(columns, device=device) * BLOCK + (BLOCK - 1) / 2)[None, :].expand(rows, -1).reshape(-1)
    mid_y = (torch.arange(rows, device=device) * BLOCK + (BLOCK - 1) / 2)[:, None].expand(-1, columns).reshape(-1)
    u, v = _map(shape[:, :, None], mid_x, mid_y)
    reach = 1 + (0.71 * BLOCK * 1.6 + scene.amplitude.abs().sum(0)) / scene.radius.clamp_min(1)
    scale = scene.scale2 if second else scene.scale
    touched = (torch.maximum(u.abs(), v.abs()) < reach[:, None]) & (scale > 0)[:, None]
    touched = touched.view(batch, layers, -1).transpose(0, 1).contiguous()
    touched[0] = False
    per_layer = touched.flatten(1).sum(1).tolist()
    layer, sample, block = touched.nonzero().unbind(1)
    column = sample * layers + layer

    # Shape coordinates of all pixels of those blocks, n x 16 x 16.
    step = torch.arange(BLOCK, device=device)
    x = ((block % columns) * BLOCK)[:, None, None] + step
    y = (torch.div(block, columns, rounding_mode="floor") * BLOCK)[:, None, None] + step[:, None]
    h = shape[:, column][..., None, None]
    if second:
        w = (h[6] * x + (h[7] * y + 1)).reciprocal_()
        u = (h[0] * x + (h[1] * y + h[2])).mul_(w)
        v = (h[3] * x + (h[4] * y + h[5])).mul_(w)
    else:
        fx, ax, fy, ay = scene.waves[sample].unbind(-1)
        along_x = fx[..., None] * x[:, 0, None] + ax[..., None]
        along_y = fy[..., None] * y[..., 0][:, None] + ay[..., None]
        amplitude = scene.amplitude[:, column].t()
        # Sums of K products of a column and a row: (n, 16, K) @ (n, K, 16).
        dx = (along_y.cos() * amplitude[:, :WAVES, None]).transpose(1, 2) @ along_x.sin()
        dy = (along_y.sin() * amplitude[:, WAVES:, None]).transpose(1, 2) @ along_x.cos()
        qx, qy = dx.add_(x), dy.add_(y)
        u, v = h[0] * qx + h[1] * qy + h[2], h[3] * qx + h[4] * qy + h[5]

    # One look-up in the atlas of signed distances; a tile spans -1..1.
    atlas = shapes.on(device)
    tile = scene.shape_index[column]
    last = shapes.columns * TILE - 1
    tile_u, tile_v = tile % shapes.columns, torch.div(tile, shapes.columns, rounding_mode="floor")

    def placed(t: Tensor, which: Tensor) -> Tensor:
        centre = which.float() * TILE + (TILE - 1) / 2
        return t.clamp_(-1, 1).mul_((TILE - 1) / last).add_((centre * (2 / last) - 1)[:, None, None])

    grid = torch.stack((placed(u, tile_u), placed(v, tile_v)), -1).view(1, -1, BLOCK * BLOCK, 2)
    distance = F.grid_sample(atlas, grid, align_corners=True)[0, 0]
    alpha = distance.mul_((255 * scale[column])[:, None]).add_(127.5).clamp_(0, 255).to(torch.int16)

    # (layer, coverage) as one number: the largest is the topmost, and a running second-largest the one below it.
    key = alpha.add_((layer * 256).to(torch.int16)[:, None]) * (alpha > (layer * 256)[:, None])
    place = sample * (rows * columns) + block
    top = torch.full((batch * rows * columns, BLOCK * BLOCK), 255, dtype=torch.int16, device=device)
    under = top.clone()
    outlined = zip(key.split(per_layer), place.split(per_layer), strict=True)
    for new, where in (*outlined, *_cover_by_lines(scene, rows, columns, second)):
        if len(where):
            old = top.index_select(0, where)
            under.index_copy_(0, where, torch.maximum(under.index_select(0, where), torch.minimum(old, new)))
            top.index_copy_(0, where, torch.maximum(old, new))

    base = torch.arange(batch, device=device, dtype=torch.int32)[:, None, None] * layers

    def whole(blocks: Tensor) -> Tensor:
        image = blocks.view(batch, rows, columns, BLOCK, BLOCK).transpose(2, 3)
        return image.reshape(batch, rows * BLOCK, columns * BLOCK)[:, :height, :width].int()

    top, under = whole(top), whole(under)
    return (((top >> 8) + base).reshape(-1), ((under >> 8) + base).reshape(-1), (top & 255).reshape(-1))


def _cover_by_lines(scene: Scene, rows: int, columns: int, second: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """What the planes that are bounded by lines cover, one layer of all samples at a time.

    Yields:
        Keys as in `_cover` `(n, 256)` and the blocks that they belong to `(n,)`, among those of the whole batch.
    """
    bounded = scene.bounded.view(-1, scene.layers)
    for layer, count in enumerate(bounded.sum(0).tolist()):
        if not count:
            continue
        sample = bounded[:, layer].nonzero().flatten()
        a, b, c = (scene.lines2 if second else scene.lines)[:, sample * scene.layers + layer].view(LINES, 3, -1).unbind(1)
        mid_x, mid_y = (torch.arange(count, device=a.device) * BLOCK + (BLOCK - 1) / 2 for count in (columns, rows))
        distance = (a[..., None] * mid_x)[..., None, :] + (b[..., None] * mid_y + c[..., None])[..., None]
        which, block = (distance.amin(0).flatten(1) > -0.75 * BLOCK).nonzero().unbind(1)
        step = torch.arange(BLOCK, device=a.device)
        x, y = (block % columns)[:, None] * BLOCK + step, torch.div(block, columns, rounding_mode="floor")[:, None] * BLOCK + step
        nearest = torch.full_like(x[:, None] + y[..., None], math.inf, dtype=a.dtype)
        for line in range(LINES):
            along, across = a[line, which, None] * x, b[line, which, None] * y + c[line, which, None]
            torch.minimum(nearest, along[:, None] + across[..., None], out=nearest)
        alpha = nearest.mul_(255).add_(127.5).clamp_(0, 255).to(torch.int16).flatten(1)
        yield (alpha + layer * 256) * (alpha > 0), sample[which] * (rows * columns) + block


def _occluded(to_x: Tensor, to_y: Tensor, owner: Tensor, owners: Tensor, batch: int, height: int, width: int) -> Tensor:
    """`(B, H, W)` bool: pixels that land out of the other frame, or on other layers: of the bilinear weights of the
    four pixels around the landing point, less than a quarter falls to pixels that show the same layer."""
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    first = torch.arange(batch, device=owner.device, dtype=torch.int32)[:, None].expand(-1, height * width)
    first = first.reshape(-1) * (height * width)
    x, y = to_x.clamp(0, width - 1), to_y.clamp(0, height - 1)
    nearest = x.round().to(torch.int32).add_(first).add_(y.round().to(torch.int32), alpha=width)
    seen = owners.index_select(0, nearest) == owner
    # The nearest pixel has at least a quarter of the weight, so only those that differ from it need a closer look.
    doubtful = (~seen & inside).nonzero().flatten()
    x, y, first, owner = x[doubtful], y[doubtful], first[doubtful], owner[doubtful]
    left, up = x.to(torch.int32), y.to(torch.int32)
    right, down = (left + 1).clamp_(max=width - 1), (up + 1).clamp_(max=height - 1)
    a, b = x - left, y - up
    same = torch.zeros_like(a)
    for row, over in ((up, 1 - b), (down, b)):
        for column, beside in ((left, 1 - a), (right, a)):
            same += over * beside * (owners[first + row * width + column] == owner)
    seen[doubtful] = same >= 0.25
    return (~(seen & inside)).view(batch, height, width)


def _undeform(scene: Scene, layer: Tensor, qx: Tensor, qy: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """The p with p + D(p) = q, by fixed-point iteration from p = q: the error shrinks by MAX_GRADIENT each time."""
    amplitude = scene.amplitude.index_select(1, layer)
    waves = scene.waves.permute(1, 2, 0).repeat_interleave(pixels, 2)
    px, py = qx, qy
    for _ in range(7):
        next_x, next_y = qx.clone(), qy.clone()
        for k in range(WAVES):
            fx, ax, fy, ay = waves[k]
            along_x, along_y = torch.addcmul(ax, fx, px), torch.addcmul(ay, fy, py)
            next_x.addcmul_(amplitude[k] * along_x.sin(), along_y.cos(), value=-1)
            next_y.addcmul_(amplitude[WAVES + k] * along_x.cos(), along_y.sin(), value=-1)
        px, py = next_x, next_y
    return px, py
