"""What a flow is for: pictures between frames, steady clips, enlarged motions, tracks of points."""

from .interpolation import interpolate, interpolate_video
from .warping import splat, visibility, warp_backward

__all__ = ["interpolate", "interpolate_video", "splat", "visibility", "warp_backward"]
