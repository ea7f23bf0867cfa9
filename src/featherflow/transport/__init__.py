"""What a flow is for: pictures between frames, steady clips, small motions made large, points followed through a clip."""

from .interpolation import interpolate, interpolate_video
from .magnification import magnify, magnify_video
from .stabilisation import Similarity, StabilisationResult, global_motion, stabilise_video
from .tracking import Tracks, TracksResult, grid, points_of, track, track_video
from .warping import splat, visibility, warp_backward

__all__ = [
    "Similarity",
    "StabilisationResult",
    "Tracks",
    "TracksResult",
    "global_motion",
    "grid",
    "interpolate",
    "interpolate_video",
    "magnify",
    "magnify_video",
    "points_of",
    "splat",
    "stabilise_video",
    "track",
    "track_video",
    "visibility",
    "warp_backward",
]
