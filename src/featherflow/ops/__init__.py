"""Pure tensor functions the networks share, and the convolution that engines put in their place. No parameters, no files.

Conventions: images and features `(B, C, H, W)`; flow `(B, 2, H, W)`, channel 0 = x to the right, channel 1 = y down, in
pixels of the grid it stands on, on the first frame's grid; warping is backward warping.
"""

from .constant import constant
from .convolution import ReadyConvolution, can_make_ready, convolve_leaky
from .correlation import correlate, correlate_dilated
from .frames import check_frames, check_iterations, show_no_motion, starting_flow
from .layout import channel_softmax, channels_last, join_channels, laid_out, reverse_channels
from .lengths import lengths
from .local_convolution import local_convolution
from .lookup import all_pairs, lookup, lookup_features, lookup_rows, pooled
from .precision import full_precision
from .resample import bilinear_upsampling_kernel, downsample, resize, resize_flow
from .shapes import size_of
from .strips import in_strips, reach, sum_in_strips
from .upsample import convex_upsample
from .warm_start import push_forward
from .warp import pixel_grid, warp

__all__ = [
    "ReadyConvolution",
    "all_pairs",
    "bilinear_upsampling_kernel",
    "can_make_ready",
    "channel_softmax",
    "channels_last",
    "check_frames",
    "check_iterations",
    "constant",
    "convex_upsample",
    "convolve_leaky",
    "correlate",
    "correlate_dilated",
    "downsample",
    "full_precision",
    "in_strips",
    "join_channels",
    "laid_out",
    "lengths",
    "local_convolution",
    "lookup",
    "lookup_features",
    "lookup_rows",
    "pixel_grid",
    "pooled",
    "push_forward",
    "reach",
    "resize",
    "resize_flow",
    "reverse_channels",
    "show_no_motion",
    "size_of",
    "starting_flow",
    "sum_in_strips",
    "warp",
]
