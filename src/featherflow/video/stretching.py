"""Sound that lasts several times as long at the pitch it had: FFmpeg's filter atempo, encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError
from .containers import open_video
from .failures import reading_errors, require_av, writing_errors

if TYPE_CHECKING:
    from .writing import Sound

#: Codec and encoder of sound, best first; a file takes the first that it can hold. Both encoders are free to pass on.
_CODECS = (("aac", "aac"), ("opus", "libopus"))
_RATE = 48_000
#: Of so many channels, what both encoders take.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_SLOWEST = Fraction(1, 2)  # of one atempo; several in a row do more


class StretchedSound:
    """The audio streams of a file from a time on, each so many times as long, written as the pictures come."""

    def __init__(self, container, sound: Sound, path: Path):
        self.sound, self.path = sound, path
        encoder = _encoder(container, path)
        with reading_errors(str(sound.path)):
            self.source = open_video(sound.path)
        starts = [s.start_time * s.time_base for s in self.source.streams if s.start_time is not None and s.time_base is not None]
        origin = min(starts, default=Fraction(0)) + sound.start
        with writing_errors(path):
            self.streams = {
                stream.index: _Stream(container, encoder, _layout(encoder, stream, path), stream, origin, sound.slower)
                for stream in self.source.streams.audio
            }
        with reading_errors(str(sound.path)):
            if sound.start:
                self.source.seek(max(int((origin - 1) * 1_000_000), 0))  # what comes before is cut off by the sample
        self.frames = self._decoded()
        self.limit = Fraction(0)

    def _decoded(self) -> Iterator:
        packets = self.source.demux(tuple(self.source.streams.audio))
        while True:
            with reading_errors(str(self.sound.path)):
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            if packet is None:
                return
            yield from ((packet.stream.index, frame) for frame in frames)

    def copy_until(self, time: Fraction) -> None:
        """Write the sound up to a time of the video [s]."""
        self.limit = time
        while any(stream.end < time for stream in self.streams.values()):
            index, frame = next(self.frames, (0, None))
            if frame is None:
                return
            with writing_errors(self.path):
                self.streams[index].take(frame)

    def finish(self) -> None:
        """Write what the filters and encoders still hold, and let go of the source."""
        for stream in self.streams.values():
            with writing_errors(self.path):
                stream.flush(self.limit)
        self.close()

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()


def _encoder(container, path: Path) -> str:
    available = require_av().codecs_available
    for codec, encoder in _CODECS:
        if codec in container.supported_codecs and encoder in available:
            return encoder
    raise FileError(f"'{path}' cannot hold stretched sound; leave --stretch-sound out, or take a name that ends in .mp4 or .mkv.")


def _layout(encoder: str, source, path: Path) -> str:
    """The layout of a source's channels where the encoder takes it, else the usual one of as many, to which they are mixed.

    PCM in .mkv and .avi does not say which its channels are.
    """
    own = source.codec_context.layout
    for layout in (own.name, _LAYOUTS.get(own.nb_channels)):
        if layout is not None and _takes(encoder, layout):
            return layout
    raise FileError(f"'{path}' cannot hold stretched sound of {own.nb_channels} channels; leave --stretch-sound out.")


def _takes(encoder: str, layout: str) -> bool:
    av = require_av()
    trial = av.CodecContext.create(encoder, "w")
    trial.sample_rate, trial.layout, trial.format = _RATE, layout, trial.codec.audio_formats[0]
    try:
        trial.open()
    except av.error.FFmpegError:
        return False
    return True


class _Stream:
    """One stream of sound: cut at the start, stretched, encoded, and put into the container."""

    def __init__(self, container, encoder: str, layout: str, source, origin: Fraction, slower: Fraction):
        av = require_av()
        self.container, self.origin, self.slower = container, origin, slower
        self.output = container.add_stream(encoder, rate=_RATE, layout=layout)
        self.output.metadata.update({key: value for key, value in source.metadata.items() if key in ("language", "title")})
        context = self.output.codec_context
        context.open()
        self.graph = graph = av.filter.Graph()
        nodes = [graph.add_abuffer(template=source, time_base=Fraction(1, source.codec_context.sample_rate))]
        nodes.append(graph.add("atrim", "start=0"))
        tempo = 1 / slower
        while tempo < _SLOWEST:
            nodes.append(graph.add("atempo", f"{float(_SLOWEST)}"))
            tempo /= _SLOWEST
        nodes.append(graph.add("atempo", f"{float(tempo):.9f}"))
        form = f"sample_fmts={context.format.name}:sample_rates={_RATE}:channel_layouts={context.layout.name}"
        nodes += [graph.add("aformat", form), graph.add("abuffersink")]
        graph.link_nodes(*nodes).configure()
        if context.frame_size:
            graph.set_audio_frame_size(context.frame_size)
        self.samples: int | None = None

    @property
    def end(self) -> Fraction:
        """How far the sound is written [s]."""
        return Fraction(self.samples or 0, _RATE)

    def take(self, frame) -> None:
        time = Fraction(0) if frame.pts is None else frame.pts * Fraction(frame.time_base) - self.origin
        if time + Fraction(frame.samples, frame.sample_rate) <= 0:
            return
        if self.samples is None:
            self.samples = round(max(time, Fraction(0)) * self.slower * _RATE)
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = round(time * frame.sample_rate)
        self.graph.push(frame)
        self._encode()

    def flush(self, limit: Fraction) -> None:
        if self.samples is not None:
            self.graph.push(None)
            self._encode(limit)
        self.container.mux(self.output.encode(None))

    def _encode(self, limit: Fraction | None = None) -> None:
        av = require_av()
        while True:
            try:
                frame = self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if limit is None or self.end < limit:
                frame.time_base, frame.pts = Fraction(1, _RATE), self.samples
                self.container.mux(self.output.encode(frame))
            self.samples += frame.samples
