"""Velocity fields as figures with axes, units and a scale: arrows, and vorticity. Drawn by Matplotlib, the extra `piv`."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from ...errors import InputError, MissingExtraError
from ...files import atomic_write
from .field import Kind, VelocityField

PICTURES = (".png", ".svg", ".pdf")

_LONG_SIDE = 7.0  # inches
_MOST_ARROWS = 40  # along the longer side


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raises `InputError` for a name that is none of a figure's, and `MissingExtraError` without Matplotlib."""
    if Path(path).suffix.lower() not in PICTURES:
        raise InputError(f"'{path}' is no figure that can be drawn; its name must end in one of {', '.join(PICTURES)}.")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Figures need matplotlib; install it with: pip install 'featherflow[piv]'") from error


def draw_quiver(path: str | os.PathLike[str], field: VelocityField) -> None:
    """Arrows over the speed in colour; what was replaced is drawn in red. Of a fine grid, every so many arrows are drawn.

    Raises:
        InputError: for another suffix than `PICTURES`; FileError: if it cannot be written; MissingExtraError: without Matplotlib.
    """
    figure, axes = _figure(path, field)
    unit = field.calibration.velocity_unit
    image = axes.pcolormesh(field.x, field.y, field.speed, shading="nearest", cmap="viridis", rasterized=True)
    figure.colorbar(image, ax=axes, label=f"speed [{unit}]")
    step = max(1, -(-max(field.u.shape) // _MOST_ARROWS))
    start = (min(step, field.u.shape[0]) - 1) // 2, (min(step, field.u.shape[1]) - 1) // 2
    few = (slice(start[0], None, step), slice(start[1], None, step))
    x, y = np.meshgrid(field.x[few[1]], field.y[few[0]])
    u, v, kind = field.u[few], field.v[few], field.kind[few]
    drawn = ~np.isnan(u)
    if drawn.any():
        # Long arrows (95th percentile) reach to the next one; a replaced one has the scale of the others.
        distance = step * min((abs(axis[1] - axis[0]) for axis in (field.x, field.y) if len(axis) > 1), default=1.0)
        longest = float(np.percentile(np.hypot(u, v)[drawn], 95)) or 1.0
        for chosen, colour in ((drawn & (kind == Kind.MEASURED), "white"), (drawn & (kind != Kind.MEASURED), "red")):
            axes.quiver(
                x[chosen], y[chosen], u[chosen], v[chosen], color=colour, angles="xy", scale_units="xy", scale=longest / distance
            )
    _save(path, figure)


def draw_vorticity(path: str | os.PathLike[str], field: VelocityField) -> None:
    """The vorticity in colours about zero, reaching to its 99th percentile. Raises as `draw_quiver`."""
    figure, axes = _figure(path, field)
    values = field.vorticity
    known = np.abs(values[~np.isnan(values)])
    most = float(np.percentile(known, 99)) if known.size else 1.0
    image = axes.pcolormesh(
        field.x, field.y, values, shading="nearest", cmap="RdBu_r", vmin=-(most or 1.0), vmax=most or 1.0, rasterized=True
    )
    unit = field.calibration.rate_unit
    figure.colorbar(image, ax=axes, label="vorticity" if unit == "1" else f"vorticity [{unit}]", extend="both")
    _save(path, figure)


def _figure(path: str | os.PathLike[str], field: VelocityField):
    check_picture(path)
    from matplotlib.figure import Figure

    height, width = field.u.shape
    scale = _LONG_SIDE / max(height, width)
    figure = Figure(figsize=(max(width * scale, 2.5) + 1.2, max(height * scale, 2.5) + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    unit = field.calibration.length_unit
    axes.set(xlabel=f"x [{unit}]", ylabel=f"y [{unit}]", facecolor="0.8")
    if not field.calibration.y_up:
        axes.invert_yaxis()
    return figure, axes


def _save(path: str | os.PathLike[str], figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.lower()[1:], dpi=150)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
