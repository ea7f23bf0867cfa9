"""Real pairs are found and methods compared with the right aggregator."""

import numpy as np
import pytest

from featherflow.errors import FileError
from featherflow.evaluation import compare, find_samples, markdown_table


def test_finds_every_real_pair(shared_data):
    samples = find_samples(shared_data)
    counts = {}
    for sample in samples:
        counts[sample.group] = counts.get(sample.group, 0) + 1
        assert sample.frame1.exists() and sample.frame2.exists() and sample.flow.exists(), sample
    assert counts == {
        "middlebury": 4, "sintel-clean": 5, "sintel-final": 7, "kitti2012": 1, "kitti2015": 1, "flyingchairs": 7, "piv": 5,
    }
    assert len(find_samples(shared_data, flagged=True)) == len(samples) + 2


def test_zero_flow_has_the_documented_error(shared_data):
    """The mean lengths recorded with the data: a wrong pair, validity or mean would show."""
    samples = [s for s in find_samples(shared_data) if s.group in ("middlebury", "kitti2015")]
    zero = compare({"zero": lambda a, b: np.zeros((*a.shape[:2], 2), np.float32)}, samples)
    assert zero.epe["zero"]["middlebury"] == pytest.approx((3.91 + 1.26 + 8.39 + 3.80) / 4, abs=0.01)
    assert zero.epe["zero"]["kitti2015"] == pytest.approx(9.03, abs=0.01)
    assert "| zero | 4.34 | 9.03 |" in markdown_table(zero)


def test_the_truth_has_no_error(shared_data):
    samples = [s for s in find_samples(shared_data) if s.group == "piv"]
    truths = iter([s.read()[2] for s in samples])
    assert compare({"truth": lambda a, b: next(truths)}, samples).epe["truth"]["piv"] == 0.0


def test_a_folder_without_pairs(tmp_path):
    with pytest.raises(FileError, match="no pair"):
        find_samples(tmp_path)
    with pytest.raises(FileError, match="no folder"):
        find_samples(tmp_path / "none")
