"""Clips from anywhere: video files, folders and globs of images, cameras, pipes of raw frames.

A clip gives its frames one at a time, upright and in RGB, each with the exact time at which it is shown.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import FileError, InputError, MissingExtraError
from ..frames import IMAGE_SUFFIXES, image_files, read_image
from .containers import open_video

_MUCH_OF_IT = Fraction(9, 10)  # what a file says of its length may be a little wrong

USUAL_RATE = Fraction(25)  # frames per second where nothing says how many


@dataclass(frozen=True)
class Picture:
    """One frame of a clip."""

    #: `(H, W, 3)` uint8 RGB.
    image: np.ndarray
    #: When it is shown [s], 0 at the beginning of the source; exact.
    time: Fraction


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are taken.

    From `start` up to but not including `end` [s], every `stride`-th of them, and of these no more than `fps` a second. Frames
    that are taken keep their times.
    """

    start: Fraction | None = None
    end: Fraction | None = None
    stride: int = 1
    fps: Fraction | None = None

    def __post_init__(self):
        if self.start is not None and self.start < 0:
            raise InputError(f"The start is a time in seconds, 0 or more, got {float(self.start):g}.")
        if self.end is not None and self.end <= (self.start or 0):
            raise InputError(f"The end must come after the start, got {float(self.start or 0):g} to {float(self.end):g} s.")
        if self.stride < 1:
            raise InputError(f"The stride is a whole number, 1 or more, got {self.stride}.")

    def take(self, times: Iterator[tuple[Fraction, object]]) -> Iterator[tuple[Fraction, object]]:
        """Of (time, anything) in order of time, those that are selected."""
        first, seen, tick = None, 0, -1
        for time, what in times:
            if self.start is not None and time < self.start:
                continue
            if self.end is not None and time >= self.end:
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
        return max(round((last - (self.start or 0)) * self.rate(rate)), 0)


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
    repeatable = True
    selection: Selection

    @abstractmethod
    def __iter__(self) -> Iterator[Picture]: ...

    def pairs(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Up to `count` pairs of neighbouring frames, spread over the whole clip; none where that cannot be had beforehand."""
        return iter(())


class ImageClip(Clip):
    """Image files, shown one after the other."""

    def __init__(self, name: str, paths: list[Path], selection: Selection, rate: Fraction):
        self.name, self.rate, self.time_base = name, rate, 1 / rate
        self.selection = selection
        self.paths = [(time, path) for time, path in selection.take((index / rate, path) for index, path in enumerate(paths))]
        self.expected = len(self.paths)
        if not self.paths:
            raise InputError(f"No image of '{name}' lies between the start and the end that were asked for.")
        self.height, self.width = read_image(self.paths[0][1]).shape[:2]

    def __iter__(self) -> Iterator[Picture]:
        for time, path in self.paths:
            yield Picture(self._read(path), time)

    def pairs(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        last = len(self.paths) - 1
        for index in sorted({round((k + 0.5) * (last - 1) / count) for k in range(count)} if last > 0 else ()):
            yield self._read(self.paths[index][1]), self._read(self.paths[index + 1][1])

    def _read(self, path: Path) -> np.ndarray:
        image = read_image(path)
        if image.shape != (self.height, self.width, 3):
            raise InputError(
                f"All images of a clip must have one size, but '{path}' is {image.shape[1]}x{image.shape[0]} and the first is "
                f"{self.width}x{self.height}."
            )
        return image


class VideoClip(Clip):
    """Whatever FFmpeg reads, through PyAV.

    Args:
        opener: opens the container; called again for each pass where the clip is repeatable.
    """

    def __init__(self, name: str, opener, selection: Selection, repeatable: bool = True, audio: Path | None = None):
        self.name, self.selection, self.repeatable, self._open = name, selection, repeatable, opener
        container, stream = self._opened()
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or USUAL_RATE)
        self.time_base = Fraction(stream.time_base or 1 / self.rate)
        self.origin = min((s.start_time * s.time_base for s in container.streams if s.start_time is not None), default=Fraction(0))
        frames = stream.frames or round((container.duration or 0) * self.rate / 1_000_000)
        if repeatable and frames:
            self.expected = selection.count(frames, self.rate)
            self._length = Fraction(frames) / self.rate
        self._declared = None
        if repeatable and stream.duration:
            self._declared = stream.duration * self.time_base
        elif repeatable and container.duration and not container.streams.audio:  # a container lasts as long as its longest stream
            self._declared = Fraction(container.duration, 1_000_000)
        if audio is not None and container.streams.audio:
            self.audio = audio
        decoded = self._decode(container, stream)
        first = next(decoded, None)
        if first is None:
            container.close()
            raise FileError(f"'{name}' holds no video frame that can be read.")
        image = self._upright(first[1])
        self.height, self.width = image.shape[:2]
        turned = self.height != first[1].height
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        self.pixel_aspect = 1 / aspect if turned else aspect
        self._running = None
        if repeatable:
            container.close()
        else:
            self._running = (container, decoded, first)

    def __iter__(self) -> Iterator[Picture]:
        if self._running is not None:
            container, decoded, first = self._running
            self._running = None
            frames = _chain(first, decoded)
        elif self.repeatable:
            container, stream = self._opened()
            self._seek(container, self.selection.start)
            frames = self._decode(container, stream)
        else:
            raise InputError(f"'{self.name}' can be read once only.")
        with closing(container):
            for time, frame in self.selection.take(self._to_the_end(frames)):
                yield Picture(self._upright(frame), time)

    def _to_the_end(self, frames: Iterator[tuple[Fraction, object]]) -> Iterator[tuple[Fraction, object]]:
        """The same frames, and an error where they end long before the file says."""
        time = Fraction(0)
        for time, frame in frames:
            yield time, frame
        if self._declared is not None and time + 2 / self.rate < _MUCH_OF_IT * self._declared:
            raise FileError(
                f"'{self.name}' is cut short: it says that it lasts {float(self._declared):.2f} s, but its pictures end at "
                f"{float(time):.2f} s."
            )

    def pairs(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not self.repeatable or not self.expected:
            return
        start = self.selection.start or Fraction(0)
        end = min(self.selection.end or self._length, self._length)
        container, stream = self._opened()
        with closing(container):
            for k in range(count):
                at = start + (end - start) * Fraction(k, count)
                self._seek(container, at)
                step = Selection(at, None, self.selection.stride, self.selection.fps)
                found = [self._upright(frame) for _, frame in _first(2, step.take(self._decode(container, stream)))]
                if len(found) == 2:
                    yield found[0], found[1]

    def _opened(self):
        """The container and its video stream."""
        with reading_errors(self.name):
            container = self._open()
        if not container.streams.video:
            container.close()
            raise FileError(f"'{self.name}' holds no video.")
        return container, container.streams.video[0]

    def _seek(self, container, time: Fraction | None) -> None:
        if time:
            with reading_errors(self.name):
                container.seek(int((time + self.origin) * 1_000_000))

    def _decode(self, container, stream) -> Iterator[tuple[Fraction, object]]:
        """(time, frame) in order of time; a frame without a time follows the one before at the usual rate."""
        time = None
        frames = iter(container.decode(stream))
        while True:
            with reading_errors(self.name, "" if time is None else f" after {float(time):.2f} s"):
                frame = next(frames, None)
            if frame is None:
                return
            if frame.pts is not None:
                now = frame.pts * Fraction(frame.time_base) - self.origin
            else:
                now = Fraction(0) if time is None else time + 1 / self.rate
            if time is not None and now <= time:
                continue  # a time that runs backwards shows damage; such a frame was never visible
            time = now
            yield time, frame

    def _upright(self, frame) -> np.ndarray:
        with reading_errors(self.name):
            image = frame.to_ndarray(format="rgb24")
        # FFmpeg gives the angle by which the frame is to be turned against the clock.
        image = np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
        if hasattr(self, "width") and image.shape[:2] != (self.height, self.width):
            raise FileError(
                f"'{self.name}' changes its size from {self.width}x{self.height} to {image.shape[1]}x{image.shape[0]} px in the "
                "middle; cut it there."
            )
        return image


def open_clip(
    source: str | os.PathLike,
    *,
    start: float | None = None,
    end: float | None = None,
    stride: int = 1,
    fps: float | None = None,
    size: str | None = None,
    pixel_format: str = "rgb24",
) -> Clip:
    """A clip by its name.

    Args:
        source: a video file; a folder or glob of images, in order of name; a camera's number; `-` for raw frames on standard input.
        start, end: part to take [s]; stride: take every so manieth frame.
        fps: of a video or camera: take at most so many frames a second, each at its own time. Of images and raw frames: how many
            are shown in a second (default 25).
        size, pixel_format: of raw frames, `"640x480"` and FFmpeg's name of how pixels are stored.

    Raises:
        InputError: for a selection that cannot be; FileError: for a source that cannot be read; MissingExtraError: without PyAV.
    """
    source = str(source)
    rate = None if fps is None else _fraction(fps, "fps")
    if rate is not None and rate <= 0:
        raise InputError(f"fps is a positive number of frames per second, got {fps}.")
    selection = Selection(_fraction(start, "start"), _fraction(end, "end"), stride)
    if source == "-":
        return _pipe(selection, rate or USUAL_RATE, size, pixel_format)
    if Path(source).is_dir() or (glob.has_magic(source) and not Path(source).exists()):
        return ImageClip(source, image_files(source), selection, rate or USUAL_RATE)
    selection = Selection(selection.start, selection.end, stride, rate)
    if source.isdigit() and not Path(source).exists():
        return _camera(int(source), selection)
    path = Path(source)
    if not path.exists():
        raise FileError(f"There is no file or folder '{source}'.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"'{source}' is a single frame; name a video, or a folder or quoted glob of frames.")
    require_av()
    return VideoClip(source, lambda: open_video(path), selection, audio=path)


def _pipe(selection: Selection, rate: Fraction, size: str | None, pixel_format: str) -> VideoClip:
    if size is None or not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", size):
        raise InputError(f"Raw frames from a pipe need their size, as in --size 640x480; got {size}.")
    av = require_av()
    if pixel_format not in av.video.format.names:
        raise InputError(f"FFmpeg knows no pixel format '{pixel_format}'; raw frames are often rgb24, bgr24, gray or yuv420p.")
    options = {"video_size": size, "pixel_format": pixel_format, "framerate": str(rate)}
    return VideoClip("standard input", lambda: av.open(sys.stdin.buffer, format="rawvideo", options=options), selection, False)


def _camera(number: int, selection: Selection) -> VideoClip:
    av = require_av()
    device, kind = {
        "darwin": (str(number), "avfoundation"),
        "win32": (f"video={number}", "dshow"),
    }.get(sys.platform, (f"/dev/video{number}", "v4l2"))
    return VideoClip(f"camera {number}", lambda: av.open(device, format=kind), selection, False)


def require_av():
    """The PyAV package.

    Raises:
        MissingExtraError: where it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError("Reading and writing video needs PyAV; install it with: pip install 'featherflow[video]'") from None
    return av


@contextmanager
def reading_errors(name: str, where: str = "") -> Iterator[None]:
    """FFmpeg's errors as sentences."""
    av = require_av()
    try:
        yield
    except (av.error.InvalidDataError, av.error.EOFError):
        size = Path(name).stat().st_size if Path(name).is_file() else None
        what = "it is empty" if size == 0 else "it is damaged, cut short or no video"
        raise FileError(f"'{name}' cannot be read as a video{where}: {what}.") from None
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, FileError):
            raise
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0].lower()
        raise FileError(f"'{name}' cannot be read as a video{where}: {reason}.") from None


def _fraction(value: float | None, name: str) -> Fraction | None:
    if value is None:
        return None
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{name} must be a number, got {value!r}.") from None


def _chain(first, others):
    yield first
    yield from others


def _first(count: int, items):
    for _, item in zip(range(count), items, strict=False):
        yield item
