"""What a clip is: frames one at a time, upright and in RGB, each with the exact time at which it is shown; and clips of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import InputError
from ..images import Still, read_scaled, sequence_range
from ..pixels import Range, eight_bits

_ROUNDING = Fraction(1, 1_000_000)  # s; a time that was written down with six decimals still means its frame

USUAL_RATE = Fraction(25)  # frames per second where nothing says how many


@dataclass(frozen=True)
class Picture:
    """One frame of a clip."""

    #: `(H, W, 3)` RGB: uint8, or uint16 in all 16 bits where the source holds more than 8.
    image: np.ndarray
    #: When it is shown [s], 0 at the beginning of the source; exact.
    time: Fraction
    #: How long it is shown [s]; None where the source does not say.
    duration: Fraction | None = None

    @property
    def shown(self) -> np.ndarray:
        """The image in 8 bit."""
        return eight_bits(self.image)


@dataclass(frozen=True)
class Colour:
    """How numbers stand for colours, in the code points of ITU-T H.273; 2 is unknown."""

    #: Bits of a component.
    bits: int = 8
    primaries: int = 2
    transfer: int = 2

    @property
    def is_hdr(self) -> bool:
        """PQ or HLG."""
        return self.transfer in (16, 18)


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are taken.

    From `start` up to but not including `end` [s], every `stride`-th of them, and of these no more than `fps` a second; with
    `through` also the first that comes after `end`, which makes a pair with the last before it. Frames that are taken keep their
    times.
    """

    start: Fraction | None = None
    end: Fraction | None = None
    stride: int = 1
    fps: Fraction | None = None
    through: bool = False

    def __post_init__(self):
        if self.start is not None and self.start < 0:
            raise InputError(f"The start is a time in seconds, 0 or more, got {float(self.start):g}.")
        if self.end is not None and self.end <= (self.start or 0):
            raise InputError(f"The end must come after the start, got {float(self.start or 0):g} to {float(self.end):g} s.")
        if self.stride < 1:
            raise InputError(f"The stride is a whole number, 1 or more, got {self.stride}.")

    def take(self, times: Iterable[tuple[Fraction, Any]]) -> Iterator[tuple[Fraction, Any]]:
        """Of (time, anything) in order of time, those that are selected."""
        first, seen, tick = None, 0, -1
        for time, what in times:
            if self.start is not None and time < self.start - _ROUNDING:
                continue
            if self.end is not None and time >= self.end - _ROUNDING:
                if self.through:
                    yield time, what
                return
            seen += 1
            if (seen - 1) % self.stride:
                continue
            first = time if first is None else first
            if self.fps is not None:
                if int((time - first) * self.fps) <= tick:
                    continue
                tick = int((time - first) * self.fps)
            yield time, what

    def rate(self, rate: Fraction) -> Fraction:
        """Frames per second that are taken of so many, on average."""
        return min(rate / self.stride, self.fps) if self.fps is not None else rate / self.stride

    def count(self, frames: int, rate: Fraction) -> int:
        """About how many frames are taken of a source of `frames` frames, `rate` a second."""
        length = Fraction(frames) / rate
        last = length if self.end is None else min(length, self.end)
        return max(round((last - (self.start or 0)) * self.rate(rate)), 0) + (self.through and last < length)


USUAL_COLOUR = Colour()


class Clip(ABC):
    """Frames in order of time; iterate it for `Picture`s.

    Attributes:
        name: how messages call it.
        width, height: of the upright frames [px].
        rate: frames per second, on average.
        time_base: all times are multiples of it [s].
        expected: about how many frames will come; None where nobody knows.
        pixel_aspect: width of a pixel over its height.
        audio: file whose sound belongs to the clip, or None.
        files: what is read.
        colour: how numbers stand for colours.
        scaled: the numbers of the source that became 0 and 65535, where they were others.
        metadata: what the source says of itself: title, artist, creation_time, ...
        repeatable: whether it can be iterated again from the beginning.
    """

    name: str
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    expected: int | None = None
    pixel_aspect = Fraction(1)
    audio: Path | None = None
    files: tuple[Path, ...] = ()
    colour = USUAL_COLOUR
    scaled: Range | None = None
    metadata: Mapping[str, str] = MappingProxyType({})
    repeatable = True
    selection: Selection

    @abstractmethod
    def __iter__(self) -> Iterator[Picture]: ...

    def pairs(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Up to `count` pairs of neighbouring frames, spread over the whole clip; none where that cannot be had beforehand."""
        return iter(())


class ImageClip(Clip):
    """Still pictures, shown one after the other, scaled alike.

    Args:
        durations: how long each is shown [s]; 0 or None: as the rate says.
        value_range: the numbers that are black and white in pictures deeper than 8 bit. Default: see `featherflow.pixels`.
    """

    def __init__(
        self,
        name: str,
        frames: list[Still],
        selection: Selection,
        rate: Fraction,
        durations: list[float] | None = None,
        value_range: Range | None = None,
    ):
        self.name, self.selection = name, selection
        lengths = [Fraction(seconds).limit_denominator(1000) or 1 / rate for seconds in durations or [0.0] * len(frames)]
        times = accumulate(lengths, initial=Fraction(0))
        self.rate = 1 / (sum(lengths, Fraction(0)) / len(lengths))
        self.time_base = 1 / rate if len(set(lengths)) == 1 and lengths[0] == 1 / rate else Fraction(1, 1000)
        timed = zip(times, zip(frames, lengths, strict=True), strict=False)  # one time more, where the last picture ends
        self.stills = [(time, still, length) for time, (still, length) in selection.take(timed)]
        self.expected = len(self.stills)
        if not self.stills:
            raise InputError(f"No image of '{name}' lies between the start and the end that were asked for.")
        self.files = tuple({still.path: None for _, still, _ in self.stills})
        self._given = value_range
        self._common = None if value_range else sequence_range([still for _, still, _ in self.stills])
        first = read_scaled(self.stills[0][1], self._common, self._given)
        self.height, self.width = first.shape[:2]
        self.colour = Colour(8 * first.itemsize)
        black_and_white = value_range or self._common or (0.0, 1.0)
        self.scaled = black_and_white if self.colour.bits > 8 and black_and_white != (0, 65535) else None

    def __iter__(self) -> Iterator[Picture]:
        for time, still, length in self.stills:
            yield Picture(self._read(still), time, length)

    def pairs(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        last = len(self.stills) - 1
        for index in sorted({round((k + 0.5) * (last - 1) / count) for k in range(count)} if last > 0 else ()):
            yield self._read(self.stills[index][1]), self._read(self.stills[index + 1][1])

    def _read(self, still: Still) -> np.ndarray:
        image = read_scaled(still, self._common, self._given)
        if image.shape != (self.height, self.width, 3):
            raise InputError(
                f"All images of a clip must have one size, but '{still}' is {image.shape[1]}x{image.shape[0]} and the first is "
                f"{self.width}x{self.height}."
            )
        return image
