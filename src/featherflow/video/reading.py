"""Clips from anywhere: video files, folders and globs of images, cameras, pipes of raw frames.

A clip gives its frames one at a time, upright and in RGB, each with the exact time at which it is shown.
"""

from __future__ import annotations

import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import FileError, InputError
from ..images import IMAGE_SUFFIXES, Still, page_times, read_scaled, sequence_range
from ..pixels import Range, check_range, eight_bits, parse_size
from ..sequences import gaps, is_pattern, stills
from .containers import open_video
from .failures import reading_errors, require_av
from .gif import is_cut_gif
from .standard import standard_input

_log = logging.getLogger(__name__)

_LATEST = 2**62  # microseconds; containers count in 64 bits
_MUCH_OF_IT = Fraction(9, 10)  # what a file says of its length may be a little wrong

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

    def take(self, times: Iterable[tuple[Fraction, Any]]) -> Iterator[tuple[Fraction, Any]]:
        """Of (time, anything) in order of time, those that are selected."""
        first, seen, tick = None, 0, -1
        for time, what in times:
            if self.start is not None and time < self.start - _ROUNDING:
                continue
            if self.end is not None and time >= self.end - _ROUNDING:
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
        self.stills = [
            (time, still, length)
            for time, (still, length) in selection.take(
                zip(times, zip(frames, lengths, strict=True), strict=False)  # times never end
            )  # times never end
        ]
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


class VideoClip(Clip):
    """Whatever FFmpeg reads, through PyAV.

    Args:
        opener: opens the container; called again for each pass where the clip is repeatable.
    """

    def __init__(self, name: str, opener, selection: Selection, repeatable: bool = True, path: Path | None = None):
        self.name, self.selection, self.repeatable, self._open = name, selection, repeatable, opener
        self._index: int | None = None  # of the stream, once it is chosen
        container, stream = self._opened()
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or USUAL_RATE)
        self.time_base = Fraction(stream.time_base or 1 / self.rate)
        self.origin = min((s.start_time * s.time_base for s in container.streams if s.start_time is not None), default=Fraction(0))
        frames = stream.frames or round((container.duration or 0) * self.rate / 1_000_000)
        if repeatable and frames:
            self.expected = selection.count(frames, self.rate)
            self._length = Fraction(frames) / self.rate
        self._declared = self._turn = None
        if repeatable and stream.duration:
            self._declared = stream.duration * self.time_base
        elif repeatable and container.duration and not container.streams.audio:  # a container lasts as long as its longest stream
            self._declared = Fraction(container.duration, 1_000_000)
        if path is not None:
            self.files = (path,)
            self.audio = path if container.streams.audio else None
        self.metadata = MappingProxyType({**container.metadata, **{k: v for k, v in stream.metadata.items() if k == "language"}})
        decoded = self._decode(container, stream)
        first = next(decoded, None)
        if first is None:
            container.close()
            raise FileError(f"'{name}' holds no video frame that can be read.")
        self.colour = _colour(first[1])
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
            frames = _closing(container, _chain(first, decoded))
        elif self.repeatable:
            frames = self._frames_from(self.selection.start)
        else:
            raise InputError(f"'{self.name}' can be read once only.")
        with closing(frames):
            for time, frame in self.selection.take(self._to_the_end(frames)):
                yield Picture(self._upright(frame), time, _duration(frame))

    def _to_the_end(self, frames: Iterable[tuple[Fraction, Any]]) -> Iterator[tuple[Fraction, Any]]:
        """The same frames, and an error where they end long before the file says."""
        time, last = Fraction(0), None
        is_cut = self.repeatable and any(map(is_cut_gif, self.files))
        for time, last in _but_last(frames) if is_cut else frames:
            yield time, last
        # The last picture may stay for long; as many pictures as the file says are all there are.
        length = max((_duration(last) or 0) if last is not None else 0, 2 / self.rate)
        if self._declared is not None and time + length < _MUCH_OF_IT * self._declared and not self._all_there(time):
            raise FileError(
                f"'{self.name}' is cut short: it says that it lasts {float(self._declared):.2f} s, but its pictures end at "
                f"{float(time):.2f} s."
            )
        if is_cut:
            raise FileError(f"'{self.name}' is cut short after {float(time):.2f} s: it ends within a picture.")

    def _all_there(self, end: Fraction) -> bool:
        """Whether a file holds as many packets of video as it says, the last of them shown at `end` [s]."""
        container, stream = self._opened()
        with closing(container):
            if not stream.frames:
                return False
            times = []
            with reading_errors(self.name):
                for packet in container.demux(stream):
                    if packet.pts is not None and packet.size:
                        times.append(packet.pts * Fraction(packet.time_base) - self.origin)
            return len(times) >= stream.frames and max(times) <= end

    def pairs(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not self.repeatable or not self.expected:
            return
        start = self.selection.start or Fraction(0)
        end = min(self.selection.end or self._length, self._length)
        for k in range(count):
            at = start + (end - start) * Fraction(k, count)
            step = Selection(at, None, self.selection.stride, self.selection.fps)
            with closing(self._frames_from(at)) as frames:
                found = [self._upright(frame) for _, frame in _first(2, step.take(frames))]
            if len(found) == 2:
                yield found[0], found[1]

    def _opened(self):
        """The container and its video stream: as FFmpeg chooses, the largest, the default one before all, and no single picture."""
        with reading_errors(self.name):
            container = self._open()
        # Without a decoder a stream does not even know its size.
        streams = [stream for stream in container.streams.video if stream.codec_context is not None and not _is_cover(stream)]
        if not streams:
            what = "no video but a picture" if container.streams.video else "no video"
            container.close()
            raise FileError(f"'{self.name}' holds {what}.")
        streams.sort(
            key=lambda stream: (bool(stream.disposition & _DEFAULT), (stream.width or 0) * (stream.height or 0)), reverse=True
        )
        if self._index is None:
            self._index = streams[0].index
            if len(streams) > 1 and self.repeatable:
                self._index = self._first_of_several([stream.index for stream in streams])
        return container, container.streams[self._index]

    def _first_of_several(self, indices: list[int]) -> int:
        """Of video streams, best first, the first that holds more than one picture, else the best; a still may come unmarked.

        Raises:
            FileError: where each holds one picture.
        """
        counts, pictures = dict.fromkeys(indices, 0), 0
        with reading_errors(self.name), closing(self._open()) as container:
            # A damaged file ends here early and without an error: decoding says where.
            with suppress(Exception):
                for packet in container.demux([container.streams[index] for index in indices]):
                    counts[packet.stream.index] += bool(packet.size)
                    if counts[indices[0]] > 1:
                        break
                if all(count == 1 for count in counts.values()):
                    pictures = len(counts)
        if pictures:
            raise FileError(
                f"'{self.name}' holds {pictures} video streams of one picture each, which are no clip; save them as image files "
                "and name those as frames."
            )
        return next((index for index in indices if counts[index] > 1), indices[0])

    def _frames_from(self, start: Fraction | None) -> Generator[tuple[Fraction, Any], None, None]:
        """(time, frame) from a keyframe at or before `start` on.

        Containers go where they think best: to a time of decoding, or of showing, or past the keyframe. What counts is the time of
        the first keyframe that is decoded there; what is shown before it may lack what it is made from. Where that is too late, it
        is sought further back, and at last from the beginning.
        """
        back = Fraction(0)
        while start and start > back:
            container, stream = self._opened()
            with reading_errors(self.name):
                container.seek(min(int((start - back + self.origin) * 1_000_000), _LATEST))
            frames = self._decode(container, stream)
            landed = next(((time, frame) for time, frame in frames if frame.key_frame or time > start), None)
            if landed is not None and landed[0] <= start:
                yield from _closing(container, _chain(landed, frames))
                return
            container.close()
            back = 4 * back or Fraction(1)
        container, stream = self._opened()
        yield from _closing(container, self._decode(container, stream))

    def _decode(self, container, stream) -> Generator[tuple[Fraction, Any], None, None]:
        """(time, frame) in order of time; a frame without a time follows the one before at the usual rate.

        What a frame does not say of its colours (those of ProRes may not), the container does, in MOV and MP4 in the atom `colr`.
        """
        time = None
        told = {name: int(getattr(stream.codec_context, name)) for name in _UNKNOWN}  # decoders may overwrite it
        told = {name: value for name, value in told.items() if value != _UNKNOWN[name]}
        frames = _until_damage(container, stream)
        while True:
            with reading_errors(self.name, "" if time is None else f" after {float(time):.2f} s"):
                frame = next(frames, None)
            if frame is None:
                return
            for name, value in told.items():
                if int(getattr(frame, name)) == _UNKNOWN[name]:
                    setattr(frame, name, value)
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
            image = frame.to_ndarray(format="rgb24" if self.colour.bits <= 8 else "rgb48le")
        # Looking at the matrix ties a frame to its side data and keeps both until Python collects circles; once will do.
        if self._turn is None or self._turn[0] != frame.rotation:
            self._turn = (frame.rotation, _matrix(frame))
        image = np.ascontiguousarray(_turned(image, *self._turn[1]))
        if hasattr(self, "width") and image.shape[:2] != (self.height, self.width):
            raise FileError(
                f"'{self.name}' changes its size from {self.width}x{self.height} to {image.shape[1]}x{image.shape[0]} px in the "
                "middle; cut it there."
            )
        return image


_UNKNOWN = {"color_primaries": 2, "color_trc": 2, "colorspace": 2, "color_range": 0}  # as FFmpeg counts them
_DEFAULT, _COVER = 0x1, 0x400  # FFmpeg's AV_DISPOSITION_DEFAULT and _ATTACHED_PIC


def _is_cover(stream) -> bool:
    return bool(int(stream.disposition) & _COVER)


def _duration(frame) -> Fraction | None:
    return frame.duration * Fraction(frame.time_base) if frame.duration and frame.time_base else None


def _colour(frame) -> Colour:
    bits = max((component.bits for component in frame.format.components), default=8)
    return Colour(bits, int(frame.color_primaries), int(frame.color_trc))


def _matrix(frame) -> tuple[int, int, int, int]:
    """a, b, c, d of a frame's display matrix, by which x' = a x + c y and y' = b x + d y."""
    matrix = next((side for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = (int(number) for number in np.frombuffer(bytes(matrix), np.int32)[:5])
    return a, b, c, d


def _turned(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """An image as a display matrix shows it, in steps of 90 degrees, mirrored where it says so."""
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def open_clip(
    source: str | os.PathLike[str],
    *,
    start: float | None = None,
    end: float | None = None,
    stride: int = 1,
    fps: float | None = None,
    size: str | None = None,
    pixel_format: str = "rgb24",
    value_range: Range | None = None,
) -> Clip:
    """A clip by its name.

    Args:
        source: a video file; a folder or glob of images, in order of name; a camera's number; `-` for raw frames on standard
            input, or YUV4MPEG2 where no size is given.
        start, end: part to take [s]; stride: take one frame of so many.
        fps: of a video or camera: take at most so many frames a second, each at its own time. Of images and raw frames: how many
            are shown in a second (default 25).
        size, pixel_format: of raw frames, `"640x480"` and FFmpeg's name of how pixels are stored.
        value_range: of images deeper than 8 bit, the numbers that are black and white.

    Raises:
        InputError: for a selection that cannot be, and a range for what says its own, as videos do; FileError: for a source
        that cannot be read; MissingExtraError: without PyAV.
    """
    source = str(source)
    check_range(value_range)
    rate = None if fps is None else _fraction(fps, "fps")
    if rate is not None and rate <= 0:
        raise InputError(f"fps is a positive number of frames per second, got {fps}.")
    selection = Selection(_fraction(start, "start"), _fraction(end, "end"), stride)
    if source == "-":
        _no_range(value_range)
        return _pipe(selection, rate, size, pixel_format)
    if Path(source).is_dir() or is_pattern(source):
        found = stills(source)
        folders = len({still.path.parent for still in found})
        notes = gaps(found) if folders == 1 else [f"the images of {folders} folders are taken as one clip."]
        for note in notes:
            _log.warning("note: %s", note)
        return ImageClip(source, found, selection, rate or USUAL_RATE, value_range=value_range)
    selection = Selection(selection.start, selection.end, stride, rate)
    if source.isdigit() and not Path(source).exists():
        _no_range(value_range)
        return _camera(int(source), selection)
    path = Path(source)
    if not path.exists():
        raise FileError(f"There is no file or folder '{source}'.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        shown = page_times(path)
        if len(shown) == 1:
            raise InputError(f"'{source}' is a single frame; name a video, or a folder or quoted glob of frames.")
        pages = [Still(path, page) for page in range(len(shown))]
        return ImageClip(source, pages, Selection(selection.start, selection.end, stride), rate or USUAL_RATE, shown, value_range)
    _no_range(value_range)
    require_av()
    return VideoClip(source, lambda: open_video(path), selection, path=path)


def _no_range(value_range: Range | None) -> None:
    if value_range is not None:
        raise InputError("--range is for images deeper than 8 bit; a video says itself which numbers are black and white.")


def _pipe(selection: Selection, rate: Fraction | None, size: str | None, pixel_format: str) -> VideoClip:
    av = require_av()
    if size is None:
        return _announced(selection, rate)
    if parse_size(size) is None:
        raise InputError(f"Raw frames from a pipe need their size, as in --size 640x480; got {size}.")
    if pixel_format not in av.video.format.names:
        raise InputError(f"FFmpeg knows no pixel format '{pixel_format}'; raw frames are often rgb24, bgr24, gray or yuv420p.")
    options = {"video_size": size, "pixel_format": pixel_format, "framerate": str(rate or USUAL_RATE)}
    return VideoClip("standard input", lambda: av.open(standard_input(), format="rawvideo", options=options), selection, False)


def _announced(selection: Selection, fps: Fraction | None) -> VideoClip:
    """YUV4MPEG2 on standard input, which says its size and rate itself."""
    av = require_av()
    selection = Selection(selection.start, selection.end, selection.stride, fps)

    def opener():
        file = standard_input()
        try:
            return av.open(file, format="yuv4mpegpipe")
        except (av.error.FFmpegError, ValueError, OSError):  # the latter two where nothing can be read there
            raise InputError(
                "What comes on standard input is no YUV4MPEG2; raw frames from a pipe need their size, as in --size 640x480."
            ) from None

    return VideoClip("standard input", opener, selection, False)


def _camera(number: int, selection: Selection) -> VideoClip:
    av = require_av()
    device, kind = {
        "darwin": (str(number), "avfoundation"),
        "win32": (f"video={number}", "dshow"),
    }.get(sys.platform, (f"/dev/video{number}", "v4l2"))
    return VideoClip(f"camera {number}", lambda: av.open(device, format=kind), selection, False)


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


def _until_damage(container, stream) -> Generator[Any, None, None]:
    """Decoded frames; where one cannot be read, what the decoder still holds of those shown before it, and then the error."""
    packet = None
    try:
        for packet in container.demux(stream):
            yield from packet.decode()
            packet = None
    except Exception:
        held: list[Any] = []
        with suppress(Exception):
            held += stream.codec_context.decode(None)
        for frame in held:
            if packet is None or None in (packet.pts, frame.pts) or frame.pts < packet.pts:
                frame.time_base = stream.time_base  # which those of a packet have
                yield frame
        raise


def _but_last(frames: Iterable[tuple[Fraction, Any]]) -> Iterator[tuple[Fraction, Any]]:
    """The same without the last, which is drawn in part; where an error says so, that stands in its place."""
    held = None
    try:
        for item in frames:
            if held is not None:
                yield held
            held = item
    except FileError:
        if held is not None:
            yield held
        raise


def _closing(container, frames):
    with closing(container):
        yield from frames


def _first(count: int, items):
    for _, item in zip(range(count), items, strict=False):  # as many as there are, up to a count
        yield item
