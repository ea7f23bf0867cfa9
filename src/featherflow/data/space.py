"""Scenes with depth: a pinhole camera that moves among planes in space.

In pixels p = (x, y, 1) of frame 1 the inverse depth of a plane is linear, 1 / Z = r p, so a plane is one row r [1/unit/px].
With K the camera's matrix and X2 = R X1 + t its motion (or a board's own motion followed by it), the plane moves by the homography

    H = K R K^-1 + (K t) r                     equal to K (R - t n^T / d) K^-1 with r = -n^T K^-1 / d,

whose denominator w = Z2 / Z1 must stay positive. Motions are bounded so that it does over the whole frame, for every plane.

    backdrop   covers the frame: the sky, the end of a street, the back of a room
    ground, ceiling, walls
               meet in one vanishing point. Where two planes meet, r_a p = r_b p is a line, which is why their regions are given
               by lines: of the planes that a ray meets, the nearest is seen, on both sides of a corner and in both frames
    boards     flat things with an outline, upright or slanted, in front of all planes behind them, painted from far to near;
               some move by themselves, rigidly, and only these deform

One unit of depth is that of the ground at the lower edge of frame 1. The picture on a plane is any picture in perspective: that
of a ground is foreshortened towards the horizon, but less than a real one would be, so that it is sampled without aliasing.

Lead: "plane plus parallax" (Irani & Anandan, 1996); Hartley & Zisserman, Multiple View Geometry, section 13.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .scenes import Draw, SceneConfig

DRIVE, TRACK, ORBIT, SHAKE = 0, 1, 2, 3
"""Motions of the camera: along the vanishing point; sideways; about a point ahead; a turn of the hand with little translation."""

KINDS = (0.45, 0.7, 0.82, 1.0)
"""Shares of these motions, summed up."""

BUSY = 0.55
"""Share of scenes in which boards move by themselves; where the camera stands still, they do in any case."""

LINES = 4
"""Lines that bound the region of a plane, at most."""

NEAREST = 0.5
"""Largest step of the camera along its axis, over the depth of the nearest point of any plane over the frame: w > 1 - 0.5."""

APPROACH = 0.12
"""Largest step of a board along the axis by itself, over its depth."""

STEEPEST = 0.9
"""How far the inverse depth of a slanted board may rise over the whole frame, relative to that at its centre."""

FORESHORTENING = 0.35
"""Largest change of the size of a ground's or wall's picture from the middle of the frame to its far end."""


@dataclass(frozen=True)
class Space:
    """n scenes of L columns: backdrop, ground, ceiling, two walls as far as there is room for them, then boards.

    Everything is float64, in pixels and in units of depth."""

    intrinsics: Tensor
    """`(n, 3, 3)`: K."""
    rotation: Tensor
    """`(n, 3, 3)`: R of the camera's motion."""
    translation: Tensor
    """`(n, 3)`: t of the camera's motion."""
    inverse_depth: Tensor
    """`(n, L, 3)`: r, in frame 1."""
    motion: Tensor
    """`(n, L, 3, 3)`: H, with the true scale of its denominator."""
    moving: Tensor
    """`(n, L)` bool: a board that moves by itself."""
    centre: Tensor
    """`(n, L, 2)` of the boards in frame 1 [px]."""
    half: Tensor
    """`(n, L, 2)` half the sides of the boards' tiles in frame 1 [px]."""
    outlined: Tensor
    """`(n, L)` bool: a board that is there."""
    bounded: Tensor
    """`(n, L)` bool: a ground, ceiling or wall that is there."""
    lines: Tensor
    """`(n, L, LINES, 3)`: a bounded plane is seen where all are positive in frame 1."""
    stretch: Tensor
    """`(n, L)`: how much longer lengths are in frame 2, about the centre."""
    lean: Tensor
    """`(n, L, 2)`: perspective of the pictures on the planes about the middle of the frame [1/px]."""


@dataclass(frozen=True)
class _Stage:
    """What stands where, before anything moves: the fields of `Space` of the same names, and the vanishing point `(n, 2)`."""

    vanishing: Tensor
    inverse_depth: Tensor
    centre: Tensor
    half: Tensor
    outlined: Tensor
    bounded: Tensor
    lines: Tensor

    @property
    def there(self) -> Tensor:
        """`(n, L)` bool: what is in the scene at all; the backdrop always is."""
        there = self.outlined | self.bounded
        there[:, 0] = True
        return there


def draw_space(draw: Draw, config: SceneConfig, magnitude: Tensor, own: Tensor, half: Tensor, count: Tensor) -> Space:
    """Scenes whose displacements follow the same distribution as those of the other scenes.

    Args:
        draw: source of randomness.
        config: size of the frames, cap, and the share of cameras that stand still.
        magnitude: `(n,)` of the scenes' motions [px].
        own: `(n, L)` of the layers' own motions [px], zero for those that move with the camera only.
        half: `(n, L, 2)` of the layers' tiles [px].
        count: `(n,)` boards, as far as there is room for them.
    """
    n, layers = own.shape
    kind = torch.bucketize(draw.uniform(n), torch.tensor(KINDS[:-1], dtype=torch.float64, device=draw.device))
    size = torch.tensor((config.width, config.height), dtype=torch.float64, device=draw.device)
    stage = _stage(draw, kind, half, count, size)
    rows, centre = stage.inverse_depth, stage.centre
    focal = draw.log_uniform(n, low=0.6, high=1.6) * config.width
    intrinsics = torch.zeros(n, 3, 3, dtype=torch.float64, device=draw.device)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2] = size / 2
    intrinsics[:, 2, 2] = 1
    turn, step = _camera(draw, config, kind, intrinsics, stage, magnitude)
    rotation = _rotation(turn)

    # Boards that move by themselves turn about their own centres; their motion comes before the camera's.
    centre3 = _homogeneous(centre)
    seen_to = _moved(intrinsics[:, None], rotation[:, None], step[:, None], rows)
    shown = (seen_to @ centre3[..., None])[..., 0]
    carried = torch.linalg.vector_norm(shown[..., :2] / shown[..., 2:].clamp_min(0.1) - centre, dim=-1)
    own = torch.minimum(own, (config.cap * config.width - carried).clamp_min(0))
    busy = draw.chance(n, p=BUSY) | (step == 0).all(-1)
    moving = stage.outlined & busy[:, None] & (own > 0)
    depth = (rows * centre3).sum(-1).clamp_min(1e-6).reciprocal()
    own_turn, own_step = _movers(draw, kind, own, depth, stage.half, focal, step)
    own_turn, own_step = own_turn * moving[..., None], own_step * moving[..., None]
    point = (centre3 @ torch.linalg.inv(intrinsics).transpose(1, 2)) * depth[..., None]
    own_rotation = _rotation(own_turn)
    own_step = own_step + point - (own_rotation @ point[..., None])[..., 0]
    all_rotation = rotation[:, None] @ own_rotation
    all_step = (rotation[:, None] @ own_step[..., None])[..., 0] + step[:, None]
    motion = _moved(intrinsics[:, None], all_rotation, all_step, rows)

    below = (motion[..., 2, :] * centre3).sum(-1)
    stretch = (torch.linalg.det(motion).abs() / below.abs().clamp_min(1e-3) ** 3).sqrt()

    # Pictures on ground, ceiling and walls grow towards the camera.
    rise = _at(rows, _corners(size)) - _at(rows, _homogeneous(size[None] / 2))
    amount = draw.uniform(n, layers, high=FORESHORTENING) * stage.bounded
    lean = rows[..., :2] * (amount / rise.abs().amax(-1).clamp_min(1e-9))[..., None]
    return Space(
        intrinsics=intrinsics,
        rotation=rotation,
        translation=step,
        inverse_depth=rows,
        motion=motion,
        moving=moving,
        centre=centre,
        half=stage.half,
        outlined=stage.outlined,
        bounded=stage.bounded,
        lines=stage.lines,
        stretch=stretch,
        lean=lean,
    )


def _stage(draw: Draw, kind: Tensor, half: Tensor, count: Tensor, size: Tensor) -> _Stage:
    """Planes first, then boards from far to near, in as many columns as `half` `(n, L, 2)` has."""
    n, layers = half.shape[:2]
    vanishing, rows, bounded, lines = _planes(draw, kind, size, min(4, layers // 2))
    planes = rows.shape[1]
    rows, centre, half, outlined = _boards(draw, vanishing, rows, bounded, half[:, planes:], count, size)
    middle = (size / 2).expand(n, planes, 2)
    everywhere = torch.tensor((0.0, 0.0, 1.0), dtype=torch.float64, device=draw.device)
    return _Stage(
        vanishing,
        rows,
        centre=torch.cat((middle, centre), 1),
        half=torch.cat((middle, half), 1),
        outlined=torch.cat((outlined.new_zeros(n, planes), outlined), 1),
        bounded=torch.cat((bounded, bounded.new_zeros(n, layers - planes)), 1),
        lines=torch.cat((lines, everywhere.expand(n, layers - planes, LINES, 3)), 1),
    )


def _planes(draw: Draw, kind: Tensor, size: Tensor, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backdrop, ground, ceiling and walls, the first `1 + room` of them.

    Returns:
        Vanishing point `(n, 2)`, rows `(n, P, 3)`, which are there and bounded `(n, P)`, lines `(n, P, LINES, 3)`.
    """
    n, drive = len(kind), kind == DRIVE
    width, height = size.tolist()

    def either(driving: float, otherwise: float) -> Tensor:
        return torch.where(drive, driving, otherwise)

    roll = draw.normal(n) * either(0.02, 0.06)
    right = torch.stack((roll.cos(), roll.sin()), -1)
    down = torch.stack((-roll.sin(), roll.cos()), -1)
    spread = draw.uniform(n, 2, low=-1.0)
    vanishing = torch.stack(
        (width * (0.5 + spread[:, 0] * either(0.12, 0.2)), height * (0.45 + spread[:, 1] * either(0.1, 0.17))), -1
    )

    def rising(direction: Tensor, strength: Tensor) -> Tensor:
        """The row of a plane through the vanishing point whose inverse depth rises along `direction`."""
        slope = direction * strength[:, None]
        return torch.cat((slope, -(slope * vanishing).sum(-1, keepdim=True)), -1)

    constant = torch.zeros(n, 3, dtype=torch.float64, device=draw.device)
    constant[:, 2] = 1.0
    far = torch.where(drive, draw.log_uniform(n, low=0.004, high=0.08), draw.log_uniform(n, low=0.03, high=0.35))
    slant = draw.uniform(n, 2, low=-0.6, high=0.6) * torch.where(drive, 0.0, far)[:, None] / size
    backdrop = torch.cat((slant, (far - (slant * size / 2).sum(-1))[:, None]), -1)

    ground = rising(down, (height - vanishing[:, 1]).reciprocal())
    ceiling = rising(-down, draw.uniform(n, low=0.35, high=1.0) / vanishing[:, 1])
    left_wall = rising(-right, draw.log_uniform(n, low=0.25, high=1.0) / vanishing[:, 0])
    right_wall = rising(right, draw.log_uniform(n, low=0.25, high=1.0) / (width - vanishing[:, 0]))
    has_ground = draw.uniform(n) < either(0.96, 0.75)
    has_ceiling = draw.uniform(n) < either(0.12, 0.25)
    has_walls = draw.uniform(n, 2) < either(0.6, 0.35)[:, None]

    def bounds(*rows: Tensor) -> Tensor:
        return torch.stack((*rows, *(constant,) * (LINES - len(rows))), 1)

    def wall(row: Tensor) -> Tensor:
        """Far end, foot, top, and the near end where the wall stops before it has reached the camera."""
        gap = draw.uniform(n, high=0.25) * draw.chance(n, p=0.5)
        foot = torch.where(has_ground[:, None], row - ground, constant)
        tall = draw.log_uniform(n, low=0.3, high=4.0)[:, None]
        top = torch.where(has_ceiling[:, None], row - ceiling, ground + tall * row)
        end = torch.where(draw.chance(n, p=0.4), draw.uniform(n, low=0.15, high=0.8), 9.0)[:, None]
        return bounds(row - backdrop - gap[:, None] * constant, foot, top, end * constant - row)

    rows = torch.stack((backdrop, ground, ceiling, left_wall, right_wall), 1)
    lines = torch.stack((bounds(), bounds(ground - backdrop), bounds(ceiling - backdrop), wall(left_wall), wall(right_wall)), 1)
    present = torch.stack((torch.zeros_like(has_ground), has_ground, has_ceiling, *has_walls.unbind(1)), 1)
    rows = torch.where(present[..., None], rows, backdrop[:, None])
    return vanishing, rows[:, : room + 1], present[:, : room + 1], lines[:, : room + 1]


def _boards(
    draw: Draw, vanishing: Tensor, planes: Tensor, bounded: Tensor, half: Tensor, count: Tensor, size: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boards from far to near.

    Returns:
        Rows of all planes and boards `(n, L, 3)`; of the boards alone centre and half sides `(n, b, 2)`, presence `(n, b)`.
    """
    n, boards = half.shape[:2]
    outlined = torch.arange(boards, device=draw.device) < count[:, None]
    # A board that stands on the ground has its foot where the ground is as near as the board.
    standing = draw.chance(n, boards, p=0.6) & bounded[:, 1:2]
    near = draw.log_uniform(n, boards, low=0.06, high=0.9)
    half = half * torch.where(standing, (near / 0.3).sqrt().clamp(0.35, 1.8), 1.0)[..., None]
    centre = size * draw.uniform(n, boards, 2, low=-0.05, high=1.05)
    foot = vanishing[:, None, 1] + near * (size[1] - vanishing[:, None, 1])
    centre[..., 1] = torch.where(standing, foot - half.amax(-1), centre[..., 1])
    # It is nearer than every plane behind it, over its whole outline within the frame.
    square = torch.tensor(((-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)), dtype=torch.float64, device=draw.device)
    reach = half.amax(-1)
    around = torch.minimum((centre[:, :, None] + reach[..., None, None] * square).clamp_min(0), size)
    behind = (planes[:, None] @ _homogeneous(around).transpose(2, 3)).amax((2, 3))
    slope = draw.direction(n, boards) * (draw.uniform(n, boards, high=STEEPEST) / _far_corner(centre, size))[..., None]
    slope = slope * draw.chance(n, boards, p=0.6)[..., None]
    fall = slope.abs().sum(-1) * reach
    slope = slope * (0.25 / fall.clamp_min(0.25))[..., None]
    lowest = 1 - fall.clamp_max(0.25)
    middle = torch.where(standing, behind * 1.02, torch.maximum(behind * 1.05, 1.3 * near)) / lowest

    order = middle.argsort(1)
    outlined, middle = outlined.gather(1, order), middle.gather(1, order)
    slope, centre, half = (value.gather(1, order[..., None].expand(-1, -1, 2)) for value in (slope, centre, half))
    row = torch.cat((slope, 1 - (slope * centre).sum(-1, keepdim=True)), -1) * middle[..., None]
    return torch.cat((planes, row), 1), centre, half, outlined


def _camera(
    draw: Draw, config: SceneConfig, kind: Tensor, intrinsics: Tensor, stage: _Stage, magnitude: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotation vector [rad] and translation of the camera's motion, each `(n, 3)`.

    The direction of the motion depends on its kind; its length is such that the mean displacement over the frame, to first order,
    is what was drawn, as far as the bounds allow."""
    n, device = len(kind), draw.device
    size = torch.tensor((config.width, config.height), dtype=torch.float64, device=device)
    inverse = torch.linalg.inv(intrinsics)

    # Directions. A camera that moves by dX along a ray sees the world move by -dX.
    ahead = (inverse @ _homogeneous(stage.vanishing)[..., None])[..., 0] + 0.04 * draw.normal(n, 3)
    ahead = ahead * torch.where(draw.chance(n, p=0.85), -1.0, 1.0)[:, None]
    aside = torch.stack((torch.where(draw.chance(n, p=0.5), 1.0, -1.0), 0.25 * draw.normal(n), 0.15 * draw.normal(n)), -1)
    spin = draw.normal(n, 3) * torch.tensor((0.6, 1.0, 0.5), dtype=torch.float64, device=device)
    upright = torch.stack((0.2 * draw.normal(n), torch.where(draw.chance(n, p=0.5), 1.0, -1.0), 0.1 * draw.normal(n)), -1)
    pivot = (inverse @ _homogeneous(size * (0.5 + 0.1 * draw.normal(n, 2)))[..., None])[..., 0]
    pivot = pivot / draw.log_uniform(n, 1, low=0.12, high=0.7)
    drive, track, orbit = ((kind == which)[:, None] for which in (DRIVE, TRACK, ORBIT))
    turn = torch.where(orbit, upright, spin)
    around = -torch.linalg.cross(upright, pivot)
    step = torch.where(orbit, around, torch.where(drive, ahead, torch.where(track, aside, draw.normal(n, 3))))

    # Velocities of points spread over the frame, in homogeneous pixels; each shows the nearest of what lies there.
    across, along = (torch.linspace(0, 1, count, dtype=torch.float64, device=device) for count in (8, 6))
    grid = torch.stack((across.repeat(6), along.repeat_interleave(8)), -1) * size
    covers = ((grid - stage.centre[:, :, None]).abs() < 0.7 * stage.half[:, :, None]).all(-1) | ~stage.outlined[..., None]
    seen = torch.where(covers & stage.there[..., None], _at(stage.inverse_depth, _homogeneous(grid)), 0.0).amax(1)
    turning = intrinsics @ _cross(turn) @ inverse
    by_turn = _homogeneous(grid) @ turning.transpose(1, 2)
    by_step = (intrinsics @ step[..., None]).transpose(1, 2) * seen[..., None]

    def displacement(velocity: Tensor) -> Tensor:
        """Its length `(n, G)` [px], to first order."""
        return torch.linalg.vector_norm(velocity[..., :2] - grid * velocity[..., 2:], dim=-1).clamp_min(1e-9)

    # An orbit has its own proportion of turn and step; elsewhere one of them leads.
    little = draw.normal(n, 1).abs().clamp_max(2.0)
    shake = (kind == SHAKE)[:, None]
    turn_weight = torch.where(shake, 1.0, torch.where(track, 0.3, 0.25) * little) / displacement(by_turn).mean(1, keepdim=True)
    step_weight = torch.where(shake, 0.3 * little, 1.0) / displacement(by_step).mean(1, keepdim=True)
    turn_weight, step_weight = (torch.where(orbit, 1.0, weight) for weight in (turn_weight, step_weight))
    turn, step = turn * turn_weight, step * step_weight
    velocity = by_turn * turn_weight[..., None] + by_step * step_weight[..., None]

    # With a length s of the motion a point goes s u / (1 - s c) pixels, c being how fast it comes nearer.
    moved, closing = displacement(velocity), -velocity[..., 2]
    longest = config.cap * config.width
    steepest = torch.where(stage.there[..., None], _at(stage.inverse_depth, _corners(size)).abs(), 0.0).amax((1, 2))
    bounds = (
        magnitude * draw.uniform(n, low=0.8, high=2.4) / moved.mean(1),
        longest / (moved + longest * closing.clamp_min(0)).amax(1),
        NEAREST / (step[:, 2].abs() * steepest).clamp_min(1e-9),
        0.2 / torch.linalg.vector_norm(turn, dim=-1).clamp_min(1e-9),
    )
    length = (torch.stack(bounds).amin(0) * ~draw.chance(n, p=config.static_camera))[:, None]
    return turn * length, step * length


def _movers(
    draw: Draw, kind: Tensor, own: Tensor, depth: Tensor, half: Tensor, focal: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotation vectors about their centres [rad] and translations that boards at `depth` `(n, L)` may have, each `(n, L, 3)`."""
    n, layers = own.shape
    flat = torch.tensor((1.0, 0.5), dtype=torch.float64, device=draw.device)
    sideways = draw.direction(n, layers) * flat * (own / focal[:, None] * depth)[..., None]
    along = (0.6 * draw.normal(n, layers) * own / half.amax(-1)).clamp(-APPROACH, APPROACH) * depth
    shift = torch.cat((sideways, along[..., None]), -1)
    # On a road some go the same way as the camera, slower or faster.
    convoy = ((kind == DRIVE)[:, None] & draw.chance(n, layers, p=0.5))[..., None]
    shift = torch.where(convoy, -step[:, None] * draw.uniform(n, layers, 1, low=0.2, high=1.2), shift)
    turn = (0.2 * draw.normal(n, layers, 3) * (own / half.amax(-1))[..., None]).clamp(-0.25, 0.25)
    turn = torch.where(convoy, 0.1 * turn, turn)
    return turn, shift


def _rotation(vector: Tensor) -> Tensor:
    """`(..., 3, 3)`: by `vector` [rad] (Rodrigues' formula); exactly 1 for zero."""
    angle = torch.linalg.vector_norm(vector, dim=-1)[..., None, None] / torch.pi
    generator = _cross(vector)
    still = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return still + angle.sinc() * generator + 0.5 * (angle / 2).sinc().square() * generator @ generator


def _moved(intrinsics: Tensor, rotation: Tensor, step: Tensor, rows: Tensor) -> Tensor:
    """`(..., 3, 3)`: the homographies of planes `rows` `(..., 3)` that move by X2 = R X1 + t; exactly 1 without motion."""
    still = torch.eye(3, dtype=rows.dtype, device=rows.device)
    return still + intrinsics @ ((rotation - still) @ torch.linalg.inv(intrinsics) + step[..., None] * rows[..., None, :])


def _homogeneous(point: Tensor) -> Tensor:
    return torch.cat((point, torch.ones_like(point[..., :1])), -1)


def _corners(size: Tensor) -> Tensor:
    """`(4, 3)` of the frame."""
    unit = torch.tensor(((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), dtype=torch.float64, device=size.device)
    return _homogeneous(unit * (size - 1))


def _far_corner(centre: Tensor, size: Tensor) -> Tensor:
    """Distance from `centre` to the farthest corner of the frame."""
    return torch.linalg.vector_norm(torch.maximum(centre.abs(), (size - centre).abs()), dim=-1)


def _at(rows: Tensor, points: Tensor) -> Tensor:
    """Inverse depth `(n, L, G)` of `rows` `(n, L, 3)` at `points` `(G, 3)`."""
    return rows @ points.t()


def _cross(vector: Tensor) -> Tensor:
    """`(..., 3, 3)`: the matrix whose product with u is vector x u."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
