"""Video files: pictures with exact times in, and beside them the sound of the source, copied as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import FileError, InputError
from ..files import atomic_write
from .containers import open_video
from .reading import reading_errors, require_av


@dataclass(frozen=True)
class Codec:
    """A way to compress pictures: FFmpeg's encoders for it, best first, and their options."""

    encoders: tuple[str, ...]
    options: dict[str, str]
    even_sides: bool = False
    largest_denominator: int | None = None


#: By name. The encoders of h264 may be under the GPL (libx264), which is why it is never taken unless it is asked for.
CODECS = {
    "vp9": Codec(("libvpx-vp9",), {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "24", "b": "0"}),
    "av1": Codec(("libsvtav1",), {"preset": "10", "crf": "28"}),
    "h264": Codec(("libopenh264", "libx264"), {"crf": "18", "preset": "veryfast"}, even_sides=True),
    "mpeg4": Codec(("mpeg4",), {"flags": "+qscale", "global_quality": "354"}, largest_denominator=65535),
}

#: Container by suffix, and the codecs that it may hold.
CONTAINERS = {
    ".mp4": ("mp4", ("vp9", "av1", "h264", "mpeg4")),
    ".mkv": ("matroska", ("vp9", "av1", "h264", "mpeg4")),
    ".webm": ("webm", ("vp9", "av1")),
}


_SQUARE = Fraction(1)


@dataclass(frozen=True)
class Sound:
    """The audio streams of a file from `start` [s] on, as they are, for as long as the video lasts; `start` becomes time 0."""

    path: Path
    start: Fraction = Fraction(0)


class VideoWriter:
    """Made by `video_writer`."""

    def __init__(
        self,
        file,
        path: Path,
        width: int,
        height: int,
        rate: Fraction,
        time_base: Fraction,
        codec: str | None,
        sound: Sound | None,
        pixel_aspect: Fraction,
    ):
        av = require_av()
        kind, allowed = CONTAINERS[path.suffix.lower()]
        name, encoder = _choose(codec, allowed, path)
        os.environ.setdefault("SVT_LOG", "1")  # libsvtav1 would greet on standard error
        self.path, self.codec = path, name
        self.written, self.end = 0, Fraction(0)
        self._size = (height, width)
        self._padding = (height % 2, width % 2) if CODECS[name].even_sides else (0, 0)
        self._container = av.open(file, "w", format=kind)
        options = {key: value for key, value in CODECS[name].options.items() if encoder != "libopenh264"}
        stream = self._container.add_stream(encoder, rate=rate.limit_denominator(100_000), options=options)
        most = CODECS[name].largest_denominator
        self._time_base = Fraction(1, most) if most and time_base.denominator > most else time_base
        stream.width, stream.height = width + self._padding[1], height + self._padding[0]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._time_base
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16 to 235
        self._video, self._last, self._step = stream, None, 1 / rate
        self._sound = _SoundCopy(self._container, sound, path) if sound is not None else None

    @property
    def has_sound(self) -> bool:
        return self._sound is not None

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Add a picture `(H, W, 3)` uint8 RGB that is shown at `time` [s], later than the one before.

        Raises:
            InputError: for a picture of another size or a time that does not advance. FileError: if it cannot be written.
        """
        av = require_av()
        if image.shape != (*self._size, 3):
            height, width = self._size
            raise InputError(f"A picture of the video must be {width}x{height}, got {image.shape[1]}x{image.shape[0]}.")
        pts = round(time / self._time_base)
        if self._last is not None and pts <= self._last:
            raise InputError(f"Pictures of a video come in order of time, but {float(time):.4f} s follows {float(self.end):.4f} s.")
        if any(self._padding):
            image = np.pad(image, ((0, self._padding[0]), (0, self._padding[1]), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = pts, self._time_base
        if self._sound is not None:
            self._sound.copy_until(time)
        self._mux(frame)
        if self._last is not None:
            self._step = time - self.end
        self._last, self.end = pts, time
        self.written += 1

    def finish(self) -> None:
        """Write what the encoder still holds, the rest of the sound and the container's index."""
        self._mux(None)
        if self._sound is not None:
            self._sound.copy_until(self.end + self._step)
            self._sound.close()
        with _writing_errors(self.path):
            self._container.close()

    def abandon(self) -> None:
        """Let go of everything; what was written is of no use."""
        if self._sound is not None:
            self._sound.close()
        with suppress(Exception):
            self._container.close()

    def _mux(self, frame) -> None:
        with _writing_errors(self.path):
            for packet in self._video.encode(frame):
                self._container.mux(packet)


@contextmanager
def video_writer(
    path: str | os.PathLike,
    width: int,
    height: int,
    rate: Fraction,
    time_base: Fraction,
    codec: str | None = None,
    sound: Sound | None = None,
    pixel_aspect: Fraction = _SQUARE,
) -> Iterator[VideoWriter]:
    """A video file that appears complete or not at all.

    Args:
        path: .mp4, .mkv or .webm.
        width, height: of the pictures [px]. H.264 takes even numbers only: there the last column or row is repeated.
        rate: pictures per second, on average; time_base: times are rounded to a multiple of it [s].
        codec: a name of `CODECS`; default the first of them that is there and is under a permissive licence.
        sound: what to hear with it.

    Raises:
        InputError: for another suffix, codec or pair of these. FileError: if it cannot be written, or for sound that the container
        cannot hold. MissingExtraError: without PyAV.
    """
    path = Path(path)
    check_video_name(path)
    with atomic_write(path) as file:
        writer = VideoWriter(file, path, width, height, rate, time_base, codec, sound, pixel_aspect)
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.abandon()
            raise


def check_video_name(path: str | os.PathLike) -> None:
    """Refuse names that are none of a video file that can be written.

    Raises:
        InputError: with the suffixes that can.
    """
    if Path(path).suffix.lower() not in CONTAINERS:
        raise InputError(f"'{path}' is no video that can be written; its name must end in {', '.join(CONTAINERS)}.")


def _choose(codec: str | None, allowed: tuple[str, ...], path: Path) -> tuple[str, str]:
    """Name of the codec and of the encoder."""
    available = require_av().codecs_available
    if codec is not None and codec not in CODECS:
        raise InputError(f"The codec must be one of {', '.join(CODECS)}, got '{codec}'.")
    if codec is not None and codec not in allowed:
        raise InputError(f"'{path}' cannot hold {codec}; it takes {', '.join(allowed)}.")
    for name in [codec] if codec else [name for name in allowed if name != "h264"]:
        for encoder in CODECS[name].encoders:
            if encoder in available:
                return name, encoder
    raise InputError(f"The installed PyAV has no encoder for {codec or ' or '.join(allowed)}.")


class _SoundCopy:
    """Packets of sound, from one container to another, no further than they are due."""

    def __init__(self, container, sound: Sound, path: Path):
        self.sound, self.path, self.container = sound, path, container
        with reading_errors(str(sound.path)):
            self.source = open_video(sound.path)
        starts = [s.start_time * s.time_base for s in self.source.streams if s.start_time is not None]
        self.origin = min(starts, default=Fraction(0)) + sound.start
        self.streams = {}
        for stream in self.source.streams.audio:
            if stream.codec_context.name not in container.supported_codecs:
                self.source.close()
                raise FileError(
                    f"'{path}' cannot hold the source's sound ({stream.codec_context.name}) as it is; take a name that ends in "
                    ".mkv, or leave the sound out with --no-audio."
                )
            self.streams[stream.index] = container.add_stream_from_template(stream)
        if sound.start:
            with reading_errors(str(sound.path)):
                self.source.seek(int(self.origin * 1_000_000))
        self.packets = self._packets()
        self.waiting = None

    def _packets(self):
        demuxed = iter(self.source.demux(tuple(self.source.streams.audio)))
        while True:
            with reading_errors(str(self.sound.path)):
                packet = next(demuxed, None)
            if packet is None:
                return
            if packet.dts is None or packet.pts is None:
                continue  # the end mark
            time = packet.pts * packet.time_base - self.origin
            length = (packet.duration or 0) * packet.time_base
            if self.sound.start and time + length <= 0:
                continue
            yield time, packet

    def copy_until(self, time: Fraction) -> None:
        while True:
            due, packet = self.waiting or next(self.packets, (None, None))
            self.waiting = None
            if packet is None:
                return
            if due > time:
                self.waiting = (due, packet)
                return
            shift = round(self.origin / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = self.streams[packet.stream.index]
            with _writing_errors(self.path):
                self.container.mux(packet)

    def close(self) -> None:
        self.source.close()


@contextmanager
def _writing_errors(path: Path) -> Iterator[None]:
    av = require_av()
    try:
        yield
    except av.error.FFmpegError as error:
        if error.errno is not None and isinstance(error, OSError) and error.filename is None and error.errno < 256:
            raise OSError(error.errno, os.strerror(error.errno)) from None  # a full disk and its like, named by atomic_write
        reason = (error.strerror or str(error)).splitlines()[0].lower()
        raise FileError(f"cannot write {path}: {reason}") from None
