"""Pure tensor functions the networks share. No state, no parameters, no files.

Conventions: images and features `(B, C, H, W)`; flow `(B, 2, H, W)`, channel 0 = x to the right, channel 1 = y down, in
pixels of the grid it stands on, on the first frame's grid; warping is backward warping.
"""

from .correlation import correlate
from .local_convolution import local_convolution
from .precision import full_precision
from .resample import bilinear_upsampling_kernel, downsample, resize
from .warp import pixel_grid, warp

__all__ = [
    "bilinear_upsampling_kernel",
    "correlate",
    "downsample",
    "full_precision",
    "local_convolution",
    "pixel_grid",
    "resize",
    "warp",
]
