"""Clips at another rate of pictures: any number a second, any number of times as slow, repeats taken out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from ..classical import METHODS, opencv
from ..errors import InputError
from ..inference import Estimator
from ..pixels import Range
from ..video import (
    THRESHOLD,
    Clip,
    Pace,
    Picture,
    Step,
    VideoJobResult,
    change,
    check_clip_outputs,
    check_threshold,
    open_clip,
    steps,
    video_job,
)
from .interpolation import interpolate
from .repeats import Unrepeated

_LARGEST_FACTOR = 64
_FASTEST = 1000  # pictures per second
_NTSC = (24, 30, 48, 60, 72, 90, 96, 120, 240)  # of which a thousand take 1001/1000 of the time
_NEARLY = Fraction(1, 200)  # per second; 23.98 is 24000/1001
_SLOWEST = 1000


def as_rate(text: str | float | Fraction) -> Fraction:
    """Pictures per second: `60`, `60000/1001`, and 59.94 as what is meant by it, 60000/1001.

    Raises:
        InputError: for what is no number above 0, or above 1000.
    """
    rate = _number(text, "The rate of pictures")
    for whole in _NTSC:
        exact = Fraction(whole * 1000, 1001)
        if rate != whole and abs(rate - exact) < _NEARLY:
            return exact
    if not 0 < rate <= _FASTEST:
        raise InputError(f"The rate of pictures lies above 0 and up to {_FASTEST} a second, got {text}.")
    return rate


def _number(text: str | float | Fraction, what: str) -> Fraction:
    try:
        # Without a fraction line by way of a float, whose exponent is bounded.
        return Fraction(text if "/" in str(text) else str(float(text)))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{what} is a number such as 60, 59.94 or 60000/1001, got '{text}'.") from None


@dataclass(frozen=True)
class Timeline:
    """Which times of a clip are shown, and when.

    Attributes:
        slower: the clip takes so many times as long.
        rate: pictures per second; None: `factor` for each frame of the clip, at its times.
        origin: time of the clip [s] from which the pictures are counted.
    """

    slower: Fraction = Fraction(1)
    rate: Fraction | None = None
    factor: int = 1
    origin: Fraction = Fraction(0)

    def due(self, begin: Fraction, end: Fraction) -> list[tuple[Fraction, Fraction]]:
        """(when it is shown, time of the clip) [s] of each picture from a time of the clip up to but not including another."""
        if self.rate is None:
            times = [begin + Fraction(k, self.factor) * (end - begin) for k in range(self.factor)]
            return [(self.slower * time, time) for time in times]
        step = 1 / (self.rate * self.slower)
        numbers = range(math.ceil((begin - self.origin) / step), math.ceil((end - self.origin) / step))
        return [(self.slower * self.origin + k / self.rate, self.origin + k * step) for k in numbers]

    def floor(self, time: Fraction) -> Fraction:
        """The last time of the clip at or before another at which a picture is due."""
        if self.rate is None:
            return time
        step = 1 / (self.rate * self.slower)
        return self.origin + (time - self.origin) // step * step

    def pace(self, clip: Clip) -> Pace:
        """The rate and the times of the video that is made of a clip."""
        if self.rate is not None:
            return Pace(self.rate, 1 / self.rate, self.slower)
        finer = clip.time_base * self.slower / self.factor
        return Pace(clip.selection.rate(clip.rate) * self.factor / self.slower, Fraction(1, finer.denominator), self.slower)


def interpolate_video(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    factor: int | None = None,
    to_fps: str | float | Fraction | None = None,
    slower: str | float | Fraction = 1,
    duplicates: bool = False,
    cuts: float = THRESHOLD,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    size: str | None = None,
    pixel_format: str = "rgb24",
    codec: str | None = None,
    crf: int | None = None,
    bits: int | None = None,
    sound: bool = True,
    stretch_sound: bool = False,
    overwrite: bool = False,
    value_range: Range | None = None,
    estimator: Estimator | None = None,
    also: str = "auto",
    progress: Callable[[int, int | None], None] | None = None,
) -> VideoJobResult:
    """A clip with another number of pictures a second, slower, or both; with its depth, colours, duration and sound.

    A picture that falls on a frame of the clip is that frame. The codec decides how near it stays to what it was: ffv1 and PNG
    files change nothing. The last frame is held as long as it was, so that the clip keeps its length.

    Args:
        source: as `featherflow.video.open_clip`; `-` also for YUV4MPEG2.
        output: as `featherflow.video.video_writer`.
        factor: so many pictures for each frame of the clip, 2 to 64, between its own times, even or not. Default: 2, where neither
            to_fps nor slower is given.
        to_fps: so many pictures a second instead, at even times, also where the clip's are not: see `as_rate`.
        slower: the clip takes so many times as long, 1 or more; without factor and to_fps with as many pictures a second as it has.
        duplicates: leave frames out that repeat the one before, as pulldown makes them, and interpolate across them.
        cuts: likeness below which two frames are two scenes, see `featherflow.video.change`, and the nearer one is repeated.
            0: never.
        bits: 10 writes a clip of 8 bit in 10, by a codec that keeps them. Default: as the clip.
        sound: copy it; it is left out where slower is more than 1.
        stretch_sound: stretch the sound with the clip at its pitch, encoded anew.
        also: a method whose motion is taken where the frames fit it clearly better than the estimator's: small and thin things that
            move fast. "auto": `dis`, where OpenCV is there and the estimator is a network; "none": none.
        others: as `featherflow.video.flow_video`.

    Raises:
        InputError: for a rate, factor or slowness that cannot be; others as `featherflow.video.flow_video`.
    """
    if factor is not None and to_fps is not None:
        raise InputError("Say how many pictures by --factor or by --to-fps, not by both.")
    if factor is not None and (isinstance(factor, bool) or factor != int(factor) or not 2 <= factor <= _LARGEST_FACTOR):
        raise InputError(f"The factor must be a whole number from 2 to {_LARGEST_FACTOR}, got {factor}.")
    slow = _number(slower, "How many times as slow")
    if not 1 <= slow <= _SLOWEST:
        raise InputError(f"A clip can be made 1 to {_SLOWEST} times as slow, got {slower}.")
    if stretch_sound and slow == 1:
        raise InputError("--stretch-sound is for --slower; at its own speed the sound is copied as it is.")
    if bits not in (None, 10):
        raise InputError(f"The bits must be 10, got {bits}; without the option they are those of the clip.")
    rate = None if to_fps is None else as_rate(to_fps)
    check_threshold(cuts)
    clip = open_clip(source, start=start, end=end, fps=fps, size=size, pixel_format=pixel_format, value_range=value_range)
    if rate is None and factor is None and slow > 1:
        rate = clip.selection.rate(clip.rate)
    line = Timeline(slow, rate, factor or 2)
    pace = line.pace(clip)
    total = None if clip.expected is None else math.ceil(clip.expected * slow * pace.rate / clip.selection.rate(clip.rate))
    check_clip_outputs(
        clip, [("the video", output)], overwrite, 1 if total is None or not clip.expected else -(-total // clip.expected) + 1
    )
    estimator = Estimator() if estimator is None else estimator
    made = _Made(
        clip,
        line,
        cuts,
        Unrepeated(clip) if duplicates else None,
        deepen=bits is not None and clip.colour.bits <= 8,
        other=_other(also, estimator),
    )
    result = video_job(
        clip,
        made.items(estimator),
        lambda picture: picture,
        output,
        estimator,
        codec=codec,
        crf=crf,
        bits=bits,
        sound=sound and (slow == 1 or stretch_sound),
        pace=pace,
        hold=lambda: made.held,
        total=total,
        progress=progress,
    )
    return replace(result, cuts=made.cuts, duplicates=None if made.unrepeated is None else made.unrepeated.count)


def _other(name: str, estimator: Estimator) -> Estimator | None:
    """The method that is asked beside an estimator, by `interpolate_video`'s `also`.

    Raises: as `featherflow.Estimator`.
    """
    if name == "auto":
        name = "dis" if opencv.is_installed() and estimator.model not in METHODS else "none"
    return None if name in ("none", estimator.model) else Estimator(name, device=str(estimator.device))


class _Made:
    """The pictures of a clip on a timeline, and what was found on the way."""

    def __init__(
        self, clip: Clip, line: Timeline, threshold: float, unrepeated: Unrepeated | None, deepen: bool, other: Estimator | None
    ):
        self.clip, self.line, self.threshold, self.unrepeated, self.deepen = clip, line, threshold, unrepeated, deepen
        self.other = other
        self.cuts = 0
        #: How long the last picture is shown [s]; None: as long as the one before.
        self.held: Fraction | None = None

    def items(self, estimator: Estimator) -> Iterator[tuple[Fraction, np.ndarray]]:
        """(when it is shown [s], picture), in order."""
        begin: Fraction | None = None
        step = None
        for step in steps(self.clip, estimator, backward=True, taken=self.unrepeated):
            if begin is None:
                if self.clip.selection.start:
                    self.line = replace(self.line, origin=step.first.time)
                begin = self.line.floor(step.first.time)
            due = self.line.due(begin, step.second.time)
            pictures = self._between(step, [self._share(step, time) for _, time in due])
            yield from ((shown, picture) for (shown, _), picture in zip(due, pictures, strict=True))
            begin = step.second.time
        if step is None:
            return
        last = step.second
        length = last.duration or last.time - step.first.time
        if self.line.rate is None:
            self.held = self.line.slower * length
            yield self.line.slower * last.time, self._as_written(last)
        else:
            for shown, _ in self.line.due(last.time, last.time + length):
                yield shown, self._as_written(last)

    @staticmethod
    def _share(step: Step, time: Fraction) -> Fraction:
        """How far a time lies between two frames, from 0 to 1; what is due a little before the first shows that."""
        return max((time - step.first.time) / (step.second.time - step.first.time), Fraction(0))

    def _as_written(self, picture: Picture) -> np.ndarray:
        return picture.image.astype(np.uint16) * 257 if self.deepen else picture.image

    def _between(self, step: Step, shares: list[Fraction]) -> list[np.ndarray]:
        first, second = self._as_written(step.first), self._as_written(step.second)
        between = change(step.first.image, step.second.image, step.flow, self.threshold)
        self.cuts += between.breaks
        if between.breaks or between.kind == "same":
            return [first if share < Fraction(1, 2) else second for share in shares]
        times = [float(share) for share in shares if share]
        also = [self.other.both(step.first.image, step.second.image)] if times and self.other else []
        made = iter(interpolate(first, second, *step.both(), times, also))
        return [next(made) if share else first for share in shares]
