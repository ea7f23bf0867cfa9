"""Flow over frames: would catch arrows off their pixels, a tint of the wrong hue, and unknown pixels that are painted."""

import numpy as np
import pytest

from featherflow.errors import InputError
from featherflow.flow import draw_arrows, flow_to_rgb, mark, overlay


def test_an_arrow_goes_from_its_pixel_to_where_the_pixel_goes():
    frame = np.full((61, 81, 3), 128, np.uint8)
    flow = np.full((61, 81, 2), np.nan, np.float32)
    flow[30, 20] = (40, 0)  # the only known pixel
    drawn = draw_arrows(frame, flow, step=100, magnify=1, colour=(0, 255, 0))
    ys, xs = np.nonzero((drawn != 128).any(axis=-1))
    assert abs((ys.min() + ys.max()) / 2 - 30) <= 1  # level
    assert abs(xs.min() - 20) <= 3 and abs(xs.max() - 60) <= 4  # from tail to tip, up to the halo
    heights = [np.count_nonzero(xs == x) for x in range(xs.min(), xs.max() + 1)]
    assert np.argmax(heights) > len(heights) / 2  # the head is at the far end
    assert drawn[30, 40].tolist() == [0, 255, 0]
    assert (frame == 128).all()


def test_default_colour_is_the_direction():
    flow = np.full((61, 81, 2), np.nan, np.float32)
    flow[30, 60] = (-40, 0)
    drawn = draw_arrows(np.full((61, 81), 128, np.uint8), flow, step=100, magnify=1)
    np.testing.assert_array_equal(drawn[30, 40], flow_to_rgb(np.float32([[(-1, 0)]]), 1)[0, 0])


def test_still_and_unknown_fields():
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_arrows(frame, np.full((40, 50, 2), np.nan)), frame)
    still = draw_arrows(frame, np.zeros((40, 50, 2)))
    assert still.shape == frame.shape and 0 < (still != frame).any(axis=-1).mean() < 0.5  # dots


@pytest.mark.parametrize("height, width", [(1, 1), (1, 50), (3, 2), (37, 1)])
def test_any_size_of_frame(height, width):
    frame = np.zeros((height, width, 3), np.uint8)
    assert draw_arrows(frame, np.ones((height, width, 2))).shape == frame.shape


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image": np.zeros((4, 5, 3))}, "uint8"),
        ({"image": np.zeros((4, 5, 4), np.uint8)}, r"\(H, W, 3\)"),
        ({"image": np.zeros((5, 4, 3), np.uint8)}, r"\(5, 4\), but its grid is \(4, 5\)"),
        ({"step": 1}, "step"),
        ({"magnify": 0}, "magnify"),
    ],
)
def test_arrows_refuse(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_arrows(**{"image": np.zeros((4, 5, 3), np.uint8), "flow": np.ones((4, 5, 2)), **arguments})


def test_the_tint_is_the_hue_where_it_moves_and_the_frame_where_it_rests():
    frame = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    flow = np.zeros((4, 5, 2), np.float32)
    flow[1, 1], flow[2, 2], flow[3, 3], flow[0, 4] = (8, 0), (4, 0), np.nan, (0, -80)
    before = frame.copy()
    tinted = overlay(frame, flow, scale=8, strength=0.5).astype(int)
    right, up = (flow_to_rgb(np.float32([[vector]]), 1)[0, 0].astype(float) for vector in ((1, 0), (0, -80)))
    assert np.abs(tinted[1, 1] - (0.5 * frame[1, 1] + 0.5 * right)).max() <= 1
    assert np.abs(tinted[2, 2] - (0.75 * frame[2, 2] + 0.25 * right)).max() <= 1
    assert np.abs(tinted[0, 4] - (0.5 * frame[0, 4] + 0.5 * up)).max() <= 1  # beyond the scale: the darkened hue
    rests = np.ones((4, 5), bool)
    rests[[1, 2, 0], [1, 2, 4]] = False
    np.testing.assert_array_equal(tinted[rests], frame[rests])
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image": np.zeros((5, 4), np.uint8)}, "grid"),
        ({"scale": 0}, "scale"),
        ({"strength": 1.5}, "strength"),
        ({"strength": 0}, "strength"),
    ],
)
def test_overlay_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        overlay(**{"image": np.zeros((4, 5, 3), np.uint8), "flow": np.ones((4, 5, 2)), **arguments})


def test_marked_pixels_take_the_colour_and_others_turn_grey():
    frame = np.random.default_rng(2).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = True
    marked = mark(frame, mask, (255, 0, 0)).astype(int)
    assert np.abs(marked[1, 2] - (0.8 * np.array([255, 0, 0]) + 0.2 * frame[1, 2])).max() <= 1
    assert (marked[~mask] == marked[~mask][:, :1]).all()
    with pytest.raises(InputError, match="mask"):
        mark(frame, mask.T)
