"""Clips: read them from anywhere, follow their flow, and write what comes of it, with exact times and the sound of the source.

Needs PyAV (extra `video`) for video files, cameras and pipes; folders and globs of images are read without it.
"""

from ..overlap import ahead, behind
from .checking import ClipCheck, FrameCheck, check_clip
from .clips import Clip, Colour, Picture, Selection
from .cuts import THRESHOLD, Change, change, check_threshold, shows_motion
from .jobs import DamagedClipError, Step, Stopped, VideoJobResult, check_clip_outputs, flow_video, steps, video_job, write_clip
from .reading import open_clip
from .views import VIEWS, draw
from .writing import CODECS, Pace, Sound, VideoWriter, check_format, video_writer

__all__ = [
    "CODECS",
    "THRESHOLD",
    "VIEWS",
    "Change",
    "Clip",
    "ClipCheck",
    "Colour",
    "DamagedClipError",
    "FrameCheck",
    "Pace",
    "Picture",
    "Selection",
    "Sound",
    "Step",
    "Stopped",
    "VideoJobResult",
    "VideoWriter",
    "ahead",
    "behind",
    "change",
    "check_clip",
    "check_clip_outputs",
    "check_format",
    "check_threshold",
    "draw",
    "flow_video",
    "open_clip",
    "shows_motion",
    "steps",
    "video_job",
    "video_writer",
    "write_clip",
]
