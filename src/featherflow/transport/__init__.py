"""What a flow is for: pictures between frames, steady clips, small motions made large, points followed through a clip."""

from .frame_rates import as_rate, interpolate_video
from .interpolation import interpolate
from .magnification import magnify, magnify_video
from .stabilisation import Similarity, StabilisationResult, global_motion, stabilise_video
from .tracking import Tracks, TracksResult, grid, points_of, track, track_video
from .warping import splat, visibility, warp_backward

__all__ = [
    "Similarity",
    "StabilisationResult",
    "Tracks",
    "TracksResult",
    "as_rate",
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
