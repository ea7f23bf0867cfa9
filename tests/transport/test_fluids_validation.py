"""Which velocities are rejected, and what stands in for them."""

import numpy as np
import pytest

from featherflow.errors import InputError
from featherflow.transport.fluids import Calibration, Kind, Validation, filled, from_flow, universal_outliers

SIZE = (12, 14)
EDGES = [(5, 5), (0, 3), (0, 0), (11, 13), (4, 0), (6, 13)]


def shear(a=2.0, b=-1.0):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    return a * x + b * y, -b * x + a * y


def by_the_letter(u, v, place, noise=0.1):
    """Equation (2) of the paper for one vector amid eight."""
    ratios = []
    for values in (u, v):
        window = values[place[0] - 1 : place[0] + 2, place[1] - 1 : place[1] + 2].ravel()
        neighbours = np.delete(window, 4)
        median = np.median(neighbours)
        ratios.append(abs(window[4] - median) / (np.median(np.abs(neighbours - median)) + noise))
    return np.hypot(*ratios)


def test_the_test_is_that_of_the_paper():
    random = np.random.default_rng(0)
    u, v = random.normal(0, 1, (2, *SIZE))
    for threshold in (1.0, 2.0, 3.0):
        found = universal_outliers(u, v, threshold)
        for place in np.ndindex(SIZE[0] - 2, SIZE[1] - 2):
            inner = (place[0] + 1, place[1] + 1)
            assert found[inner] == (by_the_letter(u, v, inner) > threshold)


def test_shear_is_no_outlier_at_edges_and_gaps_either():
    for a, b in ((3, 0), (0, 3), (2, -4)):
        u, v = shear(a, b)
        assert not universal_outliers(u, v).any()
        u[4:7, 5:9] = np.nan
        assert not universal_outliers(u, v).any()


@pytest.mark.parametrize("place", EDGES)
def test_one_outlier_is_found_wherever_it_is(place):
    u, v = shear(0.5, 0.2)
    u[place] += 5
    assert [tuple(index) for index in np.argwhere(universal_outliers(u, v))] == [place]


def test_what_has_no_neighbours_is_not_judged():
    u = np.full((5, 5), np.nan)
    u[2, 2] = 100
    assert not universal_outliers(u, u).any()


@pytest.mark.parametrize("hole", [(slice(4, 8), slice(3, 9)), (slice(5, 6), slice(5, 6))])
def test_holes_are_filled_as_linear_fields_go_on(hole):
    u, _ = shear()
    holes = np.zeros(SIZE, bool)
    holes[hole] = True
    broken = np.where(holes, 1e3, u)
    assert np.abs(filled(broken, holes) - u).max() < 1e-8


def test_each_filled_point_is_the_mean_of_those_around_it():
    values = np.random.default_rng(1).normal(size=SIZE)
    holes = np.random.default_rng(2).random(SIZE) < 0.4
    result = filled(values, holes)
    assert (result[~holes] == values[~holes]).all()
    for y, x in np.argwhere(holes):
        around = [
            result[b, a] for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)) if 0 <= b < SIZE[0] and 0 <= a < SIZE[1]
        ]
        assert result[y, x] == pytest.approx(np.mean(around), abs=1e-8)


def test_walls_are_passed_over_and_islands_stay_empty():
    values = np.ones(SIZE)
    values[:, 6] = np.nan  # a wall
    holes = np.zeros(SIZE, bool)
    holes[:, 7:] = True  # and nothing known behind it
    holes[3, 2] = True
    result = filled(values, holes)
    assert np.isnan(result[:, 6:]).all() and result[3, 2] == pytest.approx(1)


def flow_with_an_outlier():
    flow = np.zeros((48, 64, 2))
    flow[..., 0], flow[..., 1] = 3, -1
    flow[16:24, 24:32] = (30, 8)  # the square of one grid point
    return flow


@pytest.mark.parametrize(
    "validation",
    [
        Validation(),
        Validation(outlier_threshold=None, u_limits=(0, 10)),
        Validation(outlier_threshold=None, v_limits=(0, 10)),  # 8 down is -8 up
        Validation(outlier_threshold=None, max_deviations=4),
    ],
)
def test_every_test_rejects_and_replaces(validation):
    field = from_flow(flow_with_an_outlier(), spacing=8, validation=validation)
    assert field.kind[2, 3] == Kind.REPLACED and field.count(Kind.MEASURED) == field.kind.size - 1
    assert np.allclose(field.u, 3) and np.allclose(field.v, 1)


def test_limits_are_in_the_unit_of_the_velocities():
    calibration = Calibration(dt=0.01, px_per_mm=2)  # 3 px are 150 mm/s, 30 px 1500
    limits = Validation(outlier_threshold=None, u_limits=(100, 1000), replace=False)
    field = from_flow(flow_with_an_outlier(), spacing=8, calibration=calibration, validation=limits)
    assert field.kind[2, 3] == Kind.REJECTED and field.count(Kind.REJECTED) == 1 and np.isnan(field.u[2, 3])
    assert np.nanmax(field.u) == pytest.approx(150)


def test_disagreement_of_there_and_back():
    flow = flow_with_an_outlier()
    back = np.zeros_like(flow)
    back[..., 0], back[..., 1] = -3, 1
    field = from_flow(flow, spacing=8, backward=back, validation=Validation(outlier_threshold=None, max_disagreement=1))
    assert field.kind[2, 3] == Kind.REPLACED and field.count(Kind.REPLACED) == 1 and np.allclose(field.u, 3)


def test_masked_points_are_neither_judged_nor_replaced():
    mask = np.zeros((48, 64), bool)
    mask[16:24, 24:32] = True
    field = from_flow(flow_with_an_outlier(), spacing=8, mask=mask)
    assert field.kind[2, 3] == Kind.MASKED and np.isnan(field.u[2, 3]) and field.count(Kind.REPLACED) == 0


def test_nothing_known_at_all():
    field = from_flow(np.full((48, 64, 2), np.nan))
    assert (field.kind == Kind.REJECTED).all() and np.isnan(field.vorticity).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outlier_threshold": 0}, "outlier_threshold"),
        ({"u_limits": (3, 1)}, "u_limits"),
        ({"max_deviations": -1}, "max_deviations"),
    ],
)
def test_limits_that_are_none_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        Validation(**options)
