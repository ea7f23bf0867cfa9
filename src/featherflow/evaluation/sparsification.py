"""How well a confidence tells good flow from bad: sparsification, and what its value means.

Pixels are removed in the order of their confidence, the least confident first, and the mean end-point error of those that are
left is followed (Kondermann et al., CVPR 2008; Aodha et al., PAMI 2013). The oracle removes them in the order of their errors.
The area between both curves, each divided by the mean error of all pixels, is the AUSE (Ilg et al., ECCV 2018): 0 for a perfect
order; an order that says nothing has the oracle's distance from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

#: Parts into which the pixels of a frame are removed.
STEPS = 100


def sparsification(errors: np.ndarray, confidence: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Mean error of the pixels that are left when shares of 0, 1/steps, ... (steps-1)/steps of them are gone, over that of all.

    Args:
        errors: `(N,)` end-point errors [px]; confidence: `(N,)` of any scale, larger for what is more trusted.

    Returns:
        `(steps,)` float64, the first 1. All zeros where no pixel has an error. Equal confidences share their mean error, so that
        their order in the frame counts nothing.

    Raises:
        InputError: for arrays of other or different shapes, without a pixel, or with values that are not finite.
    """
    errors, confidence = np.asarray(errors, np.float64), np.asarray(confidence, np.float64)
    if errors.ndim != 1 or errors.shape != confidence.shape or errors.size == 0:
        raise InputError(f"Errors and confidence must be lists of one length, got {errors.shape} and {confidence.shape}.")
    if not (np.isfinite(errors).all() and np.isfinite(confidence).all()):
        raise InputError("Errors and confidence must be finite.")
    if not errors.any():
        return np.zeros(steps)
    order = np.argsort(-confidence, kind="stable")
    errors, confidence = errors[order], confidence[order]
    first = np.flatnonzero(np.diff(confidence, prepend=np.nan))
    counts = np.diff(first, append=len(errors))
    errors = np.repeat(np.add.reduceat(errors, first) / counts, counts)
    left = np.maximum(np.ceil(len(errors) * (1 - np.arange(steps) / steps)).astype(int), 1)
    return errors.cumsum()[left - 1] / left / errors.mean()


def ause(errors: np.ndarray, confidence: np.ndarray, steps: int = STEPS) -> float:
    """Area under the sparsification error, see this module: 0 for the order of the errors themselves.

    Arguments and errors as `sparsification`.
    """
    return float((sparsification(errors, confidence, steps) - sparsification(errors, -np.asarray(errors), steps)).mean())


@dataclass(frozen=True)
class Calibration:
    """What confidences say beside what is so, in bins of confidence.

    Attributes:
        error: expected calibration error (Naeini et al., AAAI 2015): the mean distance of both, over pixels, in [0, 1].
        confidence, correct: means of each bin that is not empty; pixels: how many it has.
    """

    error: float
    confidence: tuple[float, ...]
    correct: tuple[float, ...]
    pixels: tuple[int, ...]


def calibration(correct: np.ndarray, confidence: np.ndarray, bins: int = 10) -> Calibration:
    """How far a confidence is a probability.

    Args:
        correct: `(N,)` bool; confidence: `(N,)` in [0, 1], what is said of how probable that was; bins: of equal width.

    Raises:
        InputError: for arrays of other or different shapes, without a pixel, or confidences outside of [0, 1].
    """
    correct, confidence = np.asarray(correct, np.float64), np.asarray(confidence, np.float64)
    if correct.ndim != 1 or correct.shape != confidence.shape or correct.size == 0:
        raise InputError(
            f"What was correct and confidence must be lists of one length, got {correct.shape} and {confidence.shape}."
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise InputError("A confidence lies within [0, 1].")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    pixels, said, found = (np.bincount(place, weights, bins) for weights in (None, confidence, correct))
    some = pixels > 0
    return Calibration(
        float(np.abs(said - found).sum() / len(correct)),
        tuple((said[some] / pixels[some]).tolist()),
        tuple((found[some] / pixels[some]).tolist()),
        tuple(pixels[some].astype(int).tolist()),
    )
