"""Which velocities cannot be right, and what stands in for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ...flow.fields import positive

Limits = tuple[float, float]

_FEWEST_NEIGHBOURS = 3
_MOST_ITERATIONS = 5000


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What velocities are held against. What fails any of these is rejected.

    Raises:
        InputError: for a number that is not positive, or limits of which the first is not below the second.
    """

    #: Of the normalised median test, see `universal_outliers`; None for no test.
    outlier_threshold: float | None = 2.0
    #: Usual noise of a displacement in that test [px].
    noise: float = 0.1
    #: Lowest and highest u and v that can be, in the unit of the velocities.
    u_limits: Limits | None = None
    v_limits: Limits | None = None
    #: Most standard deviations of all u, and of all v, from their means.
    max_deviations: float | None = None
    #: Most that the way there and back may end from where it began [px]; takes a second estimate, from frame 2 to frame 1.
    max_disagreement: float | None = None
    #: Put in the place of what is rejected what the velocities around it say.
    replace: bool = True

    def __post_init__(self) -> None:
        for name in ("outlier_threshold", "noise", "max_deviations", "max_disagreement"):
            if getattr(self, name) is not None:
                positive(getattr(self, name), name)
        for name in ("u_limits", "v_limits"):
            limits = getattr(self, name)
            if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
                raise InputError(f"{name} are the lowest and the highest velocity that can be, in this order, got {limits!r}.")


def universal_outliers(u: np.ndarray, v: np.ndarray, threshold: float = 2.0, noise: float = 0.1) -> np.ndarray:
    """The normalised median test in windows of 3x3.

    A vector is an outlier where `sqrt(r_u^2 + r_v^2) > threshold`, with r for each component c of it and its eight neighbours i:
    `r = |c - median(c_i)| / (median(|c_i - median(c_i)|) + noise)`.

    Args:
        u, v: displacements `(ny, nx)` [px]; NaN where there is none.
        threshold: 2 in the paper.
        noise: usual noise of a displacement [px], 0.1 in the paper.

    Returns:
        Boolean `(ny, nx)`. What has fewer than three known neighbours is not judged; beside gaps and edges, missing neighbours
        continue the others linearly.

    Source: Westerweel, Scarano, "Universal outlier detection for PIV data", Experiments in Fluids 39, 2005, equation (2).
    """
    ratios = [_normalised_residual(component, noise) for component in (u, v)]
    with np.errstate(invalid="ignore"):
        return np.hypot(*ratios) > threshold


def _normalised_residual(values: np.ndarray, noise: float) -> np.ndarray:
    height, width = values.shape
    padded = np.pad(values.astype(np.float64), 1, constant_values=np.nan)
    around = {
        (dy, dx): padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy, dx) != (0, 0)
    }
    enough = sum(~np.isnan(neighbour) for neighbour in around.values()) >= _FEWEST_NEIGHBOURS
    stack = np.stack(list(_completed(around).values()))
    median = _median(stack)
    residual = np.abs(values - median) / (_median(np.abs(stack - median)) + noise)
    return np.where(enough, residual, np.nan)


def _completed(around: dict[tuple[int, int], np.ndarray]) -> dict[tuple[int, int], np.ndarray]:
    """Neighbours, of which those that are missing continue the others linearly, so that the centre is in the middle of them.

    Otherwise every vector at a wall with shear would be an outlier: all its neighbours lie on one side.
    """
    full = dict(around)

    def fill(place: tuple[int, int], continued: np.ndarray) -> None:
        full[place] = np.where(np.isnan(full[place]), continued, full[place])

    for dy in (-1, 1):
        for dx in (-1, 1):
            fill((dy, dx), 2 * around[0, dx] - around[-dy, dx])
            fill((dy, dx), 2 * around[dy, 0] - around[dy, -dx])
    for near in (-1, 1):
        for side in (-1, 1):
            fill((near, 0), full[near, side] + around[-near, 0] - around[-near, side])
            fill((0, near), full[side, near] + around[0, -near] - around[side, -near])
    return full


def _median(around: np.ndarray) -> np.ndarray:
    """Median over the first axis of what is known; NaN where nothing is."""
    ordered = np.sort(around, axis=0)  # NaN comes last
    count = (~np.isnan(around)).sum(axis=0)
    low, high = (np.maximum(count - 1, 0) // 2)[None], (count // 2).clip(max=len(around) - 1)[None]
    return (np.take_along_axis(ordered, low, 0)[0] + np.take_along_axis(ordered, np.maximum(high, low), 0)[0]) / 2


def rejected(grid: np.ndarray, validation: Validation, velocity_per_px: float, y_sign: float) -> np.ndarray:
    """Where displacements `(ny, nx, 2)` [px] fail a test, boolean `(ny, nx)`; what is NaN does not fail."""
    u, v = grid[..., 0], grid[..., 1]
    bad = np.zeros(u.shape, bool)
    with np.errstate(invalid="ignore"):
        for limits, values in ((validation.u_limits, u), (validation.v_limits, y_sign * v)):
            if limits is not None:
                velocity = values * velocity_per_px
                bad |= (velocity < limits[0]) | (velocity > limits[1])
        if validation.max_deviations is not None and (~np.isnan(u)).any():
            for values in (u, v):
                bad |= np.abs(values - np.nanmean(values)) > validation.max_deviations * np.nanstd(values)
    if validation.outlier_threshold is not None:
        # What the limits exclude is no neighbour to judge others by.
        left = np.where(bad[..., None], np.nan, grid)
        bad |= universal_outliers(left[..., 0], left[..., 1], validation.outlier_threshold, validation.noise)
    return bad


def filled(values: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Values with holes filled smoothly: each becomes the mean of the four around it (Laplace's equation, by conjugate gradients).

    Args:
        values: `(ny, nx)`; what is NaN and no hole (masked) is passed over as a wall.
        holes: `(ny, nx)`, true where to fill. A hole that touches nothing known stays NaN.
    """
    values, holes = np.where(holes, np.nan, values), holes & _reachable(values, holes)
    if not holes.any():
        return values
    domain = holes | ~np.isnan(values)
    degree = _sum_around(domain.astype(np.float64))

    def laplacian(x: np.ndarray) -> np.ndarray:
        return np.where(holes, degree * x - _sum_around(x), 0)

    right = np.where(holes, _sum_around(np.where(holes | ~domain, 0, values)), 0)
    # From the mean of what is known, so that a field at rest needs no step.
    solution = np.where(holes, values[domain & ~holes].mean(), 0)
    residual = right - laplacian(solution)
    direction, squared = residual.copy(), float((residual**2).sum())
    enough = 1e-24 * max(float((right**2).sum()), 1e-30)
    for _ in range(_MOST_ITERATIONS):
        if squared <= enough:
            break
        product = laplacian(direction)
        step = squared / float((direction * product).sum())
        solution, residual = solution + step * direction, residual - step * product
        before, squared = squared, float((residual**2).sum())
        direction = residual + squared / before * direction
    return np.where(holes, solution, values)


def _sum_around(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, 1)
    return padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]


def _reachable(values: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Holes that are joined to something known."""
    reached = ~np.isnan(values) & ~holes
    while True:
        grown = reached | (holes & (_sum_around(reached.astype(np.float64)) > 0))
        if (grown == reached).all():
            return grown
        reached = grown
