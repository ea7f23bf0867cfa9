"""Pairs of frames with exact flow, rendered in batches on a CPU or a GPU.

A scene is a background and a stack of layers. Layer l shows a texture through a shape; both are fixed to the layer's
own plane. With p a pixel of frame 1 [px],

    D_l   a small smooth deformation, a sum of sine products with |grad D| < 0.3,
    M_l   the layer's motion, a homography: its own similarity, shear and perspective, after which the camera's,

the point of the plane seen at p in frame 1 is p + D_l(p), and the one seen at p in frame 2 is M_l^-1(p). Hence

    flow           = M_l(p + D_l(p)) - p                                  in closed form,
    backward flow  = q - p  with  q + D_l(q) = M_l^-1(p)                  a contraction, iterated to < 0.01 px.

Nothing is resampled: both frames read the textures directly, so the flow is exact, not the flow of a warped picture.
Each frame is shaded once: shapes are evaluated only in the 16 x 16 blocks that a layer can touch, the two topmost
layers of every pixel are kept, and only these look up their texture (the second one only under an edge).

Leads: FlyingChairs (Dosovitskiy et al., ICCV 2015), AutoFlow (Sun et al., 2104.14544), Kubric and "The Devil in the
Details" (2308.07378) for the mixture of motions and effects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from featherflow.data.effects import EffectsConfig, apply_effects
from featherflow.data.shapes import TILE, ShapeBank, default_shapes
from featherflow.data.textures import PARTICLES, PHOTO, PROCEDURAL, TextureBank
from featherflow.errors import InputError

BLOCK = 16
"""Side of the square blocks in which shapes are evaluated [px]."""

CHUNK = 200_000
"""Pixels of a frame that are rendered at a time on a CPU, rounded down to whole samples."""

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

    photo: float = 0.75
    """Share of textures taken from photographs, where the bank has any."""
    texture_zoom: tuple[float, float] = (0.6, 1.3)
    """Texels per pixel, drawn log-uniformly. Well below 0.6 frames look blurred; above 1.5 they shimmer."""

    effects: EffectsConfig | None = field(default_factory=EffectsConfig)
    """Everything that happens to the finished frames; None leaves them as rendered."""

    def __post_init__(self):
        if self.height < BLOCK or self.width < BLOCK:
            raise InputError(f"frames must be at least {BLOCK}x{BLOCK}, got {self.height}x{self.width}")
        if not 0 <= self.layers[0] <= self.layers[1] <= 120:
            raise InputError(f"layers must be a range within 0..120, got {self.layers}")


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

    def part(self, begin: int, end: int) -> PairBatch:
        """Views of the samples begin..end, the last left out."""
        values = (getattr(self, entry.name) for entry in fields(self))
        return PairBatch(*(None if value is None else value[begin:end] for value in values))


@torch.no_grad()
def render_pairs(
    batch_size: int,
    config: SceneConfig | None = None,
    textures: TextureBank | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    backward: bool = True,
    shapes: ShapeBank | None = None,
) -> PairBatch:
    """Render a batch of pairs: the same for the same generator state, configuration, banks and device.

    Args:
        batch_size: B.
        config: what to render; `SceneConfig()` when left out.
        textures: where surfaces come from; a procedural bank made once per process when left out.
        generator: source of all randomness, on any device; a freshly seeded one when left out.
        device: where to render. Scenes are drawn on the generator's device, which may be another.
        backward: also give the backward flow and its occlusion (about twice the time).
        shapes: outlines of the layers; a bank made once per process when left out.
    """
    config = config if config is not None else SceneConfig()
    textures = textures if textures is not None else _default_textures()
    shapes = shapes if shapes is not None else default_shapes()
    if batch_size < 1:
        raise InputError(f"a batch holds at least one pair, got {batch_size}")
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    scene = _draw_scene(batch_size, config, textures, shapes, generator, torch.device(device))
    # On a CPU a few samples at a time: with larger temporaries the allocator returns its pages to the system after
    # every operation, and getting them back costs as much as the arithmetic.
    few = batch_size if scene.motion.is_cuda else max(1, CHUNK // (config.height * config.width))
    frames = torch.empty((2 * batch_size, 3, config.height, config.width), device=device)
    pairs = _blank(frames, backward)
    for begin in range(0, batch_size, few):
        _render(scene.part(begin, begin + few), textures, shapes, pairs.part(begin, begin + few))
    if config.effects is not None:
        apply_effects(frames, pairs.flow, config.effects, generator)
    return pairs


def _blank(frames: Tensor, backward: bool) -> PairBatch:
    """Memory for a batch; the frames are views of `frames` `(2B, 3, H, W)`, frame 1 first."""
    batch, _, height, width = (len(frames) // 2, *frames.shape[1:])

    def flow() -> Tensor:
        return frames.new_empty((batch, 2, height, width))

    def mask() -> Tensor:
        return torch.empty((batch, 1, height, width), dtype=torch.bool, device=frames.device)

    both_ways = (flow(), mask()) if backward else (None, None)
    return PairBatch(frames[:batch], frames[batch:], flow(), mask(), mask(), *both_ways)


@lru_cache(maxsize=1)
def _default_textures() -> TextureBank:
    return TextureBank.procedural(48, 256)


# --- Drawing a scene: small tables, one column per (sample, layer), layer 0 being the background ---


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
    """`(6, N)`: from p + D(p) to texels, two rows of an affine map."""
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
    """`(N,)` half the smaller side of the shape's tile [px]."""

    def part(self, begin: int, end: int) -> Scene:
        """The scenes of the samples begin..end, the last left out."""
        columns = slice(begin * self.layers, end * self.layers)
        tables = [getattr(self, entry.name)[..., columns].contiguous() for entry in fields(self)[3:]]
        return Scene(min(end, self.batch) - begin, self.layers, self.waves[begin:end], *tables)


class _Draw:
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


def _draw_scene(
    batch: int, config: SceneConfig, textures: TextureBank, shapes: ShapeBank, generator: torch.Generator, device: torch.device
) -> Scene:
    draw = _Draw(generator)
    height, width, layers = config.height, config.width, max(config.layers[1], 3) + 1
    unit, side = width / 256, math.sqrt(height * width)
    size = torch.tensor((width, height), dtype=torch.float64, device=draw.device)

    kind = draw.uniform(batch)
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
        * draw.chance(batch, layers, p=config.deformable),
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
    texture = _translation(offset) @ texture @ _translation(-middle)
    turn = draw.uniform(batch, layers, high=2 * math.pi)
    cos, sin = turn.cos(), turn.sin()
    to_shape = _matrix(
        [[cos / half[..., 0], sin / half[..., 0], 0.0], [-sin / half[..., 1], cos / half[..., 1], 0.0], [0.0, 0.0, 1.0]]
    ) @ _translation(-centre)
    index = _draw_textures(draw, batch, layers, tracers, config, textures)
    scale = 2 * (half[..., 0] * half[..., 1]).sqrt() / TILE * present
    stretch = torch.linalg.det(motion[..., :2, :2]).abs().sqrt()

    def columns(values: Tensor, rows: int) -> Tensor:
        return values.reshape(batch * layers, -1).t()[:rows].float().contiguous().to(device)

    return Scene(
        batch,
        layers,
        waves.float().to(device),
        columns(amplitude.transpose(-1, -2), 2 * WAVES),
        columns(motion, 9),
        columns(_normalised(inverse), 9),
        columns(texture, 6),
        columns(_normalised(texture @ inverse), 9),
        index.reshape(-1).to(device),
        columns(to_shape, 6),
        columns(_normalised(to_shape @ inverse), 9),
        draw.integer(batch, layers, low=0, high=shapes.count - 1).reshape(-1).to(device),
        scale.reshape(-1).float().to(device),
        (scale * stretch).reshape(-1).float().to(device),
        half.amin(-1).reshape(-1).float().to(device),
    )


def _normalised(matrix: Tensor) -> Tensor:
    return matrix / matrix[..., 2:, 2:]


def _draw_textures(draw: _Draw, batch: int, layers: int, tracers: Tensor, config: SceneConfig, textures: TextureBank) -> Tensor:
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


# --- Rendering ---


def _render(scene: Scene, textures: TextureBank, shapes: ShapeBank, pairs: PairBatch) -> None:
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
        return _texel(
            words,
            side,
            scene.texture_index.index_select(0, layer),
            _linear(scene.texture[:3], layer, qx, qy),
            _linear(scene.texture[3:], layer, qx, qy),
        )

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
    if pairs.flow_backward is not None:
        from_x, from_y = _undeform(scene, owner2, *_map_by(scene.inverse_motion, owner2, x, y), height * width)
        write(pairs.flow_backward, pairs.occluded_backward, from_x, from_y, owner2, owner1)


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
    for new, where in zip(key.split(per_layer), place.split(per_layer), strict=True):
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
