"""Velocities on a grid, with their axes and units, and what is derived of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ...errors import InputError
from ...flow.fields import as_field, as_mask, known, positive

_KNOWN_SHARE = 0.5


class Kind(IntEnum):
    """What the velocity of a grid point is."""

    MEASURED = 0
    REPLACED = 1
    REJECTED = 2
    MASKED = 3


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From pixels and frames to the laboratory.

    Raises:
        InputError: for a time or scale that is not positive, or an origin that is not two numbers.
    """

    #: Between the two frames of a pair [s]. Without it velocities are displacements from frame to frame.
    dt: float | None = None
    #: Without it lengths are in pixels.
    px_per_mm: float | None = None
    #: Place of (0, 0) in the frame, x to the right and y down from the centre of the upper left pixel [px]. Default: the centre of
    #: the lower left pixel where y points up, else that of the upper left one.
    origin: tuple[float, float] | None = None
    #: Whether the y axis points up, as in the laboratory, or down, as in images.
    y_up: bool = True

    def __post_init__(self) -> None:
        for name, value in (("dt", self.dt), ("px_per_mm", self.px_per_mm)):
            if value is not None:
                positive(value, name)
        if self.origin is not None and (len(self.origin) != 2 or not np.isfinite(self.origin).all()):
            raise InputError(f"The origin is a place X,Y in pixels, got {self.origin!r}.")

    @property
    def length_unit(self) -> str:
        return "px" if self.px_per_mm is None else "mm"

    @property
    def velocity_unit(self) -> str:
        return self.length_unit if self.dt is None else f"{self.length_unit}/s"

    @property
    def rate_unit(self) -> str:
        """Of vorticity, divergence and shear; without a time they are numbers, per frame interval."""
        return "1" if self.dt is None else "1/s"

    @property
    def velocity_per_px(self) -> float:
        """The velocity of a displacement of one pixel."""
        return 1 / ((self.px_per_mm or 1.0) * (self.dt or 1.0))


@dataclass(frozen=True, eq=False)
class VelocityField:
    """Velocities of one pair on a regular grid. Rows are in the order of the image's, whichever way y points."""

    #: Positions of the columns `(nx,)` and of the rows `(ny,)`, in `calibration.length_unit`.
    x: np.ndarray
    y: np.ndarray
    #: Velocities along x and y `(ny, nx)` float64, in `calibration.velocity_unit`; NaN where there is none.
    u: np.ndarray
    v: np.ndarray
    #: `(ny, nx)` uint8, a `Kind` for each.
    kind: np.ndarray
    calibration: Calibration

    @property
    def speed(self) -> np.ndarray:
        """`(ny, nx)`, in the velocities' unit."""
        return np.hypot(self.u, self.v)

    @property
    def vorticity(self) -> np.ndarray:
        """dv/dx - du/dy `(ny, nx)`, in `calibration.rate_unit`: counter-clockwise is positive where y points up."""
        return _slope(self.v, self.x, 1) - _slope(self.u, self.y, 0)

    @property
    def divergence(self) -> np.ndarray:
        """du/dx + dv/dy `(ny, nx)`: the in-plane part, 0 in plane incompressible flow."""
        return _slope(self.u, self.x, 1) + _slope(self.v, self.y, 0)

    @property
    def shear(self) -> np.ndarray:
        """du/dy + dv/dx `(ny, nx)`, twice the shear component of the rate of strain."""
        return _slope(self.u, self.y, 0) + _slope(self.v, self.x, 1)

    def count(self, kind: Kind) -> int:
        """Grid points of one kind."""
        return int((self.kind == kind).sum())


def on_grid(flow, spacing: int = 4, mask=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean displacement in squares of `spacing` pixels.

    Args:
        flow: `(H, W, 2)` array or `(2, H, W)` tensor [px].
        spacing: side of the squares, which is the distance of the grid points [px]; 1 keeps every pixel. Rows and columns that are
            left over are left out, half of them on either side.
        mask: `(H, W)`, true where nothing is to be measured.

    Returns:
        Displacements `(ny, nx, 2)` float64 [px], NaN where more than half of a square is masked or unknown; and the places of the
        columns `(nx,)` and of the rows `(ny,)` in the frame [px], the centres of the squares.

    Raises:
        InputError: for a spacing that is not a whole number from 1 to the smaller side of the frame, or a mask of another size.
    """
    field = as_field(flow, dtype=np.float64)
    height, width = field.shape[:2]
    if int(spacing) != spacing or not 1 <= spacing <= min(height, width):
        raise InputError(f"The spacing is a whole number of pixels from 1 to {min(height, width)}, got {spacing}.")
    usable = known(field)
    if mask is not None:
        usable = usable & ~as_mask(mask, (height, width), "the mask")
    spacing = int(spacing)
    rows, columns = height // spacing, width // spacing
    top, left = (height - rows * spacing) // 2, (width - columns * spacing) // 2

    def squares(values: np.ndarray) -> np.ndarray:
        inner = values[top : top + rows * spacing, left : left + columns * spacing]
        return inner.reshape(rows, spacing, columns, spacing, -1).sum(axis=(1, 3))

    count = squares(usable)
    total = squares(np.where(usable[..., None], field, 0))
    enough = count >= _KNOWN_SHARE * spacing**2
    mean = np.where(enough, total / np.maximum(count, 1), np.nan)
    middle = (spacing - 1) / 2
    return mean, left + middle + spacing * np.arange(columns), top + middle + spacing * np.arange(rows)


def calibrated(
    grid: np.ndarray, x: np.ndarray, y: np.ndarray, kind: np.ndarray, height: int, calibration: Calibration
) -> VelocityField:
    """Displacements `(ny, nx, 2)` [px] at columns x and rows y of a frame of `height` [px], as velocities of the laboratory."""
    scale = calibration.px_per_mm or 1.0
    origin = calibration.origin or (0.0, height - 1.0 if calibration.y_up else 0.0)
    up = -1.0 if calibration.y_up else 1.0
    speed = calibration.velocity_per_px
    return VelocityField(
        x=(x - origin[0]) / scale,
        y=up * (y - origin[1]) / scale,
        u=grid[..., 0] * speed,
        v=up * grid[..., 1] * speed,
        kind=kind.astype(np.uint8),
        calibration=calibration,
    )


def _slope(values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Derivatives along an axis: central differences, beside a gap or an edge one-sided ones, NaN where neither can be had."""
    values = np.moveaxis(values, axis, -1)
    if values.shape[-1] < 2:
        return np.full_like(np.moveaxis(values, -1, axis), np.nan)
    step = places[1] - places[0]
    gap = np.full((*values.shape[:-1], 1), np.nan)
    before = np.concatenate((gap, values[..., :-1]), axis=-1)
    after = np.concatenate((values[..., 1:], gap), axis=-1)
    slope = (after - before) / (2 * step)
    for one_sided in ((after - values) / step, (values - before) / step):
        slope = np.where(np.isnan(slope), one_sided, slope)
    return np.moveaxis(np.where(np.isnan(values), np.nan, slope), -1, axis)
