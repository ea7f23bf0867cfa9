"""Frames of a clip that repeat the one before, as pulldown and animation make them: found, left out, the others evenly spaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from ..video import Picture

#: More equal frames than this are a picture that stands still, and nothing to interpolate across.
LONGEST_RUN = 6
_BLOCK = 16  # px
# What compression adds to a repeat: up to so many grey levels of 255, mean over a block; and up to so many where that is a small
# share of what moves around it, which it was on clips of three encoders (at most 0.33 and 17; other frames came to 0.9 and more).
_ALIKE, _AT_MOST, _SHARE = 3.0, 18.0, 0.45
_NEAR = 4  # frames before and after

# Mean over four intervals: cadences of two (3:2) and of four (2:1:1:1) frames come out even.
_WEIGHTS = (Fraction(1, 8), Fraction(1, 4), Fraction(1, 4), Fraction(1, 4), Fraction(1, 8))
_AROUND = len(_WEIGHTS) // 2
_FARTHEST = Fraction(7, 16)  # of the way to a neighbour; below a half no two change places


def largest_change(first: np.ndarray, second: np.ndarray) -> float:
    """Mean difference of two frames `(H, W, 3)`, uint8 or uint16, in the block of 16x16 px where it is largest [1/255]."""
    height, width = first.shape[:2]
    apart = np.abs(first.astype(np.float32) - second).mean(axis=2)  # subtracting whole numbers would wrap
    rows = np.add.reduceat(apart, np.arange(0, height, _BLOCK), axis=0)
    blocks = np.add.reduceat(rows, np.arange(0, width, _BLOCK), axis=1)
    high, wide = (np.diff([*range(0, side, _BLOCK), side]).astype(np.float32) for side in (height, width))
    return float((blocks / np.outer(high, wide)).max()) * 255 / np.iinfo(first.dtype).max


class Unrepeated:
    """Pictures without those that repeat the one before; iterate it.

    Each picture that is left stands for its repeats. Where some were left out, the times of those around are evened out, by less
    than half of the time between two, so that 24 frames a second that were spread over 30 or 60 move evenly again. A run of more
    than `LONGEST_RUN` equal frames stands still as long as it did.

    Attributes:
        count: pictures left out so far.
    """

    def __init__(self, pictures: Iterable[Picture]):
        self.pictures, self.count = pictures, 0

    def __iter__(self) -> Iterator[Picture]:
        part: list[tuple[Picture, int]] = []
        known: deque[tuple[Fraction, int]] = deque(maxlen=2 * _AROUND + 1)  # times and lengths of runs
        for picture, run, stands in self._runs():
            part.append((picture, run))
            known.append((picture.time, run))
            if len(part) > _AROUND and not stands:
                yield _evened(part.pop(0)[0], known, len(known) - 1 - _AROUND)
            if stands:
                while part:
                    yield _evened(part.pop(0)[0], known, len(known) - 1 - len(part))
                known.clear()

    def _runs(self) -> Iterator[tuple[Picture, int, bool]]:
        """The first picture of each run, how many there are, and whether the even spacing ends with it."""
        kept = last = None
        run, any_yet = 0, False
        for picture, repeats in self._judged():
            if repeats:
                last, run = picture, run + 1
                continue
            if kept is not None and last is not None:
                yield from self._run(kept, last, run, stands=run > LONGEST_RUN)
                any_yet = True
            kept = last = picture
            run = 1
        if kept is None or last is None:
            return
        *others, (picture, run, _) = self._run(kept, last, run, stands=run > LONGEST_RUN or (run > 1 and not any_yet))
        yield from others
        length = None if last.duration is None else last.time + last.duration - picture.time
        yield replace(picture, duration=length), run, True

    def _judged(self) -> Iterator[tuple[Picture, bool]]:
        """Each picture, and whether it repeats the one before: by how much less it changes than those around it."""
        waiting: deque[tuple[Picture, float]] = deque()  # with the largest change from the one before
        past: deque[float] = deque(maxlen=_NEAR)

        def judge() -> tuple[Picture, bool]:
            picture, change = waiting.popleft()
            around = sorted([*past, *(other for _, other in waiting)])[-2:-1]  # the largest may be a cut
            if np.isfinite(change):
                past.append(change)
            return picture, change <= max(_ALIKE, min(_AT_MOST, _SHARE * sum(around)))

        before = None
        for picture in self.pictures:
            change = largest_change(before.image, picture.image) if before is not None else np.inf
            before = picture
            waiting.append((picture, change))
            if len(waiting) > _NEAR:
                yield judge()
        while waiting:
            yield judge()

    def _run(self, kept: Picture, last: Picture, run: int, stands: bool) -> list[tuple[Picture, int, bool]]:
        self.count += run - 1 - stands
        return [(kept, 1, True), (last, 1, False)] if stands else [(kept, run, False)]


def _evened(picture: Picture, known: deque[tuple[Fraction, int]], index: int) -> Picture:
    """The picture at its time among those around it; `index`: its place in `known`, which ends where its part of the clip does."""
    times = [time for time, _ in known]
    if len(times) < 3 or all(run == 1 for _, run in list(known)[:-1]):
        return picture

    def at(k: int) -> Fraction:  # beyond the ends: turned about them, so that these stay
        if k < 0:
            return 2 * times[0] - times[-k]
        return times[k] if k < len(times) else 2 * times[-1] - times[2 * (len(times) - 1) - k]

    even = sum(weight * at(index + k - _AROUND) for k, weight in enumerate(_WEIGHTS))
    own = times[index]
    earliest, latest = own - _FARTHEST * (own - at(index - 1)), own + _FARTHEST * (at(index + 1) - own)
    return replace(picture, time=min(max(even, earliest), latest))
