"""Pictures: would catch a mirrored wheel, a wrong scale, lost unknown pixels, shifted bins."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featherflow.errors import FileError, InputError
from featherflow.flow import (
    automatic_scale,
    colour_wheel_legend,
    error_map,
    flow_to_rgb,
    read_flow,
    save_flow_picture,
)


def field_of(*vectors):
    return np.array([vectors], np.float32)


def middlebury_colour(u, v):
    """One pixel by the benchmark's published recipe, written as the loop of its description; u, v over the scale."""
    wheel = []
    corners = ["100", "110", "010", "011", "001", "101", "100"]
    for start, end, steps in zip(corners[:-1], corners[1:], [15, 6, 4, 11, 13, 6], strict=True):
        for i in range(steps):
            ramp = 255 * i // steps
            moves = {"00": 0, "01": ramp, "10": 255 - ramp, "11": 255}
            wheel.append([moves[a + b] for a, b in zip(start, end, strict=True)])
    radius = math.hypot(u, v)
    angle = math.atan2(-v, -u) / math.pi
    place = (angle + 1) / 2 * (len(wheel) - 1)
    low = int(place)
    part = place - low
    pixel = []
    for a, b in zip(wheel[low], wheel[(low + 1) % len(wheel)], strict=True):
        shade = ((1 - part) * a + part * b) / 255
        shade = 1 - radius * (1 - shade) if radius <= 1 else shade * 0.75
        pixel.append(255 * shade)
    return pixel


def test_hand_known_points():
    # Right, down, left, up at full length, by hand from the wheel's steps: 0, 13.5, 27 and 40.5 of 54.
    right, down, left, up = flow_to_rgb(field_of((1, 0), (0, 1), (-1, 0), (0, -1)), scale=1)[0]
    assert right.tolist() == [255, 0, 0]
    assert down.tolist() == [255, 229, 0]
    assert left.tolist() == [0, 209, 255]
    assert up.tolist() == [88, 0, 255]
    assert flow_to_rgb(field_of((0, 0)))[0, 0].tolist() == [255, 255, 255]
    assert flow_to_rgb(field_of((2, 0)), scale=4)[0, 0].tolist() == [255, 127, 127]
    assert flow_to_rgb(field_of((4, 0)), scale=4)[0, 0].tolist() == [255, 0, 0]
    assert flow_to_rgb(field_of((4.001, 0)), scale=4)[0, 0].tolist() == [191, 0, 0]


def test_minus_zero_is_zero():
    np.testing.assert_array_equal(flow_to_rgb(field_of((1, -0.0)), 1), flow_to_rgb(field_of((1, 0.0)), 1))


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-3, 3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6),
    st.floats(-3, 3, width=32).filter(lambda x: abs(x) > 1e-6),
)
def test_agrees_with_the_recipe(u, v):
    ours = flow_to_rgb(field_of((u, v)), scale=2)[0, 0].astype(float)
    if abs(math.hypot(u, v) / 2 - 1) > 1e-5:  # on the edge, rounding decides between full and darkened
        theirs = np.array(middlebury_colour(u / 2, v / 2))
        assert (np.abs(ours + 0.5 - theirs) <= 0.5 + 0.01).all()  # rounded down, up to float32 noise


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 1000))
def test_automatic_scale_darkens_nothing(seed, size):
    field = np.random.default_rng(seed).normal(size=(5, 7, 2)).astype(np.float32) * np.float32(size)
    assert automatic_scale(field) == pytest.approx(np.sqrt((field.astype(float) ** 2).sum(-1)).max(), rel=1e-6)
    picture = flow_to_rgb(field)
    assert (picture.max(axis=-1) == 255).all()  # every colour of the wheel and every tint of it has a channel at 255
    assert (picture.min(axis=-1) == 0).any()  # and the longest is at full colour


def test_scale_of_nothing():
    assert automatic_scale(np.zeros((2, 2, 2))) == automatic_scale(np.full((2, 2, 2), np.nan)) == 0.01
    assert (flow_to_rgb(np.full((2, 2, 2), 1e-6)) == 254).any() and flow_to_rgb(np.full((2, 2, 2), 1e-6)).min() > 250


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf, 1.666666752e9])
def test_unknown_is_black_and_does_not_enter_the_scale(unknown):
    field = field_of((3, 4), (unknown, 0), (0, unknown))
    assert automatic_scale(field) == 5
    picture = flow_to_rgb(field)[0]
    assert picture[0].any() and not picture[1:].any()


def test_bands_leave_no_seam():
    field = np.random.default_rng(0).normal(size=(700, 300, 2)).astype(np.float32)
    whole = flow_to_rgb(field, 2.0)
    for top in range(0, 700, 100):
        np.testing.assert_array_equal(flow_to_rgb(field[top : top + 100], 2.0), whole[top : top + 100])


def test_tensor_forms():
    torch = pytest.importorskip("torch")
    field = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    tensor = torch.from_numpy(field).permute(2, 0, 1)
    for form in (tensor, tensor[None], tensor.double(), tensor.clone().requires_grad_()):
        np.testing.assert_array_equal(flow_to_rgb(form), flow_to_rgb(field))
    assert flow_to_rgb(tensor.bfloat16()).shape == (4, 5, 3)
    with pytest.raises(InputError, match=r"but got \(3, 2, 4, 5\)"):
        flow_to_rgb(torch.zeros(3, 2, 4, 5))


@pytest.mark.parametrize("flow", [np.zeros((2, 4, 5)), np.zeros((4, 5)), np.zeros((1, 4, 5, 2)), "flow", None])
def test_no_flow(flow):
    with pytest.raises(InputError, match="the flow"):
        flow_to_rgb(flow)


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf, "wide"])
def test_no_scale(scale):
    with pytest.raises(InputError, match="scale must be a positive number"):
        flow_to_rgb(np.zeros((2, 2, 2)), scale)


def test_saved_picture_holds_its_scale(tmp_path):
    field = field_of((3, 4), (0, 0))
    assert save_flow_picture(tmp_path / "a.png", field) == 5
    assert save_flow_picture(tmp_path / "b.png", field, 8) == 8
    for name, scale in (("a.png", None), ("b.png", 8)):
        with Image.open(tmp_path / name) as picture:
            assert float(picture.text["featherflow:flow-scale-px"]) == (scale or 5)
            np.testing.assert_array_equal(np.asarray(picture), flow_to_rgb(field, scale))
    with pytest.raises(InputError, match=r"ends in \.png"):
        save_flow_picture(tmp_path / "a.jpg", field)
    with pytest.raises(FileError, match="folder does not exist"):
        save_flow_picture(tmp_path / "no" / "a.png", field)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_legend_is_the_wheel():
    legend = colour_wheel_legend(101)
    assert legend.shape == (101, 101, 3) and legend.dtype == np.uint8
    assert (legend[50, 50] > 245).all() and (legend[0, 0] == 255).all()
    # Half way to the right, down, left and up: half way between white and the hues known by hand. The row to the right
    # lies on the wheel's seam, where red meets a slightly bluish red.
    hues = {(50, 75): (255, 127, 127), (75, 50): (255, 242, 127), (50, 25): (127, 232, 255), (25, 50): (171, 127, 255)}
    for (y, x), colour in hues.items():
        assert np.abs(legend[y, x].astype(int) - colour).max() <= 12
    with pytest.raises(InputError, match="at least 3"):
        colour_wheel_legend(2)


# Error map ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, length, colour",
    [
        (0, 0, (49, 54, 149)),
        (0.18, 0, (49, 54, 149)),
        (0.2, 0, (69, 117, 180)),
        (2.9, 0, (224, 243, 248)),
        (3.1, 0, (254, 224, 144)),
        (3.1, 100, (224, 243, 248)),  # below 5 % of the length: an inlier
        (5.1, 100, (254, 224, 144)),
        (30, 0, (215, 48, 39)),
        (50, 0, (165, 0, 38)),
        (np.nan, 0, (165, 0, 38)),
    ],
)
def test_error_bins(error, length, colour):
    truth = field_of((0, length), (np.nan, 0), (0, length))
    flow = truth + field_of((error, 0), (error, 0), (error, 0))
    picture = error_map(flow, truth, valid=[[1, 1, 0]])
    assert picture[0].tolist() == [list(colour), [0, 0, 0], [0, 0, 0]]


def test_error_map_blue_means_inlier():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 60, (50, 60, 2))
    flow = truth + rng.normal(0, 4, truth.shape)
    epe = np.linalg.norm(flow - truth, axis=-1)
    outlier = (epe > 3) & (epe > 0.05 * np.linalg.norm(truth, axis=-1))
    picture = error_map(flow, truth).astype(int)
    np.testing.assert_array_equal(picture[..., 0] > picture[..., 2], outlier)
    assert 0.1 < outlier.mean() < 0.9


def test_error_map_refuses_other_sizes():
    with pytest.raises(InputError, match=r"\(4, 5\) and \(5, 4\)"):
        error_map(np.zeros((4, 5, 2)), np.zeros((5, 4, 2)))


def test_real_field_has_the_known_picture(shared_data):
    field = read_flow(shared_data / "middlebury" / "RubberWhale" / "flow10.flo")
    picture = flow_to_rgb(field)
    unknown = np.isnan(field[..., 0])
    assert not picture[unknown].any()
    rng = np.random.default_rng(0)
    for y, x in zip(rng.integers(0, 388, 50), rng.integers(0, 584, 50), strict=True):
        if not unknown[y, x]:
            theirs = middlebury_colour(*(field[y, x].astype(float) / automatic_scale(field)))
            assert np.abs(picture[y, x] + 0.5 - np.array(theirs)).max() <= 0.51
