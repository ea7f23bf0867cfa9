"""Augmentation of pairs read from files: both frames, their flow and its masks, in batches on a CPU or a GPU.

Two typed sets of numbers, `PaperAugmentation` (FlowNet2 and the LiteFlowNet family) and `RaftAugmentation`, draw one affine map
per frame, from a pixel of the crop to a point of the source, and then change colours. The maps do the cropping too, so that
sources of any size give crops of one size. With T1, T2 the maps of frames 1 and 2, and f the source's flow,

    flow(p) = T2^-1( T1(p) + f(the source pixel nearest to T1(p)) ) - p,

so that sparse labels survive: an unknown value stays unknown, and none is mixed from its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from featherflow.data.benchmarks import Example
from featherflow.data.procedural import PairBatch
from featherflow.ops import pixel_grid
from featherflow.pixels import GREY

TRIES = 50
"""Draws of a map before a sample does without one."""

GROWTH = 50_000
"""Iterations in which the differences between the frames grow from 1/2 to 3/4 of their full size."""

EIGENVECTORS = ((0.51, 0.56, 0.65), (0.79, 0.01, -0.62), (0.35, -0.83, 0.44))
"""Directions of colour in the chromatic-eigen transform; B, G, R."""

LARGE = 0.01
"""Lengths in colour space below which a step of the chromatic-eigen transform is left out."""


@dataclass
class Sources:
    """Pairs of any sizes in one block of memory; what a smaller one does not fill is zero and never read."""

    frame1: Tensor
    """`(B, 3, H, W)` float32 RGB in [0, 1]."""
    frame2: Tensor
    flow: Tensor
    """`(B, 2, H, W)` float32 [px], NaN where unknown."""
    occluded: Tensor
    """`(B, 1, H, W)` bool; false where the source does not say."""
    sizes: Tensor
    """`(B, 2)` float64 on the CPU: width and height of each [px]."""


def gather_sources(examples: Sequence[Example], device: torch.device | str = "cpu") -> Sources:
    """Pairs with ground truth as tensors."""
    sizes = [example.frame1.shape[:2] for example in examples]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    deep = any(example.frame1.dtype != np.uint8 for example in examples)
    frames = np.zeros((2, len(examples), height, width, 3), np.float32 if deep else np.uint8)
    flow = np.full((len(examples), height, width, 2), np.nan, np.float32)
    occluded = np.zeros((len(examples), 1, height, width), bool)
    for index, (example, (h, w)) in enumerate(zip(examples, sizes, strict=True)):
        for block, frame in zip(frames[:, index], (example.frame1, example.frame2), strict=True):
            block[:h, :w] = frame / np.float32(255) if deep and frame.dtype == np.uint8 else frame
        truth, valid = example.truth()
        flow[index, :h, :w] = np.where(valid[..., None], truth, np.nan)
        if example.matched is not None:
            occluded[index, 0, :h, :w] = valid & ~example.matched
    both = torch.from_numpy(frames).to(device).permute(0, 1, 4, 2, 3)
    both = both if deep else both.float().div_(255.0)
    return Sources(
        both[0],
        both[1],
        torch.from_numpy(flow).to(device).permute(0, 3, 1, 2),
        torch.from_numpy(occluded).to(device),
        torch.tensor([(w, h) for h, w in sizes], dtype=torch.float64),
    )


class Augmentation(Protocol):
    """A typed set of numbers that draws crops from sources."""

    def __call__(self, sources: Sources, size: tuple[int, int], generator: torch.Generator, iteration: int = 0) -> PairBatch:
        """Crops of `size` = (height, width) [px]; `iteration` of the run, for what changes with it."""
        ...


def growth(iteration: float) -> float:
    """Factor of the differences between the frames: 0.5 at first, 0.75 after `GROWTH` iterations, towards 1."""
    return 0.5 + 0.5 * (2.0 / (1.0 + math.exp(-1.0986 * iteration / GROWTH)) - 1.0)


def centre_crop(sources: Sources, size: tuple[int, int]) -> PairBatch:
    """No augmentation: the middle of each source."""
    maps = _centred(sources.sizes, size)
    return transform(sources, maps, maps, size)


# ------------------------------------------------------------------------------------------------ geometry


def transform(sources: Sources, first: Tensor, second: Tensor, size: tuple[int, int]) -> PairBatch:
    """Crops of `size` = (height, width): frame 1 through the maps `first`, frame 2 through `second`, and the flow between them.

    Args:
        first, second: `(B, 2, 3)` float64 on the CPU: from a pixel (x, y, 1) of the crop to a point (x, y) of the source [px].
            Frames are sampled bilinearly, with coordinates clamped to [0, side - 1.05].

    A pixel that lies outside the source has no label.
    """
    frame1, device = sources.frame1, sources.frame1.device
    grid = pixel_grid(*size, frame1)
    points1 = _apply(first, grid)
    # T2^-1(T1(p) + f) - p = (T2^-1 T1 - 1) p + (linear part of T2^-1) f: composed exactly, rounded once.
    inverse = torch.linalg.inv(_square(second))
    relative = (inverse @ _square(first))[:, :2] - torch.eye(3, dtype=torch.float64)[:2]
    width, height = (sources.sizes[:, axis].to(device, torch.int64).view(-1, 1, 1) for axis in (0, 1))
    x, y = (points1 + 0.5).floor().long().unbind(1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    nearest = (torch.minimum(y.clamp_min(0), height - 1) * frame1.shape[-1] + torch.minimum(x.clamp_min(0), width - 1)).flatten(1)
    source_flow = sources.flow.flatten(2).gather(2, nearest[:, None].expand(-1, 2, -1)).view(-1, 2, *size)
    occluded = sources.occluded.flatten(2).gather(2, nearest[:, None]).view(-1, 1, *size)
    linear = torch.cat((inverse[:, :2, :2], torch.zeros(len(inverse), 2, 1, dtype=torch.float64)), dim=2)
    flow = _apply(relative, grid) + _apply(linear, source_flow)
    valid = inside.unsqueeze(1) & flow.isfinite().all(dim=1, keepdim=True)
    return PairBatch(
        _sample(frame1, points1, sources.sizes),
        _sample(sources.frame2, _apply(second, grid), sources.sizes),
        torch.where(valid, flow, 0.0),
        occluded & valid,
        valid,
    )


def _apply(maps: Tensor, points: Tensor) -> Tensor:
    """Affine maps `(B, 2, 3)` of points `(B or 1, 2, H, W)`."""
    maps = maps.to(points.device, torch.float32)
    moved = torch.einsum("bij,bjhw->bihw", maps[:, :, :2], points.expand(len(maps), -1, -1, -1))
    return moved + maps[:, :, 2, None, None]


def _square(maps: Tensor) -> Tensor:
    """The third row of `(B, 2, 3)` maps added."""
    last = torch.tensor((0.0, 0.0, 1.0), dtype=torch.float64).expand(len(maps), 1, 3)
    return torch.cat((maps, last), dim=1)


def _sample(frame: Tensor, points: Tensor, sizes: Tensor) -> Tensor:
    height, width = frame.shape[-2:]
    highest = (sizes - 1.05).to(frame.device, torch.float32).view(-1, 2, 1, 1)
    clamped = torch.minimum(points.clamp_min(0.0), highest)
    scale = clamped.new_tensor((2.0 / (width - 1), 2.0 / (height - 1)))
    return F.grid_sample(frame, clamped.permute(0, 2, 3, 1) * scale - 1.0, align_corners=True)


def _centred(sizes: Tensor, size: tuple[int, int]) -> Tensor:
    """Plain centre crops."""
    one, zero = torch.ones(len(sizes), 2, dtype=torch.float64), torch.zeros(len(sizes), 2, dtype=torch.float64)
    return _maps(zero, zero[:, 0], one, one[:, 0], sizes, size, whole=True)


def _maps(
    translation: Tensor, rotation: Tensor, zoom: Tensor, mirror: Tensor, sizes: Tensor, size: tuple[int, int], whole: bool = False
) -> Tensor:
    """T(p) = (R (p - c/2) + t c) / z + s/2, with c the crop's and s the source's (width, height), `mirror` -1 or 1 for x.

    Args:
        whole: round the shift to whole pixels, so that nothing is interpolated.
    """
    crop = torch.tensor((size[1], size[0]), dtype=torch.float64)
    cos, sin = rotation.cos(), rotation.sin()
    linear = torch.stack((cos * mirror, -sin, sin * mirror, cos), dim=1).view(-1, 2, 2) / zoom[:, :, None]
    shift = translation * crop / zoom + sizes / 2 - linear @ (crop / 2)
    return torch.cat((linear, (shift.floor() if whole else shift)[:, :, None]), dim=2)


def _fits(maps: Tensor, sizes: Tensor, size: tuple[int, int]) -> Tensor:
    """`(B,)` bool: all four corners of the crop fall among pixels of the source that have a right and a lower neighbour."""
    right, bottom = size[1] - 1.0, size[0] - 1.0
    corners = torch.tensor(((0, right, 0, right), (0, 0, bottom, bottom), (1, 1, 1, 1)), dtype=torch.float64)
    cells = (maps @ corners).floor()
    return ((cells >= 0) & (cells <= sizes[:, :, None] - 2)).flatten(1).all(dim=1)


# ------------------------------------------------------------------------------------------------ FlowNet2, LiteFlowNet


@dataclass(frozen=True)
class PaperAugmentation:
    """The augmentation of the official release. Deviations with a star grow with the iteration, see `growth`.

    Order: geometry and crop, chromatic-eigen transform, then frame 2 alone: colour, gamma, brightness, contrast; then noise.

    Source: the training template of LiteFlowNet's release and the sources of its data layers. Differs in one point: the colour
    statistics of the chromatic-eigen transform are those of each frame, not of the whole batch.
    """

    #: Half range of the shift, as a share of the crop's width and height.
    translation: float = 0.4
    #: Half range of the turn [rad].
    rotation: float = 0.4
    #: Centre and half range of the logarithm of the enlargement.
    zoom: tuple[float, float] = (0.2, 0.4)
    #: Half range of the logarithm by which width grows and height shrinks.
    squeeze: float = 0.3
    #: Share of pairs that are mirrored left to right.
    mirror: float = 0.0
    #: Frame 2 against frame 1: deviations* of shift, turn and log of enlargement.
    relative_translation: float = 0.03
    relative_rotation: float = 0.03
    relative_zoom: float = 0.03
    #: Whether both frames get the same chromatic-eigen transform.
    eigen: bool = True
    #: Frame 2 alone: deviations* of the logs of colour factors, gamma and contrast, and of brightness.
    relative_colour: float = 0.02
    relative_gamma: float = 0.02
    relative_brightness: float = 0.02
    relative_contrast: float = 0.02
    #: Range of the deviation of the noise, one per pair.
    noise: tuple[float, float] = (0.0, 0.06)
    #: By how much the run is shorter than published: iterations count so many times.
    shrink: float = 1.0

    @torch.no_grad()
    def __call__(self, sources: Sources, size: tuple[int, int], generator: torch.Generator, iteration: int = 0) -> PairBatch:
        """See `Augmentation`. Frames may leave [0, 1] by their noise."""
        draw, grown = _Draw(len(sources.sizes), generator), growth(iteration * self.shrink)
        pairs = transform(sources, *self.draw_maps(draw, sources.sizes, size, grown), size)
        frames = torch.stack((pairs.frame1, pairs.frame2))
        if self.eigen:
            frames = chromatic_eigen(frames, draw_eigen(draw), colour_statistics(sources))
        pairs.frame2 = change_colours(
            frames[1],
            draw.normal(3, deviation=grown * self.relative_colour).exp(),
            draw.normal(deviation=grown * self.relative_gamma).exp(),
            draw.normal(deviation=grown * self.relative_brightness),
            draw.normal(deviation=grown * self.relative_contrast).exp(),
        )
        pairs.frame1 = frames[0]
        if self.noise[1]:
            sigma = draw.uniform(*self.noise).to(frames).view(-1, 1, 1, 1)
            grain = torch.randn((2, *pairs.frame1.shape), generator=generator, device=generator.device).to(frames.device)
            pairs.frame1, pairs.frame2 = pairs.frame1 + sigma * grain[0], pairs.frame2 + sigma * grain[1]
        return pairs

    def draw_maps(self, draw: _Draw, sizes: Tensor, size: tuple[int, int], grown: float) -> tuple[Tensor, Tensor]:
        """Maps of frames 1 and 2, each drawn until it stays within the source; after `TRIES` draws a plain crop, or no
        difference between the frames."""
        maps, found = _centred(sizes, size), torch.zeros(len(sizes), dtype=torch.bool)
        mirror = torch.where(draw.uniform(0.0, 1.0) < self.mirror, -1.0, 1.0).double()
        numbers = torch.tensor((0.0, 0.0, 0.0, 1.0, 1.0, 1.0), dtype=torch.float64).repeat(len(sizes), 1)
        for _ in range(TRIES):
            if found.all():
                break
            translation = draw.uniform(-self.translation, self.translation, 2)
            rotation = draw.uniform(-self.rotation, self.rotation)
            zoom = draw.uniform(self.zoom[0] - self.zoom[1], self.zoom[0] + self.zoom[1]).exp()
            squeeze = draw.uniform(-self.squeeze, self.squeeze).exp()
            zooms = torch.stack((zoom * squeeze, zoom / squeeze), dim=1)
            tried = _maps(translation, rotation, zooms, mirror, sizes, size)
            new = ~found & _fits(tried, sizes, size)
            maps[new], found = tried[new], found | new
            numbers[new] = torch.cat((translation, rotation[:, None], zooms, mirror[:, None]), dim=1)[new]
        translation, rotation, zooms, mirror = numbers[:, :2], numbers[:, 2], numbers[:, 3:5], numbers[:, 5]

        second, settled = maps.clone(), ~found
        for _ in range(TRIES):
            if settled.all():
                break
            tried = _maps(
                translation + draw.normal(2, deviation=grown * self.relative_translation),
                rotation + draw.normal(deviation=grown * self.relative_rotation),
                zooms * draw.normal(deviation=grown * self.relative_zoom).exp()[:, None],
                mirror,
                sizes,
                size,
            )
            new = ~settled & _fits(tried, sizes, size)
            second[new], settled = tried[new], settled | new
        return maps, second


class _Draw:
    """Random numbers per sample, in float64 on the CPU, from a generator on any device."""

    def __init__(self, batch: int, generator: torch.Generator):
        self.batch, self.generator = batch, generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand((self.batch, *shape), generator=self.generator, device=self.generator.device, dtype=torch.float64)
        return drawn.cpu() * (high - low) + low

    def normal(self, *shape: int, deviation: float) -> Tensor:
        drawn = torch.randn((self.batch, *shape), generator=self.generator, device=self.generator.device, dtype=torch.float64)
        return drawn.cpu() * deviation

    def chance(self, share: float) -> Tensor:
        return self.uniform(0.0, 1.0) < share


@dataclass
class EigenChange:
    """One chromatic-eigen transform per pair; `power`, `add`, `factor` `(B, 3)` for the three directions, the rest `(B,)`."""

    power: Tensor
    add: Tensor
    factor: Tensor
    saturation_power: Tensor
    saturation_add: Tensor
    saturation_factor: Tensor
    #: Turn in the plane of directions 2 and 3 [rad].
    rotation: Tensor
    length_power: Tensor
    length_add: Tensor
    length_factor: Tensor


def draw_eigen(draw: _Draw) -> EigenChange:
    """Numbers of the official training template."""
    deviations = torch.tensor((0.4, 0.02, 0.2), dtype=torch.float64)
    colour = draw.normal(3, 2, deviation=1.0) * deviations[:, None]
    light = draw.normal(3, 1, deviation=1.0) * torch.tensor((0.4, 0.04, 0.4), dtype=torch.float64)[:, None]
    power, add, factor = torch.cat((light, colour), dim=2).unbind(1)
    return EigenChange(
        power.exp(),
        add,
        factor.exp(),
        draw.uniform(-0.4, 0.4).exp(),
        draw.uniform(-0.03, 0.03),
        draw.uniform(-0.8, 0.2).exp(),
        draw.uniform(-1.0, 1.0),
        draw.uniform(-0.6, 0.2).exp(),
        draw.uniform(-0.03, 0.03),
        draw.uniform(-0.4, 0.4).exp(),
    )


def colour_statistics(sources: Sources) -> tuple[Tensor, Tensor]:
    """Of both frames of each source: mean colour (B, G, R) and the largest extent along each direction, `(2, B, 3)`."""
    basis = sources.frame1.new_tensor(EIGENVECTORS)
    pixels = sources.sizes.prod(dim=1).to(sources.frame1)
    means, extents = [], []
    for frame in (sources.frame1, sources.frame2):
        colours = frame.flip(1).flatten(2)
        means.append(colours.sum(dim=2) / pixels[:, None])
        extents.append((basis @ colours).abs().amax(dim=2))
    return torch.stack(means), torch.stack(extents)


def chromatic_eigen(frames: Tensor, change: EigenChange, statistics: tuple[Tensor, Tensor]) -> Tensor:
    """The same change of colours in the eigenvector basis for both frames of each pair.

    Args:
        frames: `(2, B, 3, H, W)` RGB in [0, 1]; also the result.
        statistics: mean colour and extents, see `colour_statistics`.
    """
    basis = frames.new_tensor(EIGENVECTORS)

    def each(numbers: Tensor) -> Tensor:
        """Numbers per pair or per pair and direction, to be multiplied with `(2, B, [3,] H*W)`."""
        return numbers.to(frames).unsqueeze(-1)

    means, extents = (value.unsqueeze(-1) for value in statistics)
    large = extents > LARGE
    unit = torch.where(large, extents, 1.0)
    longest = extents.square().sum(dim=2).sqrt()  # (2, B, 1)
    colours = frames.flip(2).flatten(3)
    a = basis @ (colours - means) / unit
    a = (a.sign() * a.abs().pow(each(change.power)) + each(change.add)) * each(change.factor)
    a = a + basis @ means / unit
    a0, a1, a2 = a.unbind(2)
    saturation = (a1.square() + a2.square()).sqrt()
    coloured = saturation > LARGE
    wanted = (saturation.pow(each(change.saturation_power)) + each(change.saturation_add)).clamp_min(0.0)
    wanted = wanted * each(change.saturation_factor)
    cos, sin = each(change.rotation.cos()), each(change.rotation.sin())
    a = torch.stack((a0, cos * a1 - sin * a2, sin * a1 + cos * a2), dim=2) * unit
    length = a.square().sum(dim=2).sqrt() / longest.clamp_min(1e-9)
    ratio = torch.where(coloured, wanted / saturation.clamp_min(LARGE), 1.0)
    a[:, :, 1:] *= ratio.unsqueeze(2)
    now = a.square().sum(dim=2).sqrt()
    goal = (length.pow(each(change.length_power)) + each(change.length_add)).clamp_min(0.0) * each(change.length_factor) * longest
    bright = (now > LARGE).unsqueeze(2)
    scaled = torch.minimum(a * (goal / now.clamp_min(LARGE)).unsqueeze(2), extents)
    a = torch.where(bright, scaled, a)
    return (basis.T @ a).clamp(0.0, 1.0).flip(2).view(frames.shape)


def change_colours(frame: Tensor, colour: Tensor, gamma: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Colour factors at equal sum of channels, gamma, brightness and contrast about 0.5; clamped to [0, 1].

    Args:
        frame: `(B, 3, H, W)` RGB in [0, 1]; colour: `(B, 3)`; the others `(B,)`.
    """
    gamma, brightness, contrast = (number.to(frame).view(-1, 1, 1, 1) for number in (gamma, brightness, contrast))
    tinted = frame * colour.to(frame)[:, :, None, None]
    tinted = tinted * (frame.sum(dim=1, keepdim=True) / (tinted.sum(dim=1, keepdim=True) + 0.01))
    bright = tinted.clamp(0.0, 1.0).pow(gamma) + brightness
    return (0.5 + (bright - 0.5) * contrast).clamp(0.0, 1.0)


# ------------------------------------------------------------------------------------------------ RAFT


@dataclass(frozen=True)
class RaftAugmentation:
    """Scale, stretch, flip and crop, the same for both frames; colours, at times not the same; patches wiped out of frame 2.

    Source: RAFT's supplementary text and the settings of its public training for FlyingChairs. Differs: flow is taken from the
    nearest pixel for dense labels too, and the four changes of colour keep one order.
    """

    #: Range of log2 of the enlargement, for this share of pairs; a source too small for the crop is always enlarged to it.
    scale: tuple[float, float] = (-0.1, 1.0)
    scaled: float = 0.8
    #: Half range of log2 by which x and y differ from that, for this share of pairs.
    stretch: float = 0.2
    stretched: float = 0.8
    #: Shares of pairs that are flipped left to right and upside down.
    flip_x: float = 0.5
    flip_y: float = 0.1
    #: Half ranges of the factors of brightness, contrast and saturation, and of the turn of the hue [turns].
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.16
    #: Share of pairs whose frames change colours independently.
    asymmetric: float = 0.2
    #: Share of pairs with one or two rectangles of frame 2 filled with its mean colour, and the range of their sides [px].
    erased: float = 0.5
    erased_side: tuple[float, float] = (50.0, 100.0)

    @torch.no_grad()
    def __call__(self, sources: Sources, size: tuple[int, int], generator: torch.Generator, iteration: int = 0) -> PairBatch:
        """See `Augmentation`."""
        draw = _Draw(len(sources.sizes), generator)
        maps = self.draw_maps(draw, sources.sizes, size)
        pairs = transform(sources, maps, maps, size)
        pairs.frame1, pairs.frame2 = self._jitter(pairs, draw)
        pairs.frame2 = self._erase(pairs.frame2, draw)
        return pairs

    def draw_maps(self, draw: _Draw, sizes: Tensor, size: tuple[int, int]) -> Tensor:
        """T(p) = (p + offset + 1/2) / scale - 1/2, before that flipped within the scaled frame."""
        crop = torch.tensor((size[1], size[0]), dtype=torch.float64)
        scale = torch.where(draw.chance(self.scaled), draw.uniform(*self.scale), 0.0)[:, None]
        stretch = draw.uniform(-self.stretch, self.stretch, 2)
        scale = torch.exp2(scale + torch.where(draw.chance(self.stretched)[:, None], stretch, 0.0))
        scale = torch.maximum(scale, (crop / sizes).clamp_min(1e-9))
        scaled = (sizes * scale + 1e-6).floor()  # whole pixels, at least the crop
        offset = (draw.uniform(0.0, 1.0, 2) * (scaled - crop + 1)).floor().clamp_min(0.0)
        flip = torch.stack((draw.chance(self.flip_x), draw.chance(self.flip_y)), dim=1)
        sign = torch.where(flip, -1.0, 1.0).double()
        start = torch.where(flip, scaled - 1 - offset, offset)
        shift = (start + 0.5) / scale - 0.5
        return torch.cat((torch.diag_embed(sign / scale), shift[:, :, None]), dim=2)

    def _jitter(self, pairs: PairBatch, draw: _Draw) -> tuple[Tensor, Tensor]:
        first, second = (self._draw_jitter(draw) for _ in range(2))
        asymmetric = draw.chance(self.asymmetric)
        second = [torch.where(asymmetric, b, a) for a, b in zip(first, second, strict=True)]
        return jitter(pairs.frame1, *first), jitter(pairs.frame2, *second)

    def _draw_jitter(self, draw: _Draw) -> list[Tensor]:
        factors = [draw.uniform(1.0 - spread, 1.0 + spread) for spread in (self.brightness, self.contrast, self.saturation)]
        return [*factors, draw.uniform(-self.hue, self.hue)]

    def _erase(self, frame: Tensor, draw: _Draw) -> Tensor:
        height, width = frame.shape[-2:]
        grid = pixel_grid(height, width, frame)
        mean = frame.mean(dim=(2, 3), keepdim=True)
        chosen, second = draw.chance(self.erased), draw.chance(0.5)
        for present in (chosen, chosen & second):
            corner = draw.uniform(0.0, 1.0, 2) * torch.tensor((width, height), dtype=torch.float64)
            low = corner.to(frame).view(-1, 2, 1, 1)
            high = (corner + draw.uniform(*self.erased_side, 2)).to(frame).view(-1, 2, 1, 1)
            wiped = ((grid >= low) & (grid < high)).all(dim=1, keepdim=True) & present.to(frame.device).view(-1, 1, 1, 1)
            frame = torch.where(wiped, mean, frame)
        return frame


def jitter(frame: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Changes of colour in this order, each clamped to [0, 1].

    Args:
        frame: `(B, 3, H, W)` RGB in [0, 1].
        brightness, contrast, saturation: `(B,)` factors; of the values, of their distance to the mean grey, to their own grey.
        hue: `(B,)` turn of the hue [turns].
    """
    brightness, contrast, saturation, hue = (n.to(frame).view(-1, 1, 1, 1) for n in (brightness, contrast, saturation, hue))
    frame = (frame * brightness).clamp(0.0, 1.0)
    mean = _grey(frame).mean(dim=(2, 3), keepdim=True)
    frame = (mean + (frame - mean) * contrast).clamp(0.0, 1.0)
    grey = _grey(frame)
    return turn_hue((grey + (frame - grey) * saturation).clamp(0.0, 1.0), hue)


def _grey(frame: Tensor) -> Tensor:
    return torch.einsum("bchw,c->bhw", frame, frame.new_tensor(GREY)).unsqueeze(1)


def turn_hue(frame: Tensor, turns: Tensor) -> Tensor:
    """RGB in [0, 1] with its hue moved by `turns` at equal saturation and value (HSV)."""
    value, smallest = frame.amax(dim=1, keepdim=True), frame.amin(dim=1, keepdim=True)
    chroma = value - smallest
    red, green, blue = frame.split(1, dim=1)
    safe = chroma.clamp_min(1e-9)
    sixths = torch.where(
        value == red, (green - blue) / safe, torch.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe)
    )
    # Each channel as a function of the hue: f(n) = v - c * clamp(min(k, 4 - k), 0, 1) with k = (n + hue) mod 6.
    k = (sixths + 6.0 * turns + sixths.new_tensor((5.0, 3.0, 1.0)).view(1, 3, 1, 1)) % 6.0
    return value - chroma * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
