"""Backward warping, and what the flows of both directions say about each other.

Frame 1 at x shows what frame 2 shows at x + flow(x). Pixel centres have whole coordinates, so a frame covers
0 to W - 1 and 0 to H - 1; a point outside of that range has left the frame.
"""

from __future__ import annotations

import sys

import numpy as np

from featherflow.errors import InputError
from featherflow.flow.fields import Flow, as_field, known


def backward_warp(image: np.ndarray, flow: Flow) -> tuple[np.ndarray, np.ndarray]:
    """Bring frame 2 onto frame 1's grid: `warped(x) = image(x + flow(x))`, bilinear between pixels.

    Args:
        image: `(H, W)` or `(H, W, C)` array of any real type, frame 2 or anything on its grid.
        flow: `(H, W, 2)` array or `(2, H, W)` / `(1, 2, H, W)` tensor [px], from frame 1 to frame 2.

    Returns the warped image, of the image's shape and type (whole numbers are rounded), and a boolean `(H, W)`, true
    where x + flow lies inside the frame. Elsewhere, and where the flow is unknown, the warped image is 0.

    Raises `InputError` for shapes that do not agree and for types that are not real numbers.
    """
    image = _as_image(image)
    field = as_field(flow)
    if image.shape[:2] != field.shape[:2]:
        raise InputError(f"image and flow must have one size, but are {image.shape[:2]} and {field.shape[:2]}")
    values, inside = _sample(image, field)
    values[~inside] = 0
    if image.dtype.kind in "iub":
        values = np.rint(values)
    return values.astype(image.dtype), inside


def forward_backward_consistency(flow: Flow, backward: Flow) -> np.ndarray:
    """How far there and back again ends from the start: `|f(x) + b(x + f(x))|` [px].

    It is the left side of Sundaram et al., ECCV 2010, eq. 5, before squaring; 0 where both flows describe one motion.

    Args:
        flow: f, from frame 1 to frame 2, `(H, W, 2)` array or `(2, H, W)` / `(1, 2, H, W)` tensor [px].
        backward: b, from frame 2 to frame 1, of the same size.

    Returns `(H, W)` float32 [px], NaN where x + f(x) lies outside of the frame or a flow in use is unknown.

    Raises `InputError` for another shape or type, or sizes that differ.
    """
    field, returned, _ = _there_and_back(flow, backward)
    return np.hypot(*np.moveaxis(field + returned, -1, 0)).astype(np.float32)


def occlusion(flow: Flow, backward: Flow, alpha: float = 0.01, beta: float = 0.5) -> np.ndarray:
    """Pixels of frame 1 that frame 2 does not show, by the disagreement of the two flows.

    A pixel is occluded where

        |f(x) + b(x + f(x))|^2  >  alpha * (|f(x)|^2 + |b(x + f(x))|^2) + beta

    (Sundaram et al., ECCV 2010, eq. 5; Meister et al., "UnFlow", AAAI 2018, with the same constants), where
    x + f(x) has left the frame, and where a flow in use is unknown: what cannot be shown to be visible is not trusted.

    Args:
        flow: f, from frame 1 to frame 2, `(H, W, 2)` array or `(2, H, W)` / `(1, 2, H, W)` tensor [px].
        backward: b, from frame 2 to frame 1, of the same size.
        alpha: tolerance that grows with the squared lengths, at least 0.
        beta: tolerance at rest [px^2], at least 0.

    Returns a boolean `(H, W)`, true where occluded.

    Raises `InputError` for another shape or type, sizes that differ, or a tolerance that is not at least 0.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be a number of at least 0, but is {value!r}")
    field, returned, inside = _there_and_back(flow, backward)
    disagreement = ((field + returned) ** 2).sum(axis=-1)
    allowed = alpha * ((field**2).sum(axis=-1) + (returned**2).sum(axis=-1)) + beta
    # Written as "not visible", so that the NaN of an unknown flow counts as occluded.
    return ~(inside & (disagreement <= allowed))


def motion_boundaries(flow: Flow) -> np.ndarray:
    """Pixels where the flow changes abruptly, at which neither flow nor frame is exact.

    A pixel is one where `|du|^2 + |dv|^2 > 0.01 * |f|^2 + 0.002`, with differences to the pixels right and below
    (Ruder et al., "Artistic style transfer for videos", GCPR 2016).

    Args:
        flow: `(H, W, 2)` array or `(2, H, W)` / `(1, 2, H, W)` tensor [px].

    Returns a boolean `(H, W)`, true at boundaries and where a flow in use is unknown.

    Raises `InputError` for another shape or type.
    """
    field = as_field(flow)
    field = np.where(known(field)[..., None], field, np.nan).astype(np.float64)
    steep = np.zeros(field.shape[:2])
    steep[:, :-1] += (np.diff(field, axis=1) ** 2).sum(axis=-1)
    steep[:-1] += (np.diff(field, axis=0) ** 2).sum(axis=-1)
    return ~(steep <= 0.01 * (field**2).sum(axis=-1) + 0.002)


def warp_error(frame1: np.ndarray, frame2: np.ndarray, flow: Flow, backward: Flow) -> tuple[float, float]:
    """How much one frame differs from the next along the motion, where both show the same (Lai et al., ECCV 2018).

    It is the mean of `(frame1(x) - frame2(x + f(x)))^2` over the colour channels and over the pixels that are neither occluded
    (`occlusion`) nor at `motion_boundaries`; colours are in [0, 1].

    Args:
        frame1, frame2: `(H, W)` or `(H, W, C)` arrays of one type: uint8, uint16, or floating point in [0, 1].
        flow, backward: between them in both directions, or between the frames that they were made from.

    Returns the error, NaN where no pixel is left, and the share of pixels that are left.

    Raises `InputError` for shapes or types that do not agree.
    """
    first, second = _as_image(frame1), _as_image(frame2)
    if first.shape != second.shape or first.dtype != second.dtype:
        raise InputError(f"both frames must be alike, but are {first.shape} of {first.dtype} and {second.shape} of {second.dtype}")
    white = np.iinfo(first.dtype).max if first.dtype.kind in "iu" else 1.0
    seen = ~(occlusion(flow, backward) | motion_boundaries(flow))
    if not seen.any():
        return float("nan"), 0.0
    moved, _ = backward_warp(second.astype(np.float64), flow)
    return float(np.mean(((first - moved)[seen] / white) ** 2)), float(seen.mean())


def _there_and_back(flow: Flow, backward: Flow) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f(x) and b(x + f(x)), float64 with NaN where unknown or outside, and where x + f(x) is inside the frame."""
    field, back = as_field(flow), as_field(backward, "the backward flow")
    if field.shape != back.shape:
        raise InputError(f"flow and backward flow must have one size, but are {field.shape[:2]} and {back.shape[:2]}")
    back = np.where(known(back)[..., None], back, np.float32(np.nan))
    returned, inside = _sample(back, field)
    returned[~inside] = np.nan
    field = np.where(inside[..., None], field, np.float32(np.nan)).astype(np.float64)
    return field, returned, inside


def _sample(image: np.ndarray, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`image(x + field(x))`, bilinear, float64, and where x + field(x) is inside; values outside are meaningless."""
    height, width = field.shape[:2]
    # In float64: float32 would lose the fraction of a coordinate above a few thousand pixels.
    x = np.arange(width) + field[..., 0].astype(np.float64)
    y = np.arange(height)[:, None] + field[..., 1].astype(np.float64)
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = np.where(inside, x, 0), np.where(inside, y, 0)
    left, top = x.astype(np.intp), y.astype(np.intp)
    share_x, share_y = x - left, y - top
    # On a whole coordinate the next pixel has no weight; not reading it keeps its NaN out and stays in the frame.
    right, bottom = left + (share_x > 0), top + (share_y > 0)
    if image.ndim == 3:
        share_x, share_y = share_x[..., None], share_y[..., None]
    upper = image[top, left] * (1 - share_x) + image[top, right] * share_x
    lower = image[bottom, left] * (1 - share_x) + image[bottom, right] * share_x
    return upper * (1 - share_y) + lower * share_y, inside


def _as_image(image) -> np.ndarray:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        raise InputError("the image must be a NumPy array (H, W) or (H, W, C), but got a torch tensor")
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.size == 0:
        raise InputError(f"the image must have shape (H, W) or (H, W, C), but got {image.shape}")
    if image.dtype.kind not in "fiub":
        raise InputError(f"the image must hold real numbers, but its type is {image.dtype}")
    return image
