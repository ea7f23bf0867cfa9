"""Small clips with known content: a texture that moves by a known amount from frame to frame, as arrays and as video files."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from helpers import frame


def moving(count: int = 6, height: int = 64, width: int = 96, dx: int = 2, dy: int = 1) -> list[np.ndarray]:
    """A smooth texture that moves by (dx, dy) px from frame to frame."""
    canvas = frame(height + abs(dy) * count, width + abs(dx) * count, seed=5)
    tops = [(count - 1 - k) * dy if dy >= 0 else -k * dy for k in range(count)]
    lefts = [(count - 1 - k) * dx if dx >= 0 else -k * dx for k in range(count)]
    return [np.ascontiguousarray(canvas[y : y + height, x : x + width]) for y, x in zip(tops, lefts, strict=True)]


def write_clip(path: Path, frames: list[np.ndarray], times: list[Fraction] | None = None, codec: str = "ffv1",
               time_base: Fraction = Fraction(1, 1000), sound: str | None = None, rotation: int = 0,
               sample_aspect: Fraction | None = None) -> list[Fraction]:
    """A video file, lossless unless another codec is asked for, with `sound` as long as the frames; gives the frames' times."""
    import av

    times = times or [Fraction(k, 25) for k in range(len(frames))]
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        video.time_base = video.codec_context.time_base = time_base
        if rotation:
            video.set_display_rotation(rotation)
        if sample_aspect:
            video.codec_context.sample_aspect_ratio = sample_aspect
        audio = container.add_stream(sound, rate=44100) if sound else None
        for image, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = round(time / time_base), time_base
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio:
            length = float(times[-1]) + 0.04
            tone = (np.sin(np.arange(int(length * 44100)) * 0.06) * 8000).astype(np.int16)
            for start in range(0, len(tone), 1024):
                block = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = 44100, start, Fraction(1, 44100)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return times


def read_clip(path: Path) -> tuple[list[np.ndarray], list[Fraction]]:
    """Frames and times of a video file."""
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [f.to_ndarray(format="rgb24") for f in frames], [f.pts * Fraction(f.time_base) for f in frames]


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """(time, content) of the packets of sound."""
    import av

    with av.open(str(path)) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(container.streams.audio) if p.pts is not None]
