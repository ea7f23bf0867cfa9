"""Figures: would catch a confused mask, bound or aggregator, and a mean over no pixels that passes for zero."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherflow.data import Example
from featherflow.errors import InputError
from featherflow.evaluation.figures import FIGURES, GroupFigures, figure_keys, kitti_rounded
from featherflow.flow import read_flow, write_flow

FRAME = np.zeros((1, 1, 3), np.uint8)


def case(errors, lengths, **masks):
    """Prediction and example (1, N): truth downwards of `lengths` [px], the prediction off to the right by `errors` [px]."""
    truth = np.zeros((1, len(errors), 2), np.float32)
    truth[0, :, 1] = lengths
    flow = truth.copy()
    flow[0, :, 0] += np.asarray(errors, np.float32)
    masks = {name: np.asarray([mask], bool) for name, mask in masks.items()}
    valid = ~np.isnan(truth).any(axis=-1)
    return flow, Example(FRAME, FRAME, truth, valid, **masks)


def figures(group, *cases):
    sums = GroupFigures(group)
    for index, (flow, example) in enumerate(cases):
        sums.update(flow, example, str(index))
    return sums.figures()


def test_sintel_regions():
    found = figures("sintel-clean", case([1, 2, 4, 8, 16], [0, 9.99, 10, 40, 39.9], matched=[1, 1, 0, 0, 1]))["pooled"]
    assert found["epe"] == 31 / 5
    assert found["epe_matched"] == (1 + 2 + 16) / 3 and found["epe_unmatched"] == (4 + 8) / 2
    assert (found["epe_s0_10"], found["epe_s10_40"], found["epe_s40"]) == (1.5, 10, 8)


def test_sintel_counts_what_its_invalid_masks_name():
    found = figures("sintel-final", case([1, 3], [1, 1], invalid=[0, 1], matched=[1, 1]))["pooled"]
    assert found["epe"] == 2


def test_unknown_pixels_enter_no_region():
    found = figures("sintel-clean", case([1, 2, 3], [np.nan, 5, 50], matched=[1, 1, 0]))["pooled"]
    assert (found["epe"], found["epe_matched"], found["epe_unmatched"]) == (2.5, 2, 3)


def test_kitti_2015_outliers():
    # 4 px off is an outlier on 79 px of motion (5 % are 3.95) and none on 81 (4.05); 3 px off is none anywhere.
    flow, example = case([4, 4, 3, 3.5, 0], [79, 81, 0, 1, 1], matched=[1, 1, 1, 0, 0], foreground=[1, 0, 0, 1, 1])
    found = figures("kitti2015", (flow, example))["pooled"]
    assert found["fl_all"] == 100 * 2 / 5
    assert found["fl_bg"] == 0 and found["fl_fg"] == pytest.approx(100 * 2 / 3)
    assert found["fl_noc"] == pytest.approx(100 / 3)
    assert found["epe_noc"] == pytest.approx(11 / 3)
    assert found["outliers_3px"] == 60


def test_kitti_2012_outliers_are_absolute():
    found = figures("kitti2012", case([4, 4, 3, 1], [79, 200, 0, 1], matched=[1, 0, 1, 1]))["pooled"]
    assert found["out_all"] == 50 and found["out_noc"] == pytest.approx(100 / 3)


def test_kitti_predictions_are_rounded_as_the_file_is(tmp_path):
    # 3.007 px is above the bound, but a PNG holds 3.0 (192 steps) of it.
    assert figures("kitti2015", case([3.007], [0]))["pooled"]["fl_all"] == 0
    assert figures("kitti2015", case([3.009], [0]))["pooled"]["fl_all"] == 100
    assert figures("middlebury", case([3.007], [0]))["pooled"]["outliers_3px"] == 100
    flow = np.random.default_rng(0).uniform(-500, 500, (7, 9, 2)).astype(np.float32)
    write_flow(tmp_path / "000000_10.png", flow)
    np.testing.assert_array_equal(kitti_rounded(flow), read_flow(tmp_path / "000000_10.png"))
    np.testing.assert_array_equal(kitti_rounded(np.array([[[900.0, -900.0]]])), [[[511.984375, -512]]])


def test_middlebury_statistics():
    found = figures("middlebury", case([0.5, 0.6, 1.5, 2.5], [0, 0, 0, 0]))["pooled"]
    assert (found["r0_5"], found["r1"], found["r2"]) == (75, 50, 25)
    # Half of the pixels are off by no more than 0.6 px, three quarters by no more than 1.5 px, 95 % by no more than 2.5 px.
    assert [found[key] for key in ("a50", "a75", "a95")] == [pytest.approx(value) for value in (0.6, 1.5, 2.5)]
    errors = np.linspace(0.01, 1, 100)
    assert figures("middlebury", case(errors, np.zeros(100)))["pooled"]["a95"] == pytest.approx(0.95)


def test_aggregators_differ_as_they_should():
    small = case([8, 8], [0, 50], matched=[1, 0])
    large = case([0, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 0], matched=[1] * 6)
    found = figures("sintel-clean", small, large)
    assert found["per_image"]["epe_matched"] == (8 + 2 / 6) / 2 and found["pooled"]["epe_matched"] == 10 / 7
    # Only one image has unmatched or fast pixels, and a mean over the other would be over nothing.
    assert found["per_image"]["epe_unmatched"] == found["pooled"]["epe_unmatched"] == 8
    assert found["per_image"]["epe_s10_40"] is None
    found = figures("middlebury", case([1] * 4, [0] * 4), case([3] * 2, [0] * 2))
    assert found["per_image"]["a50"] == 2 and found["pooled"]["a50"] == 1 and found["pooled"]["a75"] == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(0, 60, width=32), min_size=1, max_size=7), min_size=1, max_size=6), st.randoms())
def test_order_changes_no_digit_and_images_of_one_size_agree(images, shuffle: random.Random):
    cases = [
        case(errors, [length % 50 for length in range(len(errors))], matched=[i % 2 for i in range(len(errors))])
        for errors in images
    ]
    for group in ("sintel-clean", "middlebury"):
        first = figures(group, *cases)
        shuffled = cases[:]
        shuffle.shuffle(shuffled)
        assert figures(group, *shuffled) == first
        if len({len(errors) for errors in images}) == 1:
            assert math.isclose(first["pooled"]["epe"], first["per_image"]["epe"], rel_tol=1e-12, abs_tol=1e-12)


def test_one_pair_has_one_answer():
    found = figures("kitti2015", case([4, 1], [1, 1], matched=[1, 0], foreground=[1, 0]))
    assert found["per_image"] == found["pooled"]


def test_every_group_has_named_figures():
    for group in ("sintel-clean", "kitti2012", "kitti2012-noc", "kitti2015", "middlebury", "piv", "folder", "spring"):
        assert set(figure_keys(group)) <= set(FIGURES) and figure_keys(group)[0] == "epe"


def test_a_flow_that_is_not_finite_is_refused_with_its_pair():
    flow, example = case([1, 2], [1, 1])
    flow[0, 1] = np.nan
    for group in ("piv", "kitti2015"):
        with pytest.raises(InputError, match="night: the flow is not finite on 1 pixels"):
            GroupFigures(group).update(flow, example, "night")
