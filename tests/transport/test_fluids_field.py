"""Velocity fields: grids, units, axes and derivatives, on flows whose answers are known by formulas."""

import numpy as np
import pytest
import torch

from featherflow.errors import InputError
from featherflow.transport.fluids import Calibration, Kind, Validation, from_flow, on_grid

SIZE = (48, 64)
UNCHECKED = Validation(outlier_threshold=None)


def linear(a=0.0, b=0.0, c=0.0, d=0.0, u=1.0, v=-2.0):
    """The flow u + a x + b y, v + c x + d y [px], y down."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    return np.stack((u + a * x + b * y, v + c * x + d * y), axis=-1)


@pytest.mark.parametrize("spacing", [1, 5, 8, 16])
def test_grid_points_are_the_means_of_squares_about_them(spacing):
    flow = linear(0.01, -0.02, 0.03, 0.04)
    grid, x, y = on_grid(flow, spacing)
    assert grid.shape == (SIZE[0] // spacing, SIZE[1] // spacing, 2)
    columns, rows = np.meshgrid(x, y)
    expected = np.stack((1 + 0.01 * columns - 0.02 * rows, -2 + 0.03 * columns + 0.04 * rows), axis=-1)
    assert np.abs(grid - expected).max() < 1e-10
    assert np.allclose(np.diff(x), spacing) and abs(x[0] - (SIZE[1] - 1 - x[-1])) <= 1  # the same margins, but for a pixel


def test_squares_are_left_out_where_more_than_half_is_masked():
    mask = np.zeros(SIZE, bool)
    mask[:16, :11] = True  # all of two squares, and 3 of 8 columns of two
    flow = linear()
    flow[:8, 20] = np.nan
    grid, _, _ = on_grid(flow, 8, mask)
    expected = np.zeros(grid.shape[:2], bool)
    expected[:2, 0] = True
    np.testing.assert_array_equal(np.isnan(grid[..., 0]), expected)
    assert (grid[~expected] == [1, -2]).all()


def test_a_vortex_in_the_laboratory():
    """Counter-clockwise as seen, at 10 rad/s: vorticity 20/s, no divergence and no shear."""
    omega, dt, scale = 10.0, 0.004, 12.5
    # As seen, counter-clockwise: right of the centre things go up, which is -y in the image.
    turn = omega * dt
    flow = linear(b=turn, c=-turn, u=-turn * 24, v=turn * 32)
    field = from_flow(flow, calibration=Calibration(dt=dt, px_per_mm=scale), spacing=4, validation=UNCHECKED)
    assert field.calibration.velocity_unit == "mm/s" and field.calibration.rate_unit == "1/s"
    assert np.allclose(field.vorticity, 20) and np.allclose(field.divergence, 0) and np.allclose(field.shear, 0)
    # u = -omega (y - yc), v = omega (x - xc), in mm.
    x, y = np.meshgrid(field.x - 32 / scale, field.y - (47 - 24) / scale)
    assert np.allclose(field.u, -omega * y) and np.allclose(field.v, omega * x)


def test_divergence_and_shear():
    field = from_flow(linear(a=0.02, b=0.01, c=0.03, d=0.05), calibration=Calibration(y_up=False), validation=UNCHECKED)
    assert np.allclose(field.divergence, 0.07) and np.allclose(field.shear, 0.04) and np.allclose(field.vorticity, 0.02)
    up = from_flow(linear(a=0.02, b=0.01, c=0.03, d=0.05), validation=UNCHECKED)
    assert np.allclose(up.divergence, 0.07) and np.allclose(up.shear, -0.04) and np.allclose(up.vorticity, -0.02)


@pytest.mark.parametrize(
    ("calibration", "x", "y", "v", "units"),
    [
        (Calibration(), 3.5, 43.5, 2, ("px", "px", "1")),
        (Calibration(y_up=False), 3.5, 3.5, -2, ("px", "px", "1")),
        (Calibration(dt=0.5), 3.5, 43.5, 4, ("px", "px/s", "1/s")),
        (Calibration(px_per_mm=10), 0.35, 4.35, 0.2, ("mm", "mm", "1")),
        (Calibration(px_per_mm=10, origin=(13.5, 3.5)), -1.0, 0.0, 0.2, ("mm", "mm", "1")),
        (Calibration(origin=(13.5, 3.5), y_up=False), -10.0, 0.0, -2, ("px", "px", "1")),
    ],
)
def test_axes_and_units(calibration, x, y, v, units):
    field = from_flow(linear(), spacing=8, calibration=calibration, validation=UNCHECKED)
    assert (field.x[0], field.y[0]) == pytest.approx((x, y)) and np.allclose(field.v, v)
    assert (calibration.length_unit, calibration.velocity_unit, calibration.rate_unit) == units


def test_beside_a_mask_derivatives_are_one_sided():
    mask = np.zeros(SIZE, bool)
    mask[16:32, 24:40] = True
    flow = linear(a=0.02, d=0.05)
    flow[mask] = 1e3  # reflections of a body
    field = from_flow(flow, spacing=8, mask=mask, validation=UNCHECKED)
    assert (field.kind[2:4, 3:5] == Kind.MASKED).all() and field.count(Kind.MASKED) == 4
    known = field.kind == Kind.MEASURED
    assert np.allclose(field.divergence[known], 0.07) and np.isnan(field.divergence[~known]).all()


def test_a_tensor_is_a_flow_too():
    flow = linear(0.01, 0.02)
    tensor = torch.from_numpy(np.moveaxis(flow, -1, 0).copy())
    assert np.allclose(from_flow(flow).u, from_flow(tensor).u)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: on_grid(linear(), 0), "from 1 to 48"),
        (lambda: on_grid(linear(), 49), "from 1 to 48"),
        (lambda: on_grid(linear(), 8, np.zeros((4, 4))), "the mask must have the shape"),
        (lambda: Calibration(dt=0), "dt must be a positive number"),
        (lambda: Calibration(px_per_mm=-2), "px_per_mm must be a positive number"),
        (lambda: Calibration(origin=(1, float("nan"))), "origin is a place"),
        (lambda: from_flow(linear(), validation=Validation(max_disagreement=1)), "backward flow"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
