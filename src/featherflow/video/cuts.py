"""What lies between two neighbouring frames of a clip: motion, nothing at all, or a cut.

A flow is found between any two frames, also where they have nothing in common or show nothing. Two figures tell how far it can be
believed: how much structure a frame has, and how alike both frames are in their structure once the flow is taken back. Structure is
what is left of brightness when its local mean is taken away, so that fades, flashes and the light of a scene do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import InputError
from ..pixels import GREY, eight_bits

#: Two frames less alike than this along the flow, from -1 to 1, are taken for two scenes. On real pairs of frames a network and DIS
#: came to 0.79 and more on all but one, of smoke, and on pairs of different scenes to 0.26 and 0.59 at most.
THRESHOLD = 0.65
#: Frames as alike as this where they are, without the flow, are one scene; different ones came to 0.13 at most, the smoke to 0.41.
_IN_PLACE = 0.25

_SIDE = 160  # px; frames are looked at no larger, for the sake of speed and against noise
_FINE_SIDE = 480  # px; where small motions are told from none
_REACH = 8  # the local mean is that of squares of an eighth of the frame
_EMPTY = 0.75  # grey levels of 255, standard deviation; noise of 8-bit black is below
_BETTER = 0.9  # a motion is believed where it leaves less than this share of the difference that no motion leaves


@dataclass(frozen=True)
class Change:
    """How one frame becomes the next.

    Attributes:
        kind: "same": pixel by pixel equal; "empty": at least one of the two shows nothing, as black; "cut": two scenes; "motion".
        likeness: of the structure of both along the flow, from -1 to 1; 0 where one shows nothing.
    """

    kind: Literal["same", "empty", "cut", "motion"]
    likeness: float

    @property
    def breaks(self) -> bool:
        """Whether nothing of the one frame can be followed into the other."""
        return self.kind in ("cut", "empty")


def check_threshold(threshold: float) -> None:
    """Refuse what is no threshold.

    Raises:
        InputError: outside of 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"The threshold of cuts lies from 0 (find none) to 1, got {threshold}.")


def change(first: np.ndarray, second: np.ndarray, flow: np.ndarray, threshold: float = THRESHOLD) -> Change:
    """What lies between two frames.

    Args:
        first, second: `(H, W, 3)` uint8 or uint16; flow: from the one to the other, `(H, W, 2)` [px].
        threshold: likeness below which they are a cut; 0: never, nor "empty".
    """
    if np.array_equal(first, second):
        return Change("same", 1.0)
    step = max(-(-max(first.shape[:2]) // _SIDE), 1)
    before, after = (_structure(_small(frame, step)) for frame in (first, second))
    if min(before.std(), after.std()) < _EMPTY:
        return Change("empty" if threshold > 0 else "motion", 0.0)
    along = _along(before, after, _motion(flow, step))
    is_cut = threshold > 0 and along < threshold and _correlation(before, after) < _IN_PLACE
    return Change("cut" if is_cut else "motion", along)


def shows_motion(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> bool:
    """Whether a flow makes two frames more alike than they are where they stand; fades, flashes and noise do not."""
    step = max(-(-max(first.shape[:2]) // _FINE_SIDE), 1)
    before, after = (_structure(_small(frame, step)) for frame in (first, second))
    if min(before.std(), after.std()) < _EMPTY:
        return False
    return 1 - _along(before, after, _motion(flow, step)) < _BETTER * (1 - _correlation(before, after))


def _along(before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> float:
    """Correlation of two pictures, the second fetched along the flow; 0 where next to nothing stays inside."""
    y, x = np.mgrid[: before.shape[0], : before.shape[1]]
    moved, inside = _sample(after, np.nan_to_num(np.stack((x, y), axis=-1) + flow, nan=-1.0))
    return _correlation(before[inside], moved[inside]) if inside.sum() >= before.size / 8 else 0.0


def _small(frame: np.ndarray, step: int) -> np.ndarray:
    """Brightness, `(H, W)`, 0 to 255, of squares of `step` px; what is left over at the right and below is cut off."""
    from PIL import Image

    height, width = (max(side // step, 1) * min(step, side) for side in frame.shape[:2])
    small = np.asarray(Image.fromarray(eight_bits(frame[:height, :width])).reduce(step))
    return small @ np.array(GREY, np.float32)


def _motion(flow: np.ndarray, step: int) -> np.ndarray:
    """The flow in the middle of each such square, in units of its side."""
    height, width = (max(side // step, 1) for side in flow.shape[:2])
    top, left = (min(step, side) // 2 for side in flow.shape[:2])
    return flow[top::step, left::step][:height, :width] / step


def _structure(grey: np.ndarray) -> np.ndarray:
    """Brightness without its local mean."""
    reach = max(max(grey.shape) // _REACH, 2)
    padded = np.pad(grey, reach, mode="edge").astype(np.float64)
    sums = np.pad(padded, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    size = 2 * reach + 1
    mean = (sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]) / size**2
    return grey - mean


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))


def _sample(field: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear values at places (x, y), and which of these lie inside."""
    height, width = field.shape
    x, y = places[..., 0], places[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    dx, dy = x - left, y - top
    upper = field[top, left] * (1 - dx) + field[top, right] * dx
    lower = field[bottom, left] * (1 - dx) + field[bottom, right] * dx
    return upper * (1 - dy) + lower * dy, inside
