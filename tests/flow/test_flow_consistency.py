"""Consistency: would catch a mirrored or transposed flow, a shift by half a pixel, a border off by one, a NaN that
passes for visible, and a formula with the wrong power."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherflow.errors import InputError
from featherflow.flow import backward_warp, forward_backward_consistency, occlusion, read_flow, warp_error
from featherflow.flow.consistency import motion_boundaries


def constant(height, width, u, v):
    return np.broadcast_to(np.array([u, v], np.float32), (height, width, 2)).copy()


# Warping --------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(-4, 4), st.integers(-4, 4), st.sampled_from([np.uint8, np.float32, np.int16, np.float64]))
def test_whole_translation_is_a_shift_by_slices(dx, dy, dtype):
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(dtype)
    warped, inside = backward_warp(image, constant(6, 7, dx, dy))
    assert warped.dtype == dtype and warped.shape == image.shape
    for y in range(6):
        for x in range(7):
            within = 0 <= x + dx < 7 and 0 <= y + dy < 6
            assert inside[y, x] == within
            np.testing.assert_array_equal(warped[y, x], image[y + dy, x + dx] if within else 0)


def test_bilinear_on_a_plane_is_exact():
    y, x = np.mgrid[:20, :30].astype(np.float64)
    plane = 3 * x - 2 * y + x * y  # what bilinear interpolation reproduces
    flow = np.random.default_rng(0).uniform(-3, 3, (20, 30, 2)).astype(np.float32)
    warped, inside = backward_warp(plane, flow)
    to_x, to_y = x + flow[..., 0], y + flow[..., 1]
    np.testing.assert_allclose(warped[inside], (3 * to_x - 2 * to_y + to_x * to_y)[inside], atol=1e-9)
    np.testing.assert_array_equal(inside, (to_x >= 0) & (to_x <= 29) & (to_y >= 0) & (to_y <= 19))


def test_agrees_with_scipy_and_opencv():
    image = np.random.default_rng(1).random((25, 35)).astype(np.float32)
    flow = np.random.default_rng(2).normal(0, 4, (25, 35, 2)).astype(np.float32)
    warped, inside = backward_warp(image, flow)
    y, x = np.mgrid[:25, :35].astype(np.float64)
    ndimage = pytest.importorskip("scipy.ndimage")
    theirs = ndimage.map_coordinates(image.astype(float), [y + flow[..., 1], x + flow[..., 0]], order=1)
    np.testing.assert_allclose(warped[inside], theirs[inside], atol=1e-6)
    cv2 = pytest.importorskip("cv2")
    theirs = cv2.remap(image, (x + flow[..., 0]).astype("f4"), (y + flow[..., 1]).astype("f4"), cv2.INTER_LINEAR)
    np.testing.assert_allclose(warped[inside], theirs[inside], atol=0.06)  # OpenCV samples in steps of 1/32 px


def test_whole_numbers_are_rounded():
    image = np.array([[10, 21], [10, 21]], np.uint8)
    assert backward_warp(image, constant(2, 2, 0.5, 0))[0][0, 0] == 16  # 15.5, to even
    assert backward_warp(image, constant(2, 2, 0.25, 0))[0][0, 0] == 13
    assert backward_warp(np.full((3, 3), 255, np.uint8), constant(3, 3, 0.3, 0.7))[0][1, 1] == 255


def test_unknown_flow_and_unknown_neighbours():
    image = np.array([[1, 2, np.nan, 4]])
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, 0] = np.nan
    flow[0, 3] = (np.inf, 0)
    warped, inside = backward_warp(image, flow)
    np.testing.assert_array_equal(inside, [[False, True, True, False]])
    np.testing.assert_array_equal(warped, [[0, 2, np.nan, 0]])  # no weight, no NaN from the neighbour


def test_single_pixel_frame():
    warped, inside = backward_warp(np.array([[7]], np.uint8), np.zeros((1, 1, 2), np.float32))
    assert warped[0, 0] == 7 and inside[0, 0]


def test_warping_refuses():
    flow = np.zeros((4, 5, 2), np.float32)
    with pytest.raises(InputError, match=r"\(5, 4\) and \(4, 5\)"):
        backward_warp(np.zeros((5, 4, 3)), flow)
    with pytest.raises(InputError, match=r"\(H, W, C\)"):
        backward_warp(np.zeros((1, 4, 5, 3)), flow)
    with pytest.raises(InputError, match="real numbers"):
        backward_warp(np.zeros((4, 5), complex), flow)


def test_true_flow_brings_the_frames_together(shared_data):
    from PIL import Image

    folder = shared_data / "middlebury" / "RubberWhale"
    first, second = (np.asarray(Image.open(folder / f"frame{n}.png").convert("L"), float) for n in (10, 11))
    warped, inside = backward_warp(second, read_flow(folder / "flow10.flo"))
    assert np.abs(second - first)[inside].mean() > 5
    assert np.abs(warped - first)[inside].mean() < 1.6  # 1.40 in the data's own README


# There and back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("u, v", [(0, 0), (3, 0), (-2, 1), (0.5, -1.25), (0, 6), (40, 0)])
def test_translation_is_consistent_inside_and_occluded_outside(u, v):
    forward, backward = constant(12, 15, u, v), constant(12, 15, -u, -v)
    y, x = np.mgrid[:12, :15]
    inside = (x + u >= 0) & (x + u <= 14) & (y + v >= 0) & (y + v <= 11)
    errors = forward_backward_consistency(forward, backward)
    np.testing.assert_array_equal(np.isnan(errors), ~inside)
    assert np.abs(errors[inside]).max(initial=0) == 0
    np.testing.assert_array_equal(occlusion(forward, backward), ~inside)


def test_the_error_is_the_length_of_the_sum():
    errors = forward_backward_consistency(constant(3, 9, 1, 0), constant(3, 9, 2, 4))
    np.testing.assert_array_equal(errors[:, :8], 5)
    assert errors.dtype == np.float32


@pytest.mark.parametrize("length", [0, 5, 30])
def test_the_bound_of_the_criterion(length):
    # f = (0, length) at rows that stay inside, b = -f plus an error e to the right: occluded from
    # e^2 = 0.01 (2 length^2 + e^2) + 0.5 on.
    bound = np.sqrt((0.02 * length**2 + 0.5) / 0.99)
    for factor, expected in ((0.999, False), (1.001, True)):
        backward = constant(40, 9, bound * factor, -length)
        assert (occlusion(constant(40, 9, 0, length), backward)[: 40 - length] == expected).all()


def test_alpha_and_beta():
    forward, backward = constant(5, 5, 0, 0), constant(5, 5, 1, 0)
    assert occlusion(forward, backward).all()
    assert not occlusion(forward, backward, beta=1).any()
    assert not occlusion(forward, backward, alpha=1, beta=0).any()
    assert not occlusion(forward, forward, alpha=0, beta=0).any()
    for arguments in ({"alpha": -1}, {"beta": np.nan}):
        with pytest.raises(InputError, match="at least 0"):
            occlusion(forward, backward, **arguments)


def test_a_square_that_moves_covers_what_lies_in_front_of_it():
    # A square moves by 4 to the right over a still ground: it covers the strip of 4 px to its right.
    forward, backward = np.zeros((20, 30, 2), np.float32), np.zeros((20, 30, 2), np.float32)
    forward[5:15, 8:16, 0] = 4
    backward[5:15, 12:20, 0] = -4
    covered = np.zeros((20, 30), bool)
    covered[5:15, 16:20] = True
    np.testing.assert_array_equal(occlusion(forward, backward), covered)


def test_unknown_flow_is_not_trusted():
    forward, backward = constant(3, 6, 1, 0), constant(3, 6, -1, 0)
    forward[0, 0] = np.nan
    backward[2, 3] = 1.666666752e9
    expected = np.zeros((3, 6), bool)
    expected[:, 5] = expected[0, 0] = expected[2, 2] = True
    np.testing.assert_array_equal(occlusion(forward, backward), expected)
    np.testing.assert_array_equal(np.isnan(forward_backward_consistency(forward, backward)), expected)


def test_sizes_must_agree():
    with pytest.raises(InputError, match=r"\(4, 5\) and \(5, 4\)"):
        occlusion(np.zeros((4, 5, 2)), np.zeros((5, 4, 2)))
    with pytest.raises(InputError, match="the backward flow"):
        forward_backward_consistency(np.zeros((4, 5, 2)), np.zeros((4, 5)))


# The warp error -------------------------------------------------------------------------------------------------------


def test_warp_error_of_a_shift_and_of_flicker():
    picture = np.random.default_rng(0).integers(0, 200, (30, 40, 3)).astype(np.uint8)
    first, second = picture[:20, :30], picture[2:22, 3:33]  # second(x, y) = first(x + 3, y + 2)
    flow, backward = constant(20, 30, -3, -2), constant(20, 30, 3, 2)
    error, compared = warp_error(first, second, flow, backward)
    assert error == 0 and compared == pytest.approx(18 * 27 / 600)  # the rest has left the frame
    assert warp_error(first, second + 51, flow, backward)[0] == pytest.approx(0.04)  # (51 / 255)^2
    deep = [part.astype(np.uint16) * 257 for part in (first, second + 51)]
    assert warp_error(*deep, flow, backward)[0] == pytest.approx(0.04)
    floats = [part / 255 for part in (first, second + 51)]
    assert warp_error(*floats, flow, backward)[0] == pytest.approx(0.04)
    assert warp_error(first, second, backward, flow)[0] > 0.01  # the wrong way


def test_warp_error_leaves_out_boundaries_and_occlusions():
    flow = constant(10, 20, 0, 0)
    flow[:, 10:] = 0.5
    assert np.array_equal(np.flatnonzero(motion_boundaries(flow)[0]), [9])
    first = np.zeros((10, 20), np.uint8)
    second = first.copy()
    second[:, 9] = 255  # seen by column 9, which is a boundary, and by column 8 not at all
    assert warp_error(first, second, flow, -flow)[0] == 0
    error, compared = warp_error(first, second, flow, constant(10, 20, 5, 0))
    assert np.isnan(error) and compared == 0
    with pytest.raises(InputError, match="alike"):
        warp_error(first, second.astype(np.uint16), flow, -flow)
