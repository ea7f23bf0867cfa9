"""Flows from affine maps and homographies, and the map that fits a flow best.

A matrix takes a pixel's place in frame 1, (x, y, 1) [px] with x to the right, y down and (0, 0) the centre of the upper left pixel,
to its place in frame 2: 2x3 for affine maps, 3x3 for homographies. Forms and validity are those of `featherflow.flow.algebra`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .algebra import _Form, enter, pixels, whole_size
from .fields import positive

_SAMPLES = 512  # random smallest samples that are tried, enough for two in three pixels to be wrong
_JUDGES = 1024  # pixels by which a sample is judged
_MOST_PIXELS = 65536  # that a map is fitted to
_STEPS = 12
_SMALLEST_SCALE = 1e-9  # px


@dataclass(frozen=True)
class _Family:
    """A family of maps: how many numbers it has, and how many points fix them."""

    name: str
    numbers: int
    points: int


_AFFINE, _HOMOGRAPHY = _Family("an affine map", 6, 3), _Family("a homography", 8, 4)


def from_affine(matrix, size: tuple[int, int]):
    """The flow of an affine map.

    Args:
        matrix: `(2, 3)` array, or `(2, 3)` or `(B, 2, 3)` tensor, in which the flow is differentiable.
        size: height and width [px].

    Returns the flow, `(H, W, 2)` float32, or `(2, H, W)` or `(B, 2, H, W)` in the matrix's type, and where it leads inside the
    frame.

    Raises `InputError` for another shape or type, or a size that is not two whole numbers of at least 1.
    """
    return _from(matrix, (2, 3), size)


def from_homography(matrix, size: tuple[int, int]):
    """The flow of a homography. As `from_affine`, with matrices 3x3; what lies on or behind the horizon is not valid either."""
    return _from(matrix, (3, 3), size)


def to_affine(flow, valid=None, *, threshold: float = 1.0):
    """The affine map that most of a flow follows.

    The best of many maps through three pixels is taken up by least squares with weights that fall with the distance and vanish for
    what lies far off (RANSAC, then Tukey's weights at a scale that shrinks with the median distance): pixels that move otherwise
    have no share. Of large flows, 65,536 pixels are looked at. The last step is differentiable in the flow.

    Args:
        flow, valid: see `featherflow.flow.algebra`.
        threshold: distance in frame 2 within which a pixel counts as following the map [px].

    Returns the matrix, `(2, 3)` float64, or `(2, 3)` or `(B, 2, 3)` in the tensor's type, and a boolean mask in the form of the
    flow's validity, true where the flow follows the map.

    Raises `InputError` for another form, or where fewer than three pixels not on one line are known.
    """
    return _to(_AFFINE, flow, valid, threshold)


def to_homography(flow, valid=None, *, threshold: float = 1.0):
    """The homography that most of a flow follows, 3x3 with 1 in the last place. As `to_affine`, through four pixels."""
    return _to(_HOMOGRAPHY, flow, valid, threshold)


def _from(matrix, shape: tuple[int, int], size: tuple[int, int]):
    height, width = whole_size(size)
    if isinstance(matrix, Tensor):
        if matrix.shape[-2:] != shape or matrix.ndim not in (2, 3) or not matrix.is_floating_point():
            raise InputError(f"the matrix must be {shape} or {('B', *shape)}, got {tuple(matrix.shape)} of {matrix.dtype}")
        form, stack = _Form(False, matrix.ndim == 3, None), matrix if matrix.ndim == 3 else matrix[None]
    else:
        try:
            array = np.asarray(matrix, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"the matrix must be {shape} numbers, got {matrix!r}") from None
        if array.shape != shape:
            raise InputError(f"the matrix must be {shape}, got {array.shape}")
        form, stack = _Form(True, False, np.float32), torch.from_numpy(array)[None]
    start = pixels(stack.new_empty(1, 1, height, width))
    goal, ahead = _project(_full(stack), start.flatten(2).transpose(1, 2))
    goal = goal.transpose(1, 2).reshape(-1, 2, height, width)
    limits = goal.new_tensor((width - 1, height - 1)).view(1, 2, 1, 1)
    inside = ((goal >= 0) & (goal <= limits)).all(dim=1, keepdim=True) & ahead.view(-1, 1, height, width)
    if not form.array:
        # A flow that leads outside is known all the same, and a loss may want it.
        flow = torch.where(ahead.view(-1, 1, height, width), goal - start, torch.zeros_like(goal))
        return (flow, inside) if form.batched else (flow[0], inside[0])
    flow, _ = form.give(goal - start, ahead.view(-1, 1, height, width))
    return flow, inside[0, 0].numpy()


def _full(matrix: Tensor) -> Tensor:
    """Matrices `(B, 3, 3)` of matrices `(B, 2, 3)` or `(B, 3, 3)`."""
    if matrix.shape[-2] == 3:
        return matrix
    return torch.cat((matrix, matrix.new_tensor((0, 0, 1)).expand(matrix.shape[0], 1, 3)), dim=1)


def _project(matrix: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Points `(B, N, 2)` taken by matrices `(B, 3, 3)`, and whether they lie before the horizon `(B, N)`."""
    mapped = points @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]
    depth = mapped[..., 2:]
    ahead = depth > 1e-9
    return mapped[..., :2] / torch.where(ahead, depth, torch.ones_like(depth)), ahead[..., 0]


def _to(family: _Family, flow, valid, threshold: float):
    threshold = positive(threshold, "threshold")
    field, known, form = enter(flow, valid)
    found = [_fit(family, part, mask, threshold) for part, mask in zip(field.double(), known, strict=True)]
    matrix, follows = torch.stack([one for one, _ in found]), torch.stack([mask for _, mask in found])
    if family is _AFFINE:
        matrix = matrix[:, :2]
    if form.array:
        matrix, follows = matrix.detach().numpy(), follows[:, 0].numpy()
    else:
        matrix = matrix.to(field.dtype)
    return (matrix, follows) if form.batched else (matrix[0], follows[0])


def _fit(family: _Family, flow: Tensor, known: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The matrix `(3, 3)` for one flow `(2, H, W)` float64, and where the flow follows it `(1, H, W)`."""
    height, width = flow.shape[-2:]
    start = pixels(flow[None])[0].flatten(1).T
    goal = start + flow.flatten(1).T
    usable = known.flatten().nonzero()[:, 0]
    if len(usable) < family.points:
        raise InputError(f"{family.name} needs {family.points} or more known pixels, but the flow has {len(usable)}")
    random = torch.Generator().manual_seed(0)
    chosen = usable[torch.randperm(len(usable), generator=random)[:_MOST_PIXELS].to(usable.device)]
    # Centred and scaled, so that the equations are well conditioned.
    scale = max(height, width) / 2
    to_unit = flow.new_tensor([[1 / scale, 0, -(width - 1) / 2 / scale], [0, 1 / scale, -(height - 1) / 2 / scale], [0, 0, 1]])
    source, target = (_project(to_unit[None], points[chosen][None])[0][0] for points in (start, goal))
    with torch.no_grad():
        matrix = _consensus(family, source, target.detach(), threshold / scale, random)
        for _ in range(_STEPS):
            matrix = _step(family, matrix, source, target.detach(), threshold / scale, _SMALLEST_SCALE / scale)
    matrix = _step(family, matrix, source, target, threshold / scale, _SMALLEST_SCALE / scale)
    matrix = torch.linalg.inv(to_unit) @ matrix @ to_unit
    matrix = matrix / matrix[2, 2]
    with torch.no_grad():
        mapped, ahead = _project(matrix[None], start[None])
        follows = ((mapped[0] - goal).norm(dim=1) <= threshold) & ahead[0]
    return matrix, follows.view(1, height, width) & known


def _consensus(family: _Family, source: Tensor, target: Tensor, threshold: float, random: torch.Generator) -> Tensor:
    """The best of the maps through random smallest samples, by the sum of squared distances cut off at the threshold."""
    picks = torch.randint(len(source), (_SAMPLES, family.points), generator=random).to(source.device)
    rows, right = _equations(family, source[picks], target[picks])
    solved, failed = torch.linalg.solve_ex(rows, right)
    numbers = solved[..., 0]
    matrices = _matrix(family, torch.where((failed == 0)[:, None], numbers, torch.full_like(numbers, torch.nan)))
    judges = slice(0, _JUDGES)
    mapped, ahead = _project(matrices, source[judges].expand(_SAMPLES, -1, -1))
    squared = torch.where(ahead, (mapped - target[judges]).square().sum(dim=-1), torch.inf).nan_to_num(nan=torch.inf)
    cost = squared.clamp(max=threshold**2).sum(dim=1)
    cost = torch.where(matrices.isfinite().all(dim=2).all(dim=1), cost, torch.full_like(cost, torch.inf))
    best = int(cost.argmin())
    if not bool(cost[best].isfinite()):
        raise InputError(f"{family.name} needs {family.points} or more known pixels that are not on one line")
    return matrices[best]


def _equations(family: _Family, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Linear equations `(S, numbers, numbers)` of maps through points `(S, points, 2)`, and their right sides."""
    one, zero = torch.ones_like(source[..., :1]), torch.zeros_like(source)
    along = torch.cat((source, one, zero, 0 * one), dim=-1)
    down = torch.cat((zero, 0 * one, source, one), dim=-1)
    if family is _HOMOGRAPHY:
        along = torch.cat((along, -target[..., :1] * source), dim=-1)
        down = torch.cat((down, -target[..., 1:] * source), dim=-1)
    return torch.cat((along, down), dim=1), torch.cat((target[..., :1], target[..., 1:]), dim=1)


def _matrix(family: _Family, numbers: Tensor) -> Tensor:
    """Matrices `(S, 3, 3)` of numbers `(S, 6)` or `(S, 8)`."""
    last = numbers.new_tensor((0, 0, 1)) if family is _AFFINE else numbers.new_ones(1)
    return torch.cat((numbers, last.expand(len(numbers), -1)), dim=1).view(-1, 3, 3)


def _step(family: _Family, matrix: Tensor, source: Tensor, target: Tensor, threshold: float, smallest: float) -> Tensor:
    """One step of Gauss and Newton with Tukey's weights; for an affine map it is the weighted least squares solution."""
    mapped, ahead = (part[0].detach() for part in _project(matrix[None], source[None]))
    distance = (mapped - target.detach()).norm(dim=1)
    near = ahead & (distance <= threshold)
    if int(near.sum()) < family.points:
        return matrix
    # 1.48 medians are a standard deviation of normal noise, and Tukey's weights are nothing beyond 4.7 of them.
    scale = float((4.685 * 1.4826 * distance[near].median()).clamp(smallest, threshold))
    weight = torch.where(near, (1 - (distance / scale).square()).clamp_min(0).square(), torch.zeros_like(distance))
    if int((weight > 0).sum()) < family.points:
        return matrix
    # Divided by the depth, the linear equations of a homography are the derivatives of its distances.
    depth = (source @ matrix[2, :2] + matrix[2, 2]).detach()[:, None] if family is _HOMOGRAPHY else 1.0
    rows, _ = _equations(family, source[None], mapped[None])
    rows = rows[0].view(2, -1, family.numbers) / depth
    missing = (target - mapped).T
    normal = torch.einsum("knp,n,knq->pq", rows, weight, rows)
    change = torch.linalg.lstsq(normal, torch.einsum("knp,n,kn->p", rows, weight, missing)[:, None]).solution[:, 0]
    return (matrix + torch.cat((change, change.new_zeros(9 - family.numbers))).view(3, 3)).contiguous()
