"""Real pairs are found where they lie, with the truth that belongs to them."""

import numpy as np
import pytest

from featherflow.errors import FileError
from featherflow.evaluation import Dataset, evaluate, find_samples


def test_finds_every_real_pair(shared_data):
    samples = find_samples(shared_data)
    counts = {}
    for sample in samples:
        counts[sample.group] = counts.get(sample.group, 0) + 1
        assert sample.frame1.exists() and sample.frame2.exists() and sample.flow.exists(), sample
    assert counts == {
        "middlebury": 4,
        "sintel-clean": 5,
        "sintel-final": 7,
        "kitti2012": 1,
        "kitti2015": 1,
        "flyingchairs": 7,
        "piv": 5,
    }
    assert len(find_samples(shared_data, flagged=True)) == len(samples) + 2


def test_zero_flow_has_the_documented_error(shared_data):
    """The mean lengths recorded with the data: a wrong pair, validity or mean would show."""
    zero = evaluate(
        {"zero": lambda a, b: np.zeros((*a.shape[:2], 2), np.float32)},
        [Dataset("samples", shared_data)],
        groups=("middlebury", "kitti2015"),
    )
    errors = {result.group: result.figures["per_image"]["epe"] for result in zero.results}
    assert errors["middlebury"] == pytest.approx((3.91 + 1.26 + 8.39 + 3.80) / 4, abs=0.01)
    assert errors["kitti2015"] == pytest.approx(9.03, abs=0.01)


def test_a_folder_without_pairs(tmp_path):
    with pytest.raises(FileError, match="no pair"):
        find_samples(tmp_path)
    with pytest.raises(FileError, match="no folder"):
        find_samples(tmp_path / "none")
