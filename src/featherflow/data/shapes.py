"""Outlines for the layers of the procedural generator: smooth, polygonal, thin, branching and holed shapes.

Every shape is a tile that holds the signed distance to its outline (positive inside) [texels]. Unlike a stored alpha
mask, a distance gives an edge one pixel wide at any magnification.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

TILE = 160
"""Side of a tile [texels]; it spans -1..1 in shape coordinates, and every shape keeps within about 0.92."""

FAR = 12.0
"""Distances are clamped to this [texels]: beyond it a pixel is wholly inside or wholly outside."""


class ShapeBank:
    """A square atlas of signed-distance tiles.

    Attributes:
        atlas: `(1, 1, n * TILE, n * TILE)` float32 signed distance [texels], n = ceil(sqrt(count)).
        count: number of shapes.
        columns: n.
    """

    def __init__(self, count: int = 196, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.count, self.columns = count, math.ceil(math.sqrt(count))
        makers = (_blob, _polygon, _noise_shape, _box, _thin, _blob_with_holes, _star, _thin)
        atlas = torch.full((self.columns * TILE, self.columns * TILE), -FAR)
        for index in range(count):
            row, column = divmod(index, self.columns)
            field = makers[index % len(makers)](generator)
            atlas[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = _distance(field)
        self.atlas = atlas[None, None]
        self._on = {"cpu": self.atlas}

    def on(self, device: torch.device | str) -> Tensor:
        """The atlas on `device`, kept for reuse."""
        key = str(torch.device(device))
        if key not in self._on:
            self._on[key] = self.atlas.to(device)
        return self._on[key]


@lru_cache(maxsize=1)
def default_shapes() -> ShapeBank:
    """The bank that `render_pairs` draws from, made once per process."""
    return ShapeBank()


def _distance(field: Tensor) -> Tensor:
    """Signed distance [texels] near the zero level of an implicit `field`: f / |grad f|, clamped."""
    dy, dx = torch.gradient(field)
    return (field / (dx.square() + dy.square()).sqrt().clamp_min(1e-4)).clamp(-FAR, FAR)


@lru_cache(maxsize=1)
def _grid() -> tuple[Tensor, Tensor]:
    axis = torch.linspace(-1, 1, TILE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _turned(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = _grid()
    angle = _uniform(generator, 0, 2 * math.pi)
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _blob(generator: torch.Generator) -> Tensor:
    """A radius that is a Fourier series of the angle."""
    x, y = _grid()
    angle, radius = torch.atan2(y, x), (x.square() + y.square()).sqrt()
    orders = torch.arange(1, 8.0)
    strength = torch.randn((2, 7), generator=generator) * _uniform(generator, 0.1, 0.5) / orders

    def outline(theta: Tensor) -> Tensor:
        waves = theta[..., None] * orders
        return (1 + (strength[0] * waves.cos() + strength[1] * waves.sin()).sum(-1)).clamp_min(0.2)

    largest = outline(torch.linspace(0, 2 * math.pi, 256)).max()
    return 0.9 * outline(angle) / largest - radius


def _noise_shape(generator: torch.Generator) -> Tensor:
    """Thresholded smooth noise within a disc: coasts, islands, lakes."""
    x, y = _grid()
    cells = _integer(generator, 4, 9)
    coarse = torch.randn((1, 1, cells, cells), generator=generator)
    noise = torch.nn.functional.interpolate(coarse, size=(TILE, TILE), mode="bicubic", align_corners=True)[0, 0]
    radius = (x.square() + y.square()).sqrt()
    return torch.minimum(0.25 * noise + _uniform(generator, 0.05, 0.25), 0.9 - radius)


def _polygon(generator: torch.Generator) -> Tensor:
    """A convex polygon: the inside of 3 to 8 lines."""
    x, y = _grid()
    count = _integer(generator, 3, 8)
    field = 0.92 - (x.square() + y.square()).sqrt()
    for index in range(count):
        angle = 2 * math.pi * (index + _uniform(generator, -0.3, 0.3)) / count
        field = torch.minimum(field, _uniform(generator, 0.35, 0.85) - x * math.cos(angle) - y * math.sin(angle))
    return field


def _box(generator: torch.Generator) -> Tensor:
    x, y = _turned(generator)
    long = _uniform(generator, 0.55, 0.85)
    wide = min(_uniform(generator, 0.2, 0.8), math.sqrt(0.9**2 - long**2))
    return torch.minimum(long - x.abs(), wide - y.abs())


def _star(generator: torch.Generator) -> Tensor:
    """A polygon with alternating radii or with corners at random radii, not convex."""
    x, y = _turned(generator)
    corners = 2 * _integer(generator, 3, 7)
    radii = 0.9 * (0.3 + 0.7 * torch.rand(corners, generator=generator))
    if _uniform(generator, 0, 1) < 0.5:
        radii[::2], radii[1::2] = 0.9, _uniform(generator, 0.3, 0.7)
    turn = torch.atan2(y, x) / (2 * math.pi) % 1 * corners
    sector = turn.floor().long() % corners
    step = 2 * math.pi / corners
    inner = (turn - turn.floor()) * step
    # The side between corner radii a and b, a sector of angle `step` apart, at the polar angle `inner` from a.
    a, b = radii[sector], radii[(sector + 1) % corners]
    side = a * b * math.sin(step) / (a * torch.sin(inner) + b * torch.sin(step - inner))
    return side - (x.square() + y.square()).sqrt()


def _thin(generator: torch.Generator) -> Tensor:
    """Bars, rings, arcs, fences, grids and branches."""
    x, y = _turned(generator)
    radius = (x.square() + y.square()).sqrt()
    choice = _integer(generator, 0, 4)
    if choice == 0:
        return torch.minimum(_uniform(generator, 0.7, 0.88) - x.abs(), _uniform(generator, 0.04, 0.12) - y.abs())
    if choice == 1:
        width = _uniform(generator, 0.04, 0.12)
        ring = width - (radius - _uniform(generator, 0.5, 0.9 - width)).abs()
        if _uniform(generator, 0, 1) < 0.5:
            ring = torch.minimum(ring, y + _uniform(generator, -0.2, 0.5))
        return ring
    if choice in (2, 3):
        period = _uniform(generator, 0.2, 0.45)
        width = _uniform(generator, 0.14, 0.26) * period
        bars = width - ((x / period - (x / period).round()) * period).abs()
        if choice == 3:
            bars = torch.maximum(bars, width - ((y / period - (y / period).round()) * period).abs())
        else:
            bars = torch.maximum(bars, width - ((y / 0.6 - (y / 0.6).round()) * 0.6).abs())
        edge = _uniform(generator, 0.45, 0.62)
        return torch.minimum(bars, edge - torch.maximum(x.abs(), y.abs()))
    field = torch.full_like(x, -1.0)
    ends = [(0.0, -0.85, math.pi / 2)]
    for _ in range(_integer(generator, 4, 9)):
        px, py, heading = ends[_integer(generator, 0, len(ends) - 1)]
        heading += _uniform(generator, -0.9, 0.9)
        length, width = _uniform(generator, 0.3, 0.6), _uniform(generator, 0.03, 0.07)
        along = ((x - px) * math.cos(heading) + (y - py) * math.sin(heading)).clamp(0, length)
        gap = ((x - px - along * math.cos(heading)).square() + (y - py - along * math.sin(heading)).square()).sqrt()
        field = torch.maximum(field, width - gap)
        ends.append((px + length * math.cos(heading), py + length * math.sin(heading), heading))
    return torch.minimum(field, 0.92 - radius)


def _blob_with_holes(generator: torch.Generator) -> Tensor:
    x, y = _grid()
    field = _blob(generator) if _uniform(generator, 0, 1) < 0.5 else _box(generator)
    for _ in range(_integer(generator, 1, 4)):
        cx, cy = _uniform(generator, -0.5, 0.5), _uniform(generator, -0.5, 0.5)
        hole = ((x - cx).square() + (y - cy).square()).sqrt() - _uniform(generator, 0.1, 0.28)
        field = torch.minimum(field, hole)
    return field
