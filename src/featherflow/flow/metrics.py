"""How far a flow is from the truth, each number with its aggregator.

`per_image` is the mean over images of each image's mean; `pooled` is the mean over all valid pixels of all images, as
KITTI's development kit takes it. On images with different numbers of valid pixels the two differ, so no number leaves
this file without the name of its aggregator.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from featherflow.errors import InputError
from featherflow.flow.fields import Flow, Mask, as_field, as_mask, known

# KITTI 2015 (Menze and Geiger, CVPR 2015): an outlier is off by more than 3 px and by more than 5 % of the true length.
FL_PIXELS = 3.0
FL_FRACTION = 0.05

_NAMES = ("epe", "fl", "outliers_1px", "outliers_3px", "outliers_5px", "aae")


def epe(flow: Flow, truth: Flow, valid: Mask | None = None) -> np.ndarray:
    """End-point error of each pixel, `|flow - truth|` (Otte and Nagel, ECCV 1994; Baker et al., IJCV 2011).

    Args:
        flow, truth: `(H, W, 2)` arrays or `(2, H, W)` / `(1, 2, H, W)` tensors [px].
        valid: `(H, W)`, true or non-zero where the truth counts; where it is NaN or beyond 1e9 px it never does.

    Returns `(H, W)` float64 [px], NaN where the truth does not count.

    Raises `InputError` for shapes that do not agree and for a prediction that is not finite on a valid pixel.
    """
    field, true, counts = _aligned(flow, truth, valid)
    errors = np.full(counts.shape, np.nan)
    errors[counts] = _end_point_errors(field[counts], true[counts])
    return errors


@dataclass(frozen=True)
class FlowErrors:
    """Errors under one aggregator.

    `epe`: end-point error [px]. `fl`: KITTI outliers, EPE > 3 px and > 5 % of the true length [% of pixels].
    `outliers_Npx`: pixels with EPE > N px [%]. `aae`: angle between (u, v, 1) and its truth [degrees] (Barron et al.,
    IJCV 1994; Baker et al., IJCV 2011).
    """

    epe: float
    fl: float
    outliers_1px: float
    outliers_3px: float
    outliers_5px: float
    aae: float


@dataclass(frozen=True)
class ImageErrors:
    """Errors of one image: means over its `pixels` valid pixels. An image without any has `errors` None."""

    name: str | None
    pixels: int
    errors: FlowErrors | None


@dataclass(frozen=True)
class FlowResult:
    """What `FlowMetrics` found, by aggregator; `as_dict` makes it ready for JSON.

    `images` and `pixels` count what entered: images with at least one valid pixel, and all valid pixels.
    `images_without_truth` counts the images that had none; they enter neither aggregator.
    """

    per_image: FlowErrors
    pooled: FlowErrors
    images: int
    pixels: int
    images_without_truth: int
    each: tuple[ImageErrors, ...]

    def as_dict(self) -> dict:
        """Plain dictionaries, lists and numbers, in the fields' order."""
        result = asdict(self)
        result["each"] = list(result["each"])
        return result


class FlowMetrics:
    """Errors over a set of images, fed one by one.

        metrics = FlowMetrics()
        for name, flow, truth in pairs:
            metrics.update(flow, truth, name=name)
        print(metrics.result().pooled.fl, metrics.result().per_image.epe)

    All sums are float64, and those over images are exactly rounded: the order of the images changes no digit.
    """

    def __init__(self) -> None:
        self._images: list[tuple[str | None, int, dict[str, float]]] = []

    def update(self, flow: Flow, truth: Flow, valid: Mask | None = None, name: str | None = None) -> ImageErrors:
        """Add one image and return its own errors.

        Arguments as for `epe`; `name` is for the report. Raises `InputError` as `epe` does, and then adds nothing.
        """
        try:
            field, true, counts = _aligned(flow, truth, valid)
        except InputError as error:
            raise error if name is None else InputError(f"{name}: {error}") from None
        field, true = field[counts], true[counts]
        errors = _end_point_errors(field, true)
        lengths = np.hypot(true[:, 0], true[:, 1])
        sums = {
            "epe": float(errors.sum()),
            "fl": 100.0 * np.count_nonzero((errors > FL_PIXELS) & (errors > FL_FRACTION * lengths)),
            "outliers_1px": 100.0 * np.count_nonzero(errors > 1),
            "outliers_3px": 100.0 * np.count_nonzero(errors > 3),
            "outliers_5px": 100.0 * np.count_nonzero(errors > 5),
            "aae": float(_angles(field, true).sum()),
        }
        self._images.append((name, len(errors), sums))
        return _image_errors(*self._images[-1])

    def result(self) -> FlowResult:
        """The errors of all images so far, under both aggregators.

        Raises `InputError` when no image with a valid pixel was added, since a mean over nothing is no number.
        """
        counted = [(pixels, sums) for _, pixels, sums in self._images if pixels]
        if not counted:
            raise InputError(f"there is nothing to average: none of the {len(self._images)} images has a valid pixel")
        pixels = sum(count for count, _ in counted)
        return FlowResult(
            per_image=FlowErrors(**{key: math.fsum(sums[key] / count for count, sums in counted) / len(counted) for key in _NAMES}),
            pooled=FlowErrors(**{key: math.fsum(sums[key] for _, sums in counted) / pixels for key in _NAMES}),
            images=len(counted),
            pixels=pixels,
            images_without_truth=len(self._images) - len(counted),
            each=tuple(_image_errors(*image) for image in self._images),
        )


def _image_errors(name: str | None, pixels: int, sums: dict[str, float]) -> ImageErrors:
    return ImageErrors(name, pixels, FlowErrors(**{key: sums[key] / pixels for key in _NAMES}) if pixels else None)


def _aligned(flow: Flow, truth: Flow, valid: Mask | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction and truth as `(H, W, 2)` float64, and where the truth counts, all of one size."""
    field, true = as_field(flow, dtype=np.float64), as_field(truth, "the truth", np.float64)
    if field.shape != true.shape:
        raise InputError(f"flow and truth must have one size, but are {field.shape[:2]} and {true.shape[:2]}")
    counts = known(true)
    if valid is not None:
        counts &= as_mask(valid, counts.shape)
    missing = counts & ~np.isfinite(field).all(axis=-1)
    if missing.any():
        y, x = np.argwhere(missing)[0]
        raise InputError(
            f"the flow is not finite on {np.count_nonzero(missing)} pixels where the truth is known, first at "
            f"(x, y) = ({x}, {y}): every valid pixel needs a prediction"
        )
    return field, true, counts


def _end_point_errors(field: np.ndarray, true: np.ndarray) -> np.ndarray:
    difference = field - true
    return np.hypot(difference[..., 0], difference[..., 1])


def _angles(field: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Angle [degrees] between (u, v, 1) and its truth, `(N, 2)` each.

    From sine and cosine, where the usual arc cosine alone would lose half of the digits at small angles.
    """
    u, v, s, t = field[:, 0], field[:, 1], true[:, 0], true[:, 1]
    sine = np.sqrt((v - t) ** 2 + (s - u) ** 2 + (u * t - v * s) ** 2)
    return np.degrees(np.arctan2(sine, u * s + v * t + 1))
