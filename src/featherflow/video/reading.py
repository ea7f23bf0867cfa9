"""Clips by their names: video files, folders and globs of images, cameras, pipes of raw frames."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from ..errors import FileError, InputError
from ..images import IMAGE_SUFFIXES, Still, page_times
from ..pixels import Range, check_range, parse_size
from ..sequences import gaps, is_pattern, stills
from .clips import USUAL_RATE, Clip, ImageClip, Selection
from .containers import open_video
from .decoding import VideoClip
from .failures import require_av
from .standard import CountedInput, standard_input

_log = logging.getLogger(__name__)


def open_clip(
    source: str | os.PathLike[str],
    *,
    start: float | None = None,
    end: float | None = None,
    through: bool = False,
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
        start, end: part to take [s]; through: also the first frame after it; stride: take one frame of so many.
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
    selection = Selection(_fraction(start, "start"), _fraction(end, "end"), stride, through=through)
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
    of_video = replace(selection, fps=rate)
    if source.isdigit() and not Path(source).exists():
        _no_range(value_range)
        return _camera(int(source), of_video)
    path = Path(source)
    if not path.exists():
        raise FileError(f"There is no file or folder '{source}'.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        shown = page_times(path)
        if len(shown) == 1:
            raise InputError(f"'{source}' is a single frame; name a video, or a folder or quoted glob of frames.")
        pages = [Still(path, page) for page in range(len(shown))]
        return ImageClip(source, pages, selection, rate or USUAL_RATE, shown, value_range)
    _no_range(value_range)
    require_av()
    return VideoClip(source, lambda: open_video(path), of_video, path=path)


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
    selection = replace(selection, fps=fps)
    file = CountedInput(standard_input())

    def opener():
        try:
            return av.open(file, format="yuv4mpegpipe")
        except (av.error.FFmpegError, ValueError, OSError):  # the latter two where nothing can be read there
            raise InputError(
                "What comes on standard input is no YUV4MPEG2; raw frames from a pipe need their size, as in --size 640x480."
            ) from None

    return VideoClip("standard input", opener, selection, False, size=lambda: file.count)


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
