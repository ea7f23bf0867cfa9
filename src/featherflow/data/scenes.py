"""Drawing scenes for the procedural generator: what stands where, how it moves and what it shows, as small tables.

One column of a table is one layer of one sample; layer 0 is the background. Everything is drawn and composed in float64
and rounded once. `procedural` says what the tables mean, `rendering` turns them into frames and flow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from ..errors import InputError
from .effects import EffectsConfig
from .shapes import TILE, ShapeBank
from .space import LINES, draw_space
from .textures import PARTICLES, PHOTO, PROCEDURAL, TextureBank

BLOCK = 16
"""Side of the square blocks in which shapes are evaluated, and the smallest side of a frame [px]."""

WAVES = 4
"""Sine products in a deformation."""

MAX_GRADIENT = 0.28
"""Bound on the Frobenius norm of grad D: it makes p + D(p) invertible and its inverse a fast iteration."""


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like and how they move. Lengths are in pixels of the frame; those marked [px/256] are given
    for a width of 256 and grow in proportion to the width. A pair of numbers is a range, drawn uniformly unless said
    otherwise."""

    height: int = 192
    """Of the frames [px]."""
    width: int = 256
    """Of the frames [px]."""

    particles: float = 0.12
    """Share of scenes that are one plane of tracer particles in a smooth strong deformation (PIV)."""
    camera: float = 0.10
    """Share of scenes with at most three layers and a larger global rotation and zoom. The others are `layers`."""
    depth: float = 0.0
    """Share of scenes with depth, see `space`: a camera moves among a ground, walls and boards, which are the `layers`. What
    follows holds for them too, but for `camera`, `expansion` and `max_zoom`; the shares of other scenes are shares of the rest."""
    layers: tuple[int, int] = (5, 14)
    """Number of layers over the background in a `layers` scene; at most 120."""
    layer_size: tuple[float, float] = (0.10, 0.80)
    """Diameter of a layer over sqrt(height * width), drawn log-uniformly."""

    small: tuple[float, float] = (0.42, 1.2)
    """Share of small motions and the mean of their exponential distribution [px]: many are below a pixel."""
    medium: tuple[float, float] = (0.33, 6.0)
    """Share of medium motions and their exponential mean [px/256]."""
    large: float = 20.0
    """Exponential mean of all other motions [px/256]."""
    cap: float = 0.35
    """Longest translation of a layer, over the width."""
    static_camera: float = 0.18
    """Share of scenes whose camera stands still."""
    static_layer: float = 0.2
    """Share of layers that move with the camera only."""
    stray_layer: float = 0.1
    """Share of layers whose speed is drawn afresh, not near the scene's."""
    expansion: float = 0.15
    """Share of scenes in which the camera moves along its axis: a zoom about a point near the centre."""
    max_zoom: float = 0.15
    """Largest expansion, as a change of scale."""
    deformable: float = 0.4
    """Share of layers that deform."""
    deformation: float = 0.35
    """Amplitude of a deformation over the magnitude of the scene's motion, at most."""
    tracer_flow: float = 6.0
    """Largest amplitude of the deformation of particle scenes [px/256]."""
    unpaired: float = 0.0
    """Brightness of particles that one frame of a particle scene alone shows, at most, as a share of that of the others."""

    photo: float = 0.75
    """Share of textures taken from photographs, where the bank has any."""
    texture_zoom: tuple[float, float] = (0.6, 1.3)
    """Texels per pixel, drawn log-uniformly. Well below 0.6 frames look blurred; above 1.5 they shimmer."""

    effects: EffectsConfig | None = field(default_factory=EffectsConfig)
    """Everything that happens to the finished frames; None leaves them as rendered."""

    def __post_init__(self):
        if self.height < BLOCK or self.width < BLOCK:
            raise InputError(f"frames must be at least {BLOCK}x{BLOCK}, got {self.height}x{self.width}")
        if not 0 <= self.depth <= 1:
            raise InputError(f"depth is a share of scenes, within 0..1, got {self.depth}")
        if not 0 <= self.unpaired <= 1:
            raise InputError(f"unpaired is a share of brightness, within 0..1, got {self.unpaired}")
        if not 0 <= self.layers[0] <= self.layers[1] <= 120:
            raise InputError(f"layers must be a range within 0..120, got {self.layers}")


@dataclass
class Scene:
    """Numbers that fix a batch of scenes. N = B * L columns, layer-minor; homographies are row-major with h22 = 1."""

    batch: int
    layers: int
    waves: Tensor
    """`(B, K, 4)`: angular frequency in x [rad/px], phase, angular frequency in y, phase."""
    amplitude: Tensor
    """`(2K, N)`: of the K waves in x, then in y [px]."""
    motion: Tensor
    """`(9, N)`: M."""
    inverse_motion: Tensor
    """`(9, N)`: M^-1."""
    texture: Tensor
    """`(9, N)`: from p + D(p) to texels."""
    texture2: Tensor
    """`(9, N)`: from a pixel of frame 2 to texels."""
    texture_index: Tensor
    """`(N,)` integer."""
    shape: Tensor
    """`(6, N)`: from p + D(p) to shape coordinates in [-1, 1]."""
    shape2: Tensor
    """`(9, N)`: from a pixel of frame 2 to shape coordinates."""
    shape_index: Tensor
    """`(N,)` integer."""
    scale: Tensor
    """`(N,)` pixels per texel of the shape's tile; 0 for an absent layer."""
    scale2: Tensor
    """`(N,)` the same in frame 2."""
    radius: Tensor
    """`(N,)` half the smaller side of the shape's tile [px], in the frame where it is smaller."""
    bounded: Tensor
    """`(N,)` bool: a plane without an outline, seen where all its lines are positive; its amplitude is zero."""
    lines: Tensor
    """`(3 * LINES, N)`: a, b, c of each line; a x + b y + c is the distance of a pixel of frame 1 from it [px]."""
    lines2: Tensor
    """`(3 * LINES, N)` the same in frame 2."""

    def backgrounds(self) -> Tensor:
        """`(B,)` integer: the texture of each sample's background."""
        return self.texture_index.view(self.batch, self.layers)[:, 0]

    def part(self, begin: int, end: int) -> Scene:
        """The scenes of the samples begin..end, the last left out."""
        columns = slice(begin * self.layers, end * self.layers)
        tables = [getattr(self, entry.name)[..., columns].contiguous() for entry in fields(self)[3:]]
        return Scene(min(end, self.batch) - begin, self.layers, self.waves[begin:end], *tables)


class Draw:
    """Random numbers from one generator, in float64: geometry is composed exactly and rounded once."""

    def __init__(self, generator: torch.Generator):
        self.generator, self.device = generator, generator.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.rand(shape, generator=self.generator, device=self.device, dtype=torch.float64)
        return drawn.mul_(high - low).add_(low)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp_()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float64)

    def exponential(self, *shape: int) -> Tensor:
        return -self.uniform(*shape).clamp_min_(1e-12).log_()

    def chance(self, *shape: int, p: float) -> Tensor:
        return self.uniform(*shape) < p

    def integer(self, *shape: int, low: int, high: int) -> Tensor:
        """Of low..high, both included."""
        return (self.uniform(*shape) * (high - low + 1)).floor().long().clamp_(max=high - low) + low

    def direction(self, *shape: int) -> Tensor:
        """`(*shape, 2)` unit vectors."""
        angle = self.uniform(*shape, high=2 * math.pi)
        return torch.stack((angle.cos(), angle.sin()), -1)

    def magnitude(self, *shape: int, config: SceneConfig) -> Tensor:
        """The heavy-tailed mixture of motion magnitudes [px]."""
        unit = config.width / 256
        which = self.uniform(*shape)
        mean = torch.full_like(which, config.large * unit)
        mean[which < config.small[0] + config.medium[0]] = config.medium[1] * unit
        mean[which < config.small[0]] = config.small[1]
        return (self.exponential(*shape) * mean).clamp_(max=config.cap * config.width)


def _matrix(rows: list[list[Tensor | float]]) -> Tensor:
    """Matrices of the shape of the first tensor found, from scalars and tensors."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    entries = [entry if isinstance(entry, Tensor) else like.new_full((), entry) for row in rows for entry in row]
    return torch.stack(torch.broadcast_tensors(*entries), -1).unflatten(-1, (len(rows), len(rows[0])))


def _translation(offset: Tensor) -> Tensor:
    one = torch.ones_like(offset[..., 0])
    return _matrix([[one, 0.0, offset[..., 0]], [0.0, one, offset[..., 1]], [0.0, 0.0, one]])


def _homography(centre: Tensor, shift: Tensor, angle: Tensor, zoom: Tensor, shear: Tensor, perspective: Tensor):
    """About `centre`: turn [rad], scale by exp(zoom), shear, tilt by `perspective` [1/px], then shift [px]."""
    cos, sin, scale, one = angle.cos(), angle.sin(), zoom.exp(), torch.ones_like(angle)
    about = _matrix(
        [
            [scale * (cos + shear), -scale * sin, 0.0],
            [scale * sin, scale * (cos - shear), 0.0],
            [perspective[..., 0], perspective[..., 1], one],
        ]
    )
    return _translation(centre + shift) @ about @ _translation(-centre)


def draw_scene(
    batch: int, config: SceneConfig, textures: TextureBank, shapes: ShapeBank, generator: torch.Generator, device: torch.device
) -> Scene:
    draw = Draw(generator)
    height, width, layers = config.height, config.width, max(config.layers[1], 3) + 1
    unit, side = width / 256, math.sqrt(height * width)
    size = torch.tensor((width, height), dtype=torch.float64, device=draw.device)

    # Scenes with depth are drawn as the others at first; where they differ is then replaced.
    deep = draw.chance(batch, p=config.depth).nonzero().flatten() if config.depth > 0 else []
    kind = draw.uniform(batch)
    kind[deep] = 2.0
    tracers = kind < (config.particles if (textures.kinds == PARTICLES).any() else 0.0)
    orbit = (kind >= config.particles) & (kind < config.particles + config.camera)
    count = draw.integer(batch, low=config.layers[0], high=config.layers[1])
    count = torch.where(orbit, draw.integer(batch, low=0, high=min(3, config.layers[1])), count)
    count = torch.where(tracers, 0, count)

    # The camera: one homography about a point near the centre.
    magnitude = draw.magnitude(batch, config=config)
    camera_on = (~draw.chance(batch, p=config.static_camera)).double()
    speed = magnitude * draw.uniform(batch, low=0.3, high=1.1)
    pan = draw.direction(batch) * (speed * camera_on * torch.where(orbit, 0.7, 1.0))[:, None]
    swing = torch.where(orbit, 1.0, 0.3) * camera_on * torch.where(tracers, 0.2, 1.0)
    angle = (draw.normal(batch) * 0.6 * magnitude / (width / 2) * swing).clamp(-0.3, 0.3)
    zoom = (draw.normal(batch) * 0.5 * magnitude / (width / 2) * swing).clamp(-config.max_zoom, config.max_zoom)
    approach = draw.chance(batch, p=config.expansion) & ~tracers
    ahead = (magnitude * draw.uniform(batch, low=0.6, high=2.0) / (0.3 * width)).clamp(max=config.max_zoom)
    ahead = ahead * torch.where(draw.chance(batch, p=0.8), 1.0, -1.0)
    zoom = torch.where(approach, ahead, zoom)
    pan = pan * torch.where(approach, 0.25, 1.0)[:, None]
    shear = (draw.normal(batch) * 0.15 * magnitude / (width / 2) * swing).clamp(-0.1, 0.1)
    tilt = (draw.normal(batch, 2) * (0.1 * magnitude / (width / 2) ** 2 * swing)[:, None]).clamp(-0.15 / width, 0.15 / width)
    focus = size * (0.5 + 0.12 * draw.normal(batch, 2)).clamp(0.1, 0.9)
    camera = _homography(focus, pan, angle, zoom, shear, tilt)

    # Layers from back to front, large ones rather at the back.
    extent = draw.log_uniform(batch, layers, low=config.layer_size[0], high=config.layer_size[1]) * side
    rank = (extent.log() + 0.5 * draw.normal(batch, layers)).argsort(1, descending=True)
    extent = extent.gather(1, rank) / 2
    aspect = (0.3 * draw.normal(batch, layers)).clamp(-0.6, 0.6).exp()
    half = torch.stack((extent * aspect.sqrt(), extent / aspect.sqrt()), -1) / 0.9
    centre = size * draw.uniform(batch, layers, 2, low=-0.05, high=1.05)
    present = torch.arange(layers, device=draw.device) <= count[:, None]

    # Their own motion: mostly near the scene's magnitude, some still, some drawn afresh.
    own = magnitude[:, None] * (0.7 * draw.normal(batch, layers)).exp()
    own = torch.where(draw.chance(batch, layers, p=config.stray_layer), draw.magnitude(batch, layers, config=config), own)
    moving = ~draw.chance(batch, layers, p=config.static_layer)
    moving[:, 0] = False
    own = own * moving
    shift = draw.direction(batch, layers) * own[..., None] + pan[:, None]
    length = torch.linalg.vector_norm(shift, dim=-1, keepdim=True).clamp_min(1e-9)
    shift = shift * (config.cap * width / length).clamp(max=1.0) - pan[:, None]
    relative = own / extent
    motion = camera[:, None] @ _homography(
        centre,
        shift,
        angle=(0.35 * draw.normal(batch, layers) * relative).clamp(-0.4, 0.4),
        zoom=(0.25 * draw.normal(batch, layers) * relative).clamp(-0.2, 0.2),
        shear=(0.12 * draw.normal(batch, layers) * relative).clamp(-0.12, 0.12),
        perspective=(0.06 * draw.normal(batch, layers, 2) * (relative / extent)[..., None]).clamp(-0.15 / width, 0.15 / width),
    )
    still = torch.eye(3, dtype=torch.float64, device=draw.device)
    motion = torch.where((motion[..., 2, 2].abs() > 0.3)[..., None, None], motion, still)
    motion = motion / motion[..., 2:, 2:]
    stretch = torch.linalg.det(motion[..., :2, :2]).abs().sqrt()
    bends, slack = torch.ones_like(present), torch.ones_like(stretch)
    bounded = torch.zeros_like(present)
    lines = torch.zeros(batch, layers, LINES, 3, dtype=torch.float64, device=draw.device)
    lines2, lean = lines, lines[..., 0, :2]
    if len(deep):
        space = draw_space(draw, config, magnitude[deep], own[deep], half[deep], count[deep])
        lines2, lean = lines.clone(), lean.clone()
        motion[deep], stretch[deep] = _normalised(space.motion), space.stretch
        centre[deep], half[deep], present[deep], bends[deep] = space.centre, space.half, space.outlined, space.moving
        bounded[deep], lean[deep] = space.bounded, space.lean
        lines[deep] = _unit_normals(space.lines)
        lines2[deep] = _unit_normals(space.lines @ torch.linalg.inv(space.motion))
        slack[deep] = space.stretch.clamp(0.2, 1.0)
    inverse = torch.linalg.inv(motion)

    # Deformation: K waves per sample, shared by its layers, with amplitudes of their own.
    wavelength = (
        torch.where(
            tracers[:, None, None],
            draw.log_uniform(batch, WAVES, 2, low=0.12, high=1.6),
            draw.log_uniform(batch, WAVES, 2, low=0.3, high=1.2),
        )
        * width
    )
    frequency = 2 * math.pi / wavelength
    phase = draw.uniform(batch, WAVES, 2, high=2 * math.pi)
    waves = torch.stack((frequency[..., 0], phase[..., 0], frequency[..., 1], phase[..., 1]), -1)
    share = draw.exponential(batch, layers, WAVES)
    share = share / share.sum(-1, keepdim=True)
    # Vectors along (fy, -fx) have no divergence, as in a liquid; other layers bend in any direction.
    eddy = torch.stack((frequency[..., 1], -frequency[..., 0]), -1)
    eddy = eddy / torch.linalg.vector_norm(eddy, dim=-1, keepdim=True)
    heading = torch.where(tracers[:, None, None, None], eddy[:, None], draw.direction(batch, layers, WAVES))
    steepest = MAX_GRADIENT * share / frequency.amax(-1)[:, None]
    wanted = torch.where(
        tracers[:, None],
        draw.uniform(batch, layers, low=0.1) * config.tracer_flow * unit,
        draw.uniform(batch, layers)
        * config.deformation
        * torch.maximum(own, magnitude[:, None])
        * draw.chance(batch, layers, p=config.deformable)
        * bends,
    )
    strength = torch.minimum(wanted[..., None] * share, steepest)
    amplitude = strength[..., None] * heading

    # What the layers show. A texture is turned a little and mirrored half the time.
    texels = draw.log_uniform(batch, layers, low=config.texture_zoom[0], high=config.texture_zoom[1])
    texels = torch.where(tracers[:, None], draw.uniform(batch, layers, low=0.8, high=1.1), texels)
    turn = 0.25 * draw.normal(batch, layers)
    mirror = torch.where(draw.chance(batch, layers, p=0.5), 1.0, -1.0)
    cos, sin = texels * turn.cos(), texels * turn.sin()
    texture = _matrix([[mirror * cos, -mirror * sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    # Where in the texture a layer's centre lies: anywhere that keeps the layer within it, if it can.
    middle = torch.cat((size.expand(batch, 1, 2) / 2, centre[:, 1:]), 1)
    margin = torch.cat((size.amax().expand(batch, 1) / 2, half[:, 1:].amax(-1)), 1) * texels
    margin = margin.clamp(max=textures.size / 2)[..., None]
    offset = margin + draw.uniform(batch, layers, 2) * (textures.size - 2 * margin)
    if len(deep):
        texture = texture @ _matrix([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [lean[..., 0], lean[..., 1], 1.0]])
    texture = _translation(offset) @ texture @ _translation(-middle)
    turn = draw.uniform(batch, layers, high=2 * math.pi)
    cos, sin = turn.cos(), turn.sin()
    to_shape = _matrix(
        [[cos / half[..., 0], sin / half[..., 0], 0.0], [-sin / half[..., 1], cos / half[..., 1], 0.0], [0.0, 0.0, 1.0]]
    ) @ _translation(-centre)
    index = _draw_textures(draw, batch, layers, tracers, config, textures)
    scale = 2 * (half[..., 0] * half[..., 1]).sqrt() / TILE * present

    def columns(values: Tensor, rows: int) -> Tensor:
        return values.reshape(batch * layers, -1).t()[:rows].float().contiguous().to(device)

    return Scene(
        batch,
        layers,
        waves.float().to(device),
        columns(amplitude.transpose(-1, -2), 2 * WAVES),
        columns(motion, 9),
        columns(_normalised(inverse), 9),
        columns(_normalised(texture), 9),
        columns(_normalised(texture @ inverse), 9),
        index.reshape(-1).to(device),
        columns(to_shape, 6),
        columns(_normalised(to_shape @ inverse), 9),
        draw.integer(batch, layers, low=0, high=shapes.count - 1).reshape(-1).to(device),
        scale.reshape(-1).float().to(device),
        (scale * stretch).reshape(-1).float().to(device),
        (half.amin(-1) * slack).reshape(-1).float().to(device),
        bounded.reshape(-1).to(device),
        columns(lines, 3 * LINES),
        columns(lines2, 3 * LINES),
    )


def _unit_normals(lines: Tensor) -> Tensor:
    """Lines `(..., 3)` scaled so that their value at a pixel is its distance [px]."""
    return lines / torch.linalg.vector_norm(lines[..., :2], dim=-1, keepdim=True).clamp_min(1e-12)


def _normalised(matrix: Tensor) -> Tensor:
    return matrix / matrix[..., 2:, 2:]


def _draw_textures(draw: Draw, batch: int, layers: int, tracers: Tensor, config: SceneConfig, textures: TextureBank) -> Tensor:
    """`(B, L)` indices: without repetition within a sample as far as the bank allows."""

    def distinct(kind: int) -> Tensor | None:
        among = textures.indices(kind, draw.device)
        if len(among) == 0:
            return None
        order = draw.uniform(batch, len(among)).argsort(1)
        return among[order[:, torch.arange(layers, device=draw.device) % len(among)]]

    photos, drawn, particles = (distinct(kind) for kind in (PHOTO, PROCEDURAL, PARTICLES))
    from_photo = draw.chance(batch, layers, p=config.photo)
    if photos is not None and drawn is not None:
        chosen = torch.where(from_photo, photos, drawn)
    else:
        chosen = next(indices for indices in (photos, drawn, particles) if indices is not None)
    return chosen if particles is None else torch.where(tracers[:, None], particles, chosen)
