"""Sparsification and calibration: would catch a curve that removes the best first, ties that follow the order of pixels, an area
that is not 0 for the oracle, and a calibration error that forgets how many pixels a bin has."""

import numpy as np
import pytest

from featherflow.errors import InputError
from featherflow.evaluation.sparsification import ause, calibration, sparsification


def test_a_case_by_hand():
    errors = np.array([4.0, 1.0, 2.0, 1.0])
    np.testing.assert_allclose(sparsification(errors, -errors, 4), [1, (1 + 1 + 2) / 3 / 2, 0.5, 0.5])
    np.testing.assert_allclose(sparsification(errors, errors, 4), [1, 7 / 3 / 2, 1.5, 2])
    assert ause(errors, -errors, 4) == 0
    assert ause(errors, errors, 4) == pytest.approx((0 + 0.5 + 1 + 1.5) / 4)


def test_the_order_of_equal_confidences_counts_nothing():
    errors = np.random.default_rng(0).exponential(size=1000)
    flat = sparsification(np.sort(errors), np.zeros(1000))
    np.testing.assert_allclose(flat, 1)
    coarse = np.round(-errors)
    shuffled = np.random.default_rng(1).permutation(1000)
    assert ause(errors, coarse) == pytest.approx(ause(errors[shuffled], coarse[shuffled]), abs=1e-12)


def test_between_the_oracle_and_chance():
    random = np.random.default_rng(2)
    errors = random.exponential(size=20_000)
    by_noise = [ause(errors, -errors + noise * random.normal(size=errors.size)) for noise in (0, 0.3, 1, 3)]
    assert by_noise == sorted(by_noise) and by_noise[0] == 0
    # Of exponential errors the oracle's curve is known: the mean of the smallest share s is 1 + (1 - s) * log(1 - s) / s.
    left = 1 - np.arange(1, 100) / 100
    oracle = np.append(1, 1 + (1 - left) * np.log(1 - left) / left)
    assert ause(errors, random.random(errors.size)) == pytest.approx(1 - oracle.mean(), abs=0.02)
    assert ause(np.zeros(5), np.arange(5.0)) == 0


def test_calibration_by_hand():
    found = calibration(np.array([True, True, False, False]), np.array([0.9, 0.95, 0.91, 0.2]), 10)
    assert found.pixels == (1, 3)
    assert found.correct == pytest.approx((0, 2 / 3)) and found.confidence == pytest.approx((0.2, 0.92))
    assert found.error == pytest.approx((0.2 * 1 + abs(0.92 - 2 / 3) * 3) / 4)
    random = np.random.default_rng(0)
    said = random.random(200_000)
    assert calibration(random.random(said.size) < said, said).error < 0.01
    assert calibration(random.random(said.size) < said**2, said).error > 0.1


def test_what_cannot_be_ordered_is_refused():
    for errors, confidence in (([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([1.0], [np.inf]), ([[1.0]], [[1.0]])):
        with pytest.raises(InputError):
            sparsification(np.array(errors), np.array(confidence))
    for confidence in ([1.1], [-0.1], [np.nan]):
        with pytest.raises(InputError):
            calibration(np.array([True]), np.array(confidence))
