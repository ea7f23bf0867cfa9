"""Every benchmark's own figures, each under both aggregators.

All come from the end-point error e of a pixel, `|flow - truth|` [px], and the angular error; `FIGURES` names them.

* Sintel (Butler et al., ECCV 2012): EPE over matched pixels (seen in both frames) and unmatched ones, and over pixels whose
  true motion is 0 to 10, 10 to 40 and 40 or more px. All pixels count, also those that the benchmark's `invalid` masks name,
  as in the "train" columns of papers.
* KITTI 2015 (Menze and Geiger, CVPR 2015): Fl, outliers with e > 3 px and e > 5 % of the true length, over all pixels,
  background, foreground (vehicles), and non-occluded ones. KITTI 2012 (Geiger et al., CVPR 2012): Out, outliers with e > 3 px.
  The development kits read the prediction from a 16-bit PNG, so it is rounded to 1/64 px here too (`kitti_rounded`).
* Middlebury (Baker et al., IJCV 2011): R0.5, R1, R2: pixels with e above that many px; A50, A75, A95: the error that so many
  percent of the pixels do not exceed; and the angular error.

`per_image` is the mean over images of each image's figure, taken over the images that have such pixels at all; `pooled` is
the figure over all such pixels of all images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..data.benchmarks import Example
from ..flow import FlowMetrics, epe
from ..flow.files import KITTI_OFFSET, KITTI_STEPS_PER_PIXEL
from ..flow.metrics import FL_FRACTION, FL_PIXELS

AGGREGATORS = ("per_image", "pooled")


class Figure(NamedTuple):
    """How a figure is called and counted; for each of them, lower is better."""

    label: str
    unit: str


FIGURES: dict[str, Figure] = {
    "epe": Figure("EPE", "px"),
    "epe_matched": Figure("matched", "px"),
    "epe_unmatched": Figure("unmatched", "px"),
    "epe_s0_10": Figure("s0-10", "px"),
    "epe_s10_40": Figure("s10-40", "px"),
    "epe_s40": Figure("s40+", "px"),
    "epe_noc": Figure("EPE-noc", "px"),
    "fl": Figure("Fl", "%"),
    "fl_all": Figure("Fl-all", "%"),
    "fl_bg": Figure("Fl-bg", "%"),
    "fl_fg": Figure("Fl-fg", "%"),
    "fl_noc": Figure("Fl-noc", "%"),
    "out_all": Figure("Out-All", "%"),
    "out_noc": Figure("Out-Noc", "%"),
    "outliers_1px": Figure("1px", "%"),
    "outliers_3px": Figure("3px", "%"),
    "outliers_5px": Figure("5px", "%"),
    "aae": Figure("AAE", "deg"),
    "r0_5": Figure("R0.5", "%"),
    "r1": Figure("R1", "%"),
    "r2": Figure("R2", "%"),
    "a50": Figure("A50", "px"),
    "a75": Figure("A75", "px"),
    "a95": Figure("A95", "px"),
}

_COMMON = ("epe", "outliers_1px", "outliers_3px", "outliers_5px", "fl", "aae")
_PERCENTILES = {"a50": 50, "a75": 75, "a95": 95}
_FAMILIES = {
    "sintel": (
        "epe",
        "epe_matched",
        "epe_unmatched",
        "epe_s0_10",
        "epe_s10_40",
        "epe_s40",
        "outliers_1px",
        "outliers_3px",
        "outliers_5px",
        "fl",
        "aae",
    ),
    "kitti2012": (
        "epe",
        "out_all",
        "epe_noc",
        "out_noc",
        "outliers_1px",
        "outliers_3px",
        "outliers_5px",
        "fl",
        "aae",
    ),
    "kitti2015": (
        "epe",
        "fl_all",
        "fl_bg",
        "fl_fg",
        "epe_noc",
        "fl_noc",
        "outliers_1px",
        "outliers_3px",
        "outliers_5px",
        "aae",
    ),
    "middlebury": (
        "epe",
        "aae",
        "r0_5",
        "r1",
        "r2",
        "a50",
        "a75",
        "a95",
        "outliers_1px",
        "outliers_3px",
        "outliers_5px",
        "fl",
    ),
}


def family(group: str) -> str:
    """The benchmark whose figures a group of pairs has: "sintel-clean" -> "sintel"; "" for those with the common ones only."""
    return next((name for name in _FAMILIES if group == name or group.startswith(f"{name}-")), "")


def figure_keys(group: str) -> tuple[str, ...]:
    """Keys of `FIGURES` that a group of pairs has, in order of its table."""
    return _FAMILIES.get(family(group), _COMMON)


def kitti_rounded(flow: np.ndarray) -> np.ndarray:
    """What is left of a flow `(H, W, 2)` [px] after KITTI's 16-bit PNG: steps of 1/64 px from -512 to 511.98 px."""
    steps = np.rint(np.asarray(flow, np.float64) * KITTI_STEPS_PER_PIXEL) + KITTI_OFFSET
    return ((np.clip(steps, 0, 65535) - KITTI_OFFSET) / KITTI_STEPS_PER_PIXEL).astype(np.float32)


class GroupFigures:
    """The figures of one method on one group of pairs, fed pair by pair. The order of the pairs changes no digit."""

    def __init__(self, group: str) -> None:
        self.group = group
        self._common = FlowMetrics()
        self._sums: list[dict[str, tuple[float, int]]] = []
        self._errors: list[np.ndarray] = []

    def update(self, flow: np.ndarray, example: Example, name: str) -> float:
        """Add one pair and return its own mean end-point error [px], NaN if it has no known pixel.

        Args:
            flow: `(H, W, 2)` [px].

        Raises:
            InputError: for a flow of another size, or one that is not finite on a valid pixel.
        """
        kind = family(self.group)
        if kind.startswith("kitti") and np.isfinite(flow).all():
            flow = kitti_rounded(flow)
        truth, valid = example.truth()
        own = self._common.update(flow, truth, valid, name=name)
        errors = epe(flow, truth, valid)
        self._sums.append(_region_sums(kind, errors, example))
        if kind == "middlebury":  # eight images; percentiles over the whole set need all of their errors
            self._errors.append(np.sort(errors[~np.isnan(errors)]))
        return own.errors.epe if own.errors else math.nan

    def figures(self) -> dict[str, dict[str, float | None]]:
        """Aggregator, then key of `FIGURES`, to value; None where no pair has such pixels.

        Raises:
            InputError: if no pair with a known pixel was added.
        """
        result = self._common.result()
        found = {name: {key: getattr(getattr(result, name), key) for key in _COMMON} for name in AGGREGATORS}
        for key in {key for sums in self._sums for key in sums}:
            counted = [sums[key] for sums in self._sums if sums.get(key, (0, 0))[1]]
            pixels = sum(count for _, count in counted)
            found["per_image"][key] = math.fsum(total / count for total, count in counted) / len(counted) if counted else None
            found["pooled"][key] = math.fsum(total for total, _ in counted) / pixels if counted else None
        counted = [errors for errors in self._errors if len(errors)]
        if counted:
            everything = np.sort(np.concatenate(counted))
            for key, percent in _PERCENTILES.items():
                found["per_image"][key] = math.fsum(_percentile(errors, percent) for errors in counted) / len(counted)
                found["pooled"][key] = _percentile(everything, percent)
        return {name: {key: found[name].get(key) for key in figure_keys(self.group)} for name in AGGREGATORS}

    def each(self) -> dict[str, dict[str, float] | None]:
        """Name of each pair to its own common figures, by name."""
        images = self._common.result().each
        return {
            str(image.name): None if image.errors is None else {key: getattr(image.errors, key) for key in _COMMON}
            for image in sorted(images, key=lambda image: str(image.name))
        }

    def pixels(self) -> int:
        """Known pixels of all pairs."""
        return self._common.result().pixels


def _percentile(ordered: np.ndarray, percent: int) -> float:
    """The smallest error that at least `percent` % of the errors, given in order, do not exceed."""
    return float(ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)])


def _region_sums(kind: str, errors: np.ndarray, example: Example) -> dict[str, tuple[float, int]]:
    """Key to (sum over its pixels, number of its pixels); `errors` `(H, W)` is NaN where the truth does not count."""
    known = ~np.isnan(errors)
    matched = None if example.matched is None else known & example.matched
    with np.errstate(invalid="ignore"):
        length = np.hypot(*np.moveaxis(example.truth()[0].astype(np.float64), -1, 0))
        far = 100.0 * (errors > FL_PIXELS)
        outlier = far * (errors > FL_FRACTION * length)
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if kind == "sintel":
        parts = {
            "epe_s0_10": (errors, known & (length < 10)),
            "epe_s10_40": (errors, known & (length >= 10) & (length < 40)),
            "epe_s40": (errors, known & (length >= 40)),
        }
        if matched is not None:
            parts |= {"epe_matched": (errors, matched), "epe_unmatched": (errors, known & ~matched)}
    elif kind == "kitti2015":
        parts = {"fl_all": (outlier, known)}
        if example.foreground is not None:
            parts |= {"fl_bg": (outlier, known & ~example.foreground), "fl_fg": (outlier, known & example.foreground)}
        if matched is not None:
            parts |= {"epe_noc": (errors, matched), "fl_noc": (outlier, matched)}
    elif kind == "kitti2012" and matched is not None:
        parts = {"out_all": (far, known), "epe_noc": (errors, matched), "out_noc": (far, matched)}
    elif kind == "middlebury":
        with np.errstate(invalid="ignore"):
            parts = {key: (100.0 * (errors > bound), known) for key, bound in (("r0_5", 0.5), ("r1", 1.0), ("r2", 2.0))}
    return {key: (float(values[mask].sum()), int(mask.sum())) for key, (values, mask) in parts.items()}
