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


def write_clip(
    path: Path,
    frames: list[np.ndarray],
    times: list[Fraction] | None = None,
    codec: str = "ffv1",
    time_base: Fraction = Fraction(1, 1000),
    sound: str | None = None,
    rotation: int = 0,
    sample_aspect: Fraction | None = None,
) -> list[Fraction]:
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


def layered(t: float, height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A scene of two layers at time t, `(H, W, 3)` uint8, and where the disc in front is, `(H, W)`.

    The background moves by `BACKGROUND_MOTION`, the disc by `DISC_MOTION` px in a unit of time.
    """
    import cv2

    y, x = np.mgrid[:height, :width].astype(np.float32)
    pictures = []
    for seed, (dx, dy) in ((5, BACKGROUND_MOTION), (8, DISC_MOTION)):
        canvas = frame(height + 64, width + 64, seed).astype(np.float32)
        pictures.append(cv2.remap(cv2.GaussianBlur(canvas, None, 1.0), x + 32 - dx * t, y + 32 - dy * t, cv2.INTER_CUBIC))
    distance = np.hypot(x - width / 2 - DISC_MOTION[0] * t, y - height / 2 - DISC_MOTION[1] * t)
    cover = np.clip(20.5 - distance, 0, 1)[..., None]
    picture = pictures[0] * (1 - cover) + pictures[1] * cover
    return picture.round().clip(0, 255).astype(np.uint8), cover[..., 0] > 0.5


BACKGROUND_MOTION = (2.0, 1.0)
DISC_MOTION = (-5.0, 3.0)


def layered_flow(t1: float, t2: float, **size: int) -> np.ndarray:
    """Exact flow of `layered` from time t1 to t2, `(H, W, 2)` float32 [px]."""
    _, disc = layered(t1, **size)
    return ((t2 - t1) * np.where(disc[..., None], DISC_MOTION, BACKGROUND_MOTION)).astype(np.float32)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures [dB]."""
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(np.float64) - b) ** 2), 1e-9)))
