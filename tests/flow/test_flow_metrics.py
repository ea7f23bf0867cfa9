"""Metrics: would catch a confused aggregator, a threshold off by its sign, unknown pixels that count, lost digits."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherflow.errors import InputError
from featherflow.flow import FlowMetrics, epe, read_flow_with_valid


def pair(errors, lengths=None):
    """Prediction and truth (1, N, 2): truth upwards of `lengths`, the prediction off by `errors` to the right."""
    errors = np.asarray(errors, float)
    truth = np.zeros((1, len(errors), 2))
    truth[0, :, 1] = 0 if lengths is None else lengths
    flow = truth.copy()
    flow[0, :, 0] += errors
    return flow, truth


def one(flow, truth, valid=None):
    return FlowMetrics().update(flow, truth, valid).errors


def test_epe_map():
    flow, truth = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    flow[0, 1], truth[1, 0], truth[1, 1] = (3, 4), np.nan, 1.6e9
    np.testing.assert_array_equal(epe(flow, truth), [[0, 5], [np.nan, np.nan]])
    np.testing.assert_array_equal(epe(flow, truth, valid=[[0, 255], [1, 1]]), [[np.nan, 5], [np.nan, np.nan]])


def test_thresholds_are_strict():
    scores = one(*pair([1, 1.01, 3, 3.01, 5, 5.01, 0, 0, 0, 0]))
    assert (scores.outliers_1px, scores.outliers_3px, scores.outliers_5px) == (50, 30, 10)
    assert scores.fl == 30
    assert scores.epe == pytest.approx(1.803)


def test_fl_needs_both_thresholds():
    # 4 px is an outlier on a motion of 79 px (5 % are 3.95), not on one of 81 (4.05), nor on the bound itself.
    assert one(*pair([4, 4, 4, 2.9], [79, 81, 80, 0])).fl == 25


def test_per_image_and_pooled_differ_as_they_should():
    metrics = FlowMetrics()
    metrics.update(*pair([10, 10]), name="small")
    metrics.update(*pair([0, 0, 0, 0, 0, 0, 0, 0]), name="large")
    result = metrics.result()
    assert result.per_image.epe == (10 + 0) / 2
    assert result.pooled.epe == 20 / 10
    assert result.per_image.fl == 50 and result.pooled.fl == 20
    assert result.per_image.outliers_5px == 50 and result.pooled.outliers_5px == 20
    assert result.per_image.aae == pytest.approx(math.degrees(math.atan(10)) / 2)
    assert result.pooled.aae == pytest.approx(math.degrees(math.atan(10)) / 5)
    assert (result.images, result.pixels, result.images_without_truth) == (2, 10, 0)
    assert [(each.name, each.pixels, each.errors.epe) for each in result.each] == [("small", 2, 10), ("large", 8, 0)]


def test_images_of_one_size_give_one_number():
    rng = np.random.default_rng(0)
    metrics = FlowMetrics()
    for _ in range(4):
        metrics.update(rng.normal(0, 5, (6, 7, 2)), rng.normal(0, 5, (6, 7, 2)))
    result = metrics.result()
    for name in ("epe", "fl", "outliers_1px", "outliers_3px", "outliers_5px", "aae"):
        assert getattr(result.per_image, name) == pytest.approx(getattr(result.pooled, name), rel=1e-14)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4))
def test_angle_agrees_with_the_arc_cosine(numbers):
    flow, truth = np.array(numbers).reshape(2, 1, 1, 2)
    a, b = np.append(flow.ravel(), 1), np.append(truth.ravel(), 1)
    cosine = np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)
    assert one(flow, truth).aae == pytest.approx(np.degrees(np.arccos(cosine)), abs=2e-6)


def test_angle_in_closed_form_and_at_tiny_errors():
    assert one(*pair([1])).aae == pytest.approx(45, abs=1e-12)
    assert one(np.full((1, 1, 2), -1.0), np.full((1, 1, 2), 1.0)).aae == pytest.approx(math.degrees(math.acos(-1 / 3)))
    assert one(*pair([1e-9])).aae == pytest.approx(math.degrees(1e-9), rel=1e-6)  # an arc cosine would say 0


def test_order_of_images_changes_no_digit():
    rng = np.random.default_rng(1)
    images = [pair(rng.exponential(3, n), rng.exponential(30, n)) for n in (3, 50, 7, 400, 1)]
    results = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        metrics = FlowMetrics()
        for index in order:
            metrics.update(*images[index])
        results.append(metrics.result())
    assert results[0].pooled == results[1].pooled and results[0].per_image == results[1].per_image


def test_float64_sums():
    # 2^24 + 1 is where a float32 sum of ones stops counting; here 0.1 would already drift.
    flow, truth = np.full((1000, 1000, 2), 0.06, np.float32), np.full((1000, 1000, 2), 0.14, np.float32)
    expected = math.sqrt(2) * (float(np.float32(0.14)) - float(np.float32(0.06)))
    assert one(flow, truth).epe == pytest.approx(expected, rel=1e-12)


def test_unknown_truth_does_not_count_and_may_meet_any_prediction():
    flow, truth = pair([1, 2, 3, 4])
    truth[0, 1], truth[0, 2] = np.nan, 1.666666752e9
    flow[0, 1] = flow[0, 3] = np.nan
    image = FlowMetrics().update(flow, truth, valid=[[True, True, True, False]])
    assert (image.pixels, image.errors.epe) == (1, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_prediction_must_be_finite_where_it_counts(value):
    flow, truth = pair([1, 2, 3, 4])
    flow[0, 2, 1] = value
    metrics = FlowMetrics()
    with pytest.raises(InputError, match=r"frame 7: the flow is not finite on 1 pixels .* \(x, y\) = \(2, 0\)"):
        metrics.update(flow, truth, name="frame 7")
    with pytest.raises(InputError, match="not finite"):
        epe(flow, truth)
    with pytest.raises(InputError, match="none of the 0 images"):
        metrics.result()  # the refused image left nothing behind


def test_image_without_truth_enters_no_mean():
    metrics = FlowMetrics()
    metrics.update(*pair([6]))
    empty = metrics.update(*pair([9]), valid=[[0]], name="empty")
    assert (empty.pixels, empty.errors) == (0, None)
    result = metrics.result()
    assert (result.per_image.epe, result.images, result.images_without_truth) == (6, 1, 1)


def test_shapes_must_agree():
    with pytest.raises(InputError, match=r"\(4, 5\) and \(5, 4\)"):
        epe(np.zeros((4, 5, 2)), np.zeros((5, 4, 2)))
    with pytest.raises(InputError, match=r"valid mask .* \(4, 5\), but got \(5, 4\)"):
        epe(np.zeros((4, 5, 2)), np.zeros((4, 5, 2)), np.ones((5, 4)))
    with pytest.raises(InputError, match="the truth"):
        epe(np.zeros((4, 5, 2)), np.zeros((2, 4, 5)))


def test_tensor_prediction():
    torch = pytest.importorskip("torch")
    flow, truth = pair([1, 2, 6])
    tensor = torch.from_numpy(flow).permute(2, 0, 1)[None]
    assert one(tensor, truth, torch.tensor([[True, False, True]])).epe == 3.5


def test_report_is_json():
    metrics = FlowMetrics()
    metrics.update(*pair([1, 2]), name="a")
    metrics.update(*pair([1, 2]), valid=[[0, 0]], name="b")
    report = json.loads(json.dumps(metrics.result().as_dict(), allow_nan=False))
    assert report["pooled"]["epe"] == 1.5 and report["per_image"]["outliers_1px"] == 50
    assert report["each"][0] == {"name": "a", "pixels": 2, "errors": report["pooled"]}
    assert report["each"][1] == {"name": "b", "pixels": 0, "errors": None}


def test_zero_flow_on_a_real_sample(shared_data):
    truth, valid = read_flow_with_valid(shared_data / "kitti2015" / "000010" / "flow_occ" / "000010_10.png")
    scores = one(np.zeros_like(truth), truth)
    assert scores.epe == pytest.approx(9.03, abs=5e-3)  # the mean length in the data's own README
    assert scores.fl == scores.outliers_3px == pytest.approx(100 * (np.hypot(*truth[valid].T) > 3).mean())
