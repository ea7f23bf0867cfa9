"""Clips that FFmpeg decodes: files, cameras and pipes, to their last whole picture."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import FileError, InputError
from .clips import USUAL_RATE, Clip, Colour, Picture, Selection
from .failures import reading_errors
from .gif import is_cut_gif

_LATEST = 2**62  # microseconds; containers count in 64 bits
_OWN_CLOCK = 0x200  # FFmpeg's AVFMT_TS_DISCONT: times that begin anywhere
_MUCH_OF_IT = Fraction(9, 10)  # what a file says of its length may be a little wrong


class VideoClip(Clip):
    """Whatever FFmpeg reads, through PyAV.

    Args:
        opener: opens the container; called again for each pass where the clip is repeatable.
        size: how many bytes there were, asked at their end. Default: those of the file, if there is one.
    """

    def __init__(
        self,
        name: str,
        opener,
        selection: Selection,
        repeatable: bool = True,
        path: Path | None = None,
        size: Callable[[], int] | None = None,
    ):
        self.name, self.selection, self.repeatable, self._open = name, selection, repeatable, opener
        self._size = size if path is None else lambda: path.stat().st_size
        self._index: int | None = None  # of the stream, once it is chosen
        container, stream = self._opened()
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or USUAL_RATE)
        self.time_base = Fraction(stream.time_base or 1 / self.rate)
        self.origin = min((s.start_time * s.time_base for s in container.streams if s.start_time is not None), default=Fraction(0))
        lasts = Fraction(container.duration or 0, 1_000_000)
        since = self._counted_before(container, stream)
        frames = stream.frames or round((lasts - since if since < lasts else lasts) * self.rate)
        if repeatable and frames:
            self.expected = selection.count(frames, self.rate)
            self._length = Fraction(frames) / self.rate
        self._declared = self._turn = None
        if repeatable and stream.duration:
            self._declared = stream.duration * self.time_base - since
        elif repeatable and lasts and not container.streams.audio:  # a container lasts as long as its longest stream
            self._declared = lasts - since
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

    def _counted_before(self, container, stream) -> Fraction:
        """What of the length that a file says may lie before its first picture [s].

        Matroska, ASF and NUT count from 0 also where the first picture is shown later; FFmpeg passes that on. With an index of the
        pictures their own length is known, and that of a transport stream FFmpeg finds out itself.
        """
        if stream.frames or int(container.format.flags) & _OWN_CLOCK:
            return Fraction(0)
        return max(self.origin, Fraction(0))

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
        """(time, frame) from a keyframe at or before `start` on, or from the beginning where nothing can be sought.

        Containers go where they think best: to a time of decoding, or of showing, or past the keyframe. What counts is the time of
        the first keyframe that is decoded there; what is shown before it may lack what it is made from. Where that is too late, it
        is sought further back, and at last from the beginning.
        """
        back = Fraction(0)
        while start and start > back:
            container, stream = self._opened()
            try:
                container.seek(min(int((start - back + self.origin) * 1_000_000), _LATEST))
            except OSError:  # RealMedia without an index, among others
                container.close()
                break
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

        AVI holds times of decoding alone, and what FFmpeg makes of them for H.264 with B-frames runs backwards. Frames leave the
        decoder in the order in which they are shown, each with the next of those times.

        What a frame does not say of its colours (those of ProRes may not), the container does, in MOV and MP4 in the atom `colr`.
        """
        time, in_order = None, container.format.name == "avi"
        told = {name: int(getattr(stream.codec_context, name)) for name in _UNKNOWN}  # decoders may overwrite it
        told = {name: value for name, value in told.items() if value != _UNKNOWN[name]}
        frames = self._until_damage(container, stream)
        while True:
            with reading_errors(self.name, "" if time is None else f" after {float(time):.2f} s"):
                frame = next(frames, None)
            if frame is None:
                return
            for name, value in told.items():
                if int(getattr(frame, name)) == _UNKNOWN[name]:
                    setattr(frame, name, value)
            ticks = frame.dts if in_order else frame.pts
            if ticks is not None:
                now = ticks * Fraction(frame.time_base) - self.origin
            else:
                now = Fraction(0) if time is None else time + 1 / self.rate
            if time is not None and now <= time:
                continue  # a time that runs backwards shows damage; such a frame was never visible
            time = now
            yield time, frame

    def _until_damage(self, container, stream) -> Generator[Any, None, None]:
        """Decoded frames; where one cannot be read, what the decoder still holds of those shown before it, and then the error.

        Of YUV4MPEG2 that ends within a picture, FFmpeg says nothing; more bytes than those of whole pictures do.
        """
        packet, end = None, 0
        try:
            for packet in container.demux(stream):
                yield from packet.decode()
                end = packet.pos + packet.size if packet.size and packet.pos is not None else end
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
        if container.format.name == "yuv4mpegpipe" and self._size is not None and end < self._size():
            raise FileError(f"'{self.name}' is cut short: it ends within a picture.")

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


def _chain(first, others):
    yield first
    yield from others


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
