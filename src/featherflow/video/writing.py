"""Video files: pictures with exact times in, and beside them the sound of the source, copied as it is."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import FileError, InputError
from ..files import atomic_write
from ..images import write_image
from ..outputs import make_folder
from ..pixels import eight_bits
from .clips import USUAL_COLOUR, Colour
from .containers import open_video
from .failures import reading_errors, require_av, writing_errors
from .priority import usual_priority
from .standard import standard_output
from .stretching import StretchedSound

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Codec:
    """A way to compress pictures: FFmpeg's encoders for it, best first, their options, and how they store 8 bit and more."""

    encoders: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    format: str = "yuv420p"
    deep_format: str | None = None
    even_sides: bool = False
    largest_denominator: int | None = None


#: By name. The encoders of h264 may be under the GPL (libx264), which is why it is never taken unless it is asked for; nor is ffv1,
#: which loses nothing and is large.
CODECS = {
    "vp9": Codec(("libvpx-vp9",), {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "24", "b": "0"}),
    "av1": Codec(("libsvtav1",), {"preset": "10", "crf": "28"}, deep_format="yuv420p10le"),
    "h264": Codec(("libopenh264", "libx264"), {"crf": "18", "preset": "veryfast"}, even_sides=True),
    "mpeg4": Codec(("mpeg4",), {"flags": "+qscale", "global_quality": "354"}, largest_denominator=65535),
    "prores": Codec(("prores_ks",), {"profile": "3"}, "yuv422p10le", "yuv422p10le", even_sides=True),
    "ffv1": Codec(("ffv1",), {}, "bgr0", "gbrp16le"),
}
_ALL = CODECS | {"y4m": Codec(("rawvideo",), deep_format="yuv420p10le")}
_UNASKED = ("vp9", "av1", "mpeg4", "prores", "y4m")

#: Container by suffix, and the codecs that it may hold.
CONTAINERS = {
    ".mp4": ("mp4", ("vp9", "av1", "h264", "mpeg4")),
    ".mkv": ("matroska", ("vp9", "av1", "h264", "mpeg4", "ffv1", "prores")),
    ".webm": ("webm", ("vp9", "av1")),
    ".mov": ("mov", ("prores", "h264", "mpeg4")),
}
#: The name of standard output, which takes frames as YUV4MPEG2.
STANDARD_OUTPUT = "-"
_PIPE = ("yuv4mpegpipe", ("y4m",))

_SQUARE = Fraction(1)
_OF_THE_FILE = ("encoder", "major_brand", "minor_version", "compatible_brands", "language", "duration", "handler_name", "vendor_id")


@dataclass(frozen=True)
class Sound:
    """The audio streams of a file from `start` [s] on, for as long as the video lasts; `start` becomes time 0.

    They are copied as they are, or where `slower` is more than 1, stretched to so many times their length, see `StretchedSound`.
    """

    path: Path
    start: Fraction = Fraction(0)
    slower: Fraction = Fraction(1)


@dataclass(frozen=True)
class Pace:
    """How the times of a video follow from those of the clip it is made from."""

    #: Pictures per second, on average.
    rate: Fraction
    #: All times are multiples of it [s].
    time_base: Fraction
    #: So many times as long.
    slower: Fraction = Fraction(1)


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
        crf: int | None,
        colour: Colour,
        metadata: Mapping[str, str],
    ):
        av = require_av()
        kind, allowed = _container(path)
        name, encoder, self.deep = _choose(codec, colour, allowed, path)
        if colour.bits > 8 and not self.deep:
            _log.warning("note: the clip has %d bit, of which %s keeps 8; av1, prores and ffv1 keep more.", colour.bits, name)
        os.environ.setdefault("SVT_LOG", "1")  # libsvtav1 would greet on standard error
        kept = _ALL[name]
        self.path, self.codec = path, name
        self.written, self.end = 0, Fraction(0)
        #: How long the last picture is shown [s]; None: as long as the one before.
        self.hold: Fraction | None = None
        self._size = (height, width)
        self._padding = (height % 2, width % 2) if kept.even_sides else (0, 0)
        # Where YUV4MPEG2 has more than 8 bit, FFmpeg asks for a nod: it is an extension, which all that matter read.
        self._container = av.open(file, "w", format=kind, container_options={"strict": "unofficial"} if kind == _PIPE[0] else {})
        self._container.metadata.update({key: value for key, value in metadata.items() if key not in _OF_THE_FILE})
        options = {key: value for key, value in kept.options.items() if encoder != "libopenh264"} | _quality(crf, name)
        stream = self._container.add_stream(encoder, rate=rate.limit_denominator(100_000), options=options)
        most = kept.largest_denominator
        self._time_base = Fraction(1, most) if most and time_base.denominator > most else time_base
        if kind == _PIPE[0]:
            self._time_base = 1 / rate.limit_denominator(100_000)
        if "language" in metadata:
            stream.metadata["language"] = metadata["language"]
        stream.width, stream.height = width + self._padding[1], height + self._padding[0]
        self._format = kept.deep_format if self.deep and kept.deep_format else kept.format
        stream.pix_fmt = self._format
        stream.time_base = stream.codec_context.time_base = self._time_base
        context = stream.codec_context
        context.sample_aspect_ratio = pixel_aspect
        wide = colour.primaries == 9
        self._is_rgb = self._format.startswith(("bgr", "gbr"))
        context.color_primaries = colour.primaries if colour.primaries != 2 else 1  # BT.709 where nothing is known
        context.color_trc = colour.transfer if colour.transfer != 2 else 1
        context.colorspace = 0 if self._is_rgb else 9 if wide else 1
        context.color_range = 2 if self._is_rgb else 1  # all numbers, or 16 to 235
        self._colour = context.color_primaries, context.color_trc, context.colorspace, context.color_range
        self._matrix = "BT2020" if wide else "ITU709"
        self._video, self._last, self._step = stream, None, 1 / rate
        self._packet = None
        self._sound = None
        if sound is not None:
            self._sound = (_SoundCopy if sound.slower == 1 else StretchedSound)(self._container, sound, path)

    @property
    def has_sound(self) -> bool:
        return self._sound is not None

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Add a picture `(H, W, 3)` RGB, uint8 or uint16 in all 16 bits, that is shown at `time` [s], later than the one before.

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
        if self.deep and image.dtype == np.uint8:
            image = image.astype(np.uint16) * 257
        image = np.ascontiguousarray(image if self.deep else eight_bits(image))
        frame = av.VideoFrame.from_ndarray(image, format="rgb48le" if self.deep else "rgb24")
        if self._is_rgb:
            frame = frame.reformat(format=self._format)
        else:
            frame = frame.reformat(format=self._format, dst_colorspace=self._matrix, dst_color_range="MPEG")
        # ProRes writes into each picture what the frame says, not what the encoder was told.
        frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = self._colour
        frame.pts, frame.time_base = pts, self._time_base
        if self._sound is not None:
            self._sound.copy_until(time)
        self._encode(frame)
        if self._last is not None:
            self._step = time - self.end
        self._last, self.end = pts, time
        self.written += 1

    def finish(self) -> None:
        """Write what the encoder still holds, the rest of the sound and the container's index."""
        self._encode(None)
        hold = self.hold or self._step
        if self._packet is not None:
            self._packet.duration = max(round(hold / self._packet.time_base), 1)
            self._mux(self._packet)
        if self._sound is not None:
            self._sound.copy_until(self.end + hold)
            self._sound.finish()
        with writing_errors(self.path):
            self._container.close()

    def abandon(self) -> None:
        """Let go of everything; what was written is of no use."""
        if self._sound is not None:
            self._sound.close()
        with suppress(Exception):
            self._container.close()

    def _encode(self, frame) -> None:
        opens = not self._video.codec_context.is_open
        with writing_errors(self.path), usual_priority() if opens else nullcontext():
            packets = self._video.encode(frame)
        for packet in packets:  # one is kept back, since how long the last is shown is known at the end only
            if self._packet is not None:
                self._mux(self._packet)
            self._packet = packet

    def _mux(self, packet) -> None:
        with writing_errors(self.path):
            self._container.mux(packet)


class StillsWriter:
    """Pictures as PNG files, numbered from 0: nothing is lost, 16 bit are kept; times and sound are not."""

    codec, has_sound, deep = "png", False, True

    def __init__(self, path: Path):
        self.path, self.written, self.end = path, 0, Fraction(0)
        self.hold: Fraction | None = None

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Add a picture `(H, W, 3)` RGB, uint8 or uint16."""
        write_image(str(self.path) % self.written, image)
        self.written, self.end = self.written + 1, time

    def finish(self) -> None:
        """Nothing: each file is complete."""

    abandon = finish


@contextmanager
def video_writer(
    path: str | os.PathLike[str],
    width: int,
    height: int,
    rate: Fraction,
    time_base: Fraction,
    codec: str | None = None,
    sound: Sound | None = None,
    pixel_aspect: Fraction = _SQUARE,
    crf: int | None = None,
    colour: Colour = USUAL_COLOUR,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[VideoWriter | StillsWriter]:
    """A video file that appears complete or not at all; frames on standard output; or PNG files.

    Args:
        path: .mp4, .mkv, .webm or .mov; `-` for standard output (YUV4MPEG2); a .png with a place for the number, e.g. `%06d.png`.
        width, height: of the pictures [px]. H.264 and ProRes take even numbers only: there the last column or row is repeated.
        rate: pictures per second, on average; time_base: times are rounded to a multiple of it [s].
        codec: a name of `CODECS`; default the first of them that is there, under a permissive licence, and deep enough.
        sound: what to hear with it; pixel_aspect: width of a pixel over its height.
        crf: quality, smaller is better; None: the codec's usual one.
        colour: how the numbers of the pictures stand for colours; more than 8 bit is kept where the codec can.
        metadata: title and the like.

    Raises:
        InputError: for another suffix, codec or pair of these, or more than 8 bit of HDR for a codec that holds 8. FileError: if it
        cannot be written, or for sound that the container cannot hold. MissingExtraError: without PyAV.
    """
    path = Path(path)
    check_video_name(path)
    if is_numbered(path):
        make_folder(path.parent)
        yield StillsWriter(path)
        return
    with nullcontext(standard_output()) if str(path) == STANDARD_OUTPUT else atomic_write(path) as file:
        writer = VideoWriter(file, path, width, height, rate, time_base, codec, sound, pixel_aspect, crf, colour, metadata)
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.abandon()
            raise


def is_numbered(path: str | os.PathLike[str]) -> bool:
    """Whether a name stands for PNG files with numbers."""
    return bool(re.fullmatch(r"[^%]*%0?\d*d[^%]*\.png", str(path), re.IGNORECASE))


def is_silent(path: str | os.PathLike[str]) -> bool:
    """Whether what is written there holds no sound."""
    return str(path) == STANDARD_OUTPUT or is_numbered(path)


def check_video_name(path: str | os.PathLike[str]) -> None:
    """Refuse names that are none of a video that can be written.

    Raises:
        InputError: with the suffixes that can.
    """
    if str(path) != STANDARD_OUTPUT and not is_numbered(path) and Path(path).suffix.lower() not in CONTAINERS:
        endings = ", ".join(CONTAINERS)
        raise InputError(f"'{path}' is no video that can be written; its name must end in {endings}, or be numbered (%06d.png).")


def check_format(path: str | os.PathLike[str], codec: str | None, crf: int | None, colour: Colour) -> None:
    """Refuse what `video_writer` would refuse, before anything is computed.

    Raises:
        InputError: as `video_writer`.
    """
    check_video_name(path)
    if is_numbered(path):
        return
    name, _, _ = _choose(codec, colour, _container(Path(path))[1], Path(path))
    _quality(crf, name)


def _container(path: Path) -> tuple[str, tuple[str, ...]]:
    return _PIPE if str(path) == STANDARD_OUTPUT else CONTAINERS[path.suffix.lower()]


def _quality(crf: int | None, codec: str) -> dict[str, str]:
    """Options of an encoder for a quality."""
    if crf is None:
        return {}
    if "crf" not in _ALL[codec].options:
        raise InputError(f"--crf is for {', '.join(name for name, c in CODECS.items() if 'crf' in c.options)}; {codec} has none.")
    if not 0 <= crf <= 63:
        raise InputError(f"The quality --crf lies from 0 (best) to 63, got {crf}.")
    return {"crf": str(crf)}


def _choose(codec: str | None, colour: Colour, allowed: tuple[str, ...], path: Path) -> tuple[str, str, bool]:
    """Name of the codec and of the encoder, and whether it keeps more than 8 bit."""
    available = require_av().codecs_available
    if codec is not None and codec not in CODECS:
        raise InputError(f"The codec must be one of {', '.join(CODECS)}, got '{codec}'.")
    if codec is not None and codec not in allowed:
        raise InputError(f"'{path}' cannot hold {codec}; it takes {', '.join(allowed)}.")
    deep = colour.bits > 8
    names = [codec] if codec else [name for name in allowed if name in _UNASKED]
    found = [(name, encoder) for name in names for encoder in _ALL[name].encoders if encoder in available]
    if not found:
        raise InputError(f"The installed PyAV has no encoder for {codec or ' or '.join(allowed)}.")
    keeping = [(name, encoder) for name, encoder in found if _ALL[name].deep_format is not None] if deep else []
    if keeping:
        return *keeping[0], True
    if colour.is_hdr:
        able = [name for name in allowed if _ALL[name].deep_format and any(e in available for e in _ALL[name].encoders)]
        cure = f"take --codec {able[0]}" if able else "take a name that ends in .mkv"
        raise InputError(f"The clip is HDR of {colour.bits} bit, of which {found[0][0]} keeps 8 in '{path}'; {cure}.")
    return *found[0], False


class _SoundCopy:
    """Packets of sound, from one container to another, no further than they are due."""

    def __init__(self, container: Any, sound: Sound, path: Path):
        self.sound, self.path, self.container = sound, path, container
        self.source: Any = None
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
            copy = container.add_stream_from_template(stream)
            copy.metadata.update({key: value for key, value in stream.metadata.items() if key in ("language", "title")})
            self.streams[stream.index] = copy
        if sound.start:
            self._seek()
        self.packets = self._packets()
        self.waiting: tuple[Fraction, Any] | None = None

    def _seek(self) -> None:
        """To where sound begins at or before the start: containers may land later than they are asked to."""
        back = Fraction(0)
        while back < self.sound.start:
            with reading_errors(str(self.sound.path)):
                self.source.seek(int((self.origin - back) * 1_000_000))
                first = {}
                for packet in self.source.demux(tuple(self.source.streams.audio)):
                    if packet.pts is not None:
                        first.setdefault(packet.stream.index, packet.pts * packet.time_base)
                        if len(first) == len(self.streams):
                            break
                if len(first) == len(self.streams) and max(first.values()) <= self.origin:
                    self.source.seek(int((self.origin - back) * 1_000_000))
                    return
            back = 4 * back or Fraction(1)
        self.source.close()
        self.source = open_video(self.sound.path)

    def _packets(self) -> Iterator[tuple[Fraction, Any]]:
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
            found = self.waiting or next(self.packets, None)
            self.waiting = None
            if found is None:
                return
            due, packet = found
            if due > time:
                self.waiting = (due, packet)
                return
            shift = round(self.origin / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = self.streams[packet.stream.index]
            with writing_errors(self.path):
                self.container.mux(packet)

    def close(self) -> None:
        self.source.close()

    finish = close
