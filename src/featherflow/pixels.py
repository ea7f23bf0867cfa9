"""Numbers of pictures as [0, 1] or 8 bit, by one rule, the same for files and arrays, and for the two frames of a pair together
(`value_range`):

8 bit is 0 to 255; 16 bit is as many bits (8, 10, 12, 14 or 16) as the largest value of either frame needs, for cameras store 10 and
12 bit in 16; whole numbers of other types reach from 0, or the smallest if that is below, to the largest of either frame; floating
point lies in [0, 1]. A range that is given takes the place of all of these but the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from .errors import InputError

#: Shares of R, G and B in the brightness of a colour, by ITU-R BT.601.
GREY = (0.299, 0.587, 0.114)

_BAND = 1 << 22  # numbers that are converted at a time
_BITS = (8, 10, 12, 14, 16)  # that cameras store in 16

Range = tuple[float, float]


def parse_size(text: str) -> tuple[int, int] | None:
    """(height, width) of WIDTHxHEIGHT, whole numbers of pixels above 0; None for another text."""
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text, re.ASCII)
    return None if match is None else (int(match[2]), int(match[1]))


def check_range(value_range: Range | None) -> Range | None:
    """The same range.

    Raises:
        InputError: for one that is none.
    """
    if value_range is not None and not (np.isfinite(value_range).all() and value_range[0] < value_range[1]):
        raise InputError(f"A range of values is two numbers, the lower first, got {value_range[0]:g} to {value_range[1]:g}.")
    return value_range


def common_range(arrays: Sequence[np.ndarray]) -> Range | None:
    """The range by which arrays that belong together are scaled, see above; None where each of their types says its own."""
    deep = [array for array in arrays if array.dtype.kind in "iu" and array.dtype != np.uint8 and array.size]
    if not deep:
        return None
    low, high = min(float(array.min()) for array in deep), max(float(array.max()) for array in deep)
    if all(array.dtype == np.uint16 for array in deep):
        return 0.0, float(next(2**bits - 1 for bits in _BITS if high < 2**bits))
    return min(low, 0.0), max(high, low + 1, 1.0)


def range_of(arrays: Iterable[np.ndarray]) -> Range | None:
    """As `common_range`, of arrays that come one by one, of which no more than the extremes are kept."""
    return common_range([np.array([array.min(), array.max()], array.dtype) for array in arrays])


def own_range(array: np.ndarray, given: Range | None, common: Range | None) -> Range | None:
    """The range of one of several arrays: what was given, or what whole numbers have in common."""
    return given or (None if array.dtype.kind == "f" else common)


def to_unit(array: np.ndarray, name: str, value_range: Range | None = None) -> np.ndarray:
    """Numbers of any type as float32 in [0, 1].

    Raises:
        InputError: for another type, NaN or infinite values, or floating point outside [0, 1] without a range.
    """
    if array.dtype == np.uint8:
        return np.divide(array, np.float32(255), dtype=np.float32)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must hold whole or floating point numbers, got {array.dtype}.")
    floating = array.dtype.kind == "f"
    if floating and not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinite values; expected finite numbers.")
    if value_range is None and not floating:
        value_range = (0.0, 65535.0) if array.dtype == np.uint16 else common_range([array])
    if value_range is None:
        unit = array.astype(np.float32)
        if unit.size:
            check_unit(unit.min(), unit.max(), name)
        return unit.clip(0.0, 1.0)
    low, high = value_range
    unit = np.empty(array.shape, np.float32)
    rows = max(_BAND // max(array[:1].size, 1), 1)
    for top in range(0, len(array), rows):  # in bands: of a whole large picture, numbers of 64 bit would take gigabytes
        unit[top : top + rows] = ((array[top : top + rows].astype(np.float64) - low) / (high - low)).clip(0.0, 1.0)
    return unit


def check_unit(low: float, high: float, name: str) -> None:
    """Refuse floating point numbers from `low` to `high` outside [0, 1], with `InputError`."""
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(
            f"{name} is floating point and must lie in [0, 1], got {low:.4g} to {high:.4g}; scale it, or name the "
            "numbers that are black and white (--range LOW,HIGH; value_range in Python; contrast limits in napari)."
        )


def eight_bits(image: np.ndarray) -> np.ndarray:
    """A picture of uint8, uint16 in all 16 bits or float in [0, 1], as uint8."""
    if image.dtype.kind == "f":
        return np.round(image * 255).astype(np.uint8)
    return image if image.dtype == np.uint8 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    """A picture of any type, scaled by its own range: `(H, W, 3)` uint8."""
    if array.dtype == np.uint8:
        return three_channels(array, name)
    return three_channels(np.round(to_unit(array, name, common_range([array])) * 255.0).astype(np.uint8), name)


def three_channels(array: np.ndarray, name: str) -> np.ndarray:
    """`(H, W)`, `(H, W, C)` or `(B, H, W, C)`, C from 1 to 4, with three channels: grey repeated, alpha dropped.

    Raises:
        InputError: for another shape.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or array.shape[-1] not in (1, 2, 3, 4):
        raise InputError(f"{name} must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}.")
    return np.repeat(array[..., :1], 3, axis=-1) if array.shape[-1] < 3 else array[..., :3]
