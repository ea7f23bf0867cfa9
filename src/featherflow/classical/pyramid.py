"""The coarse-to-fine driver that all our classical methods share; what happens on one level is plugged in.

A pyramid of both frames is built; from the coarsest level on, a step is called `warps` times per level, each time with
the frames and the flow so far, and returns a better flow. Steps linearise the frames around that flow, so each may change
it by about a pixel.

Frames are `(B, C, H, W)` float32 in grey levels, 0 to 255, the unit in which the papers give their parameters.
Flow is `(B, 2, H, W)` float32 [px of the level]. Everything is made of differentiable tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..ops import pixel_grid, size_of
from .median import median_filter

#: (frame 1, frame 2, flow) of one level to a better flow.
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pyramid:
    """`factor`: size of a level over that of the next finer one, below 1. `smallest`: shorter side of the coarsest level, at
    least this [px]. `warps`: steps per level. `median`: side of the median filter after each step [px], 1 for none; it takes
    out what a linearisation got wrong without blurring edges (Sun et al., CVPR 2010, section 3). `sigma`: Gaussian that both
    frames are smoothed with before all [px].
    """

    factor: float = 0.5
    smallest: int = 16
    warps: int = 5
    median: int = 5
    sigma: float = 0.35


def coarse_to_fine(first: Tensor, second: Tensor, step: Step, pyramid: Pyramid, flow: Tensor | None = None) -> Tensor:
    """Flow from `first` to `second`.

    Args:
        first, second: `(B, C, H, W)` float32 in grey levels.
        flow: `(B, 2, H, W)` [px] to start from; then only the full size is solved, without a pyramid.

    Returns:
        `(B, 2, H, W)` float32 [px].

    Raises:
        InputError: for frames of different shapes, a flow of another size, or a pyramid that cannot be.
    """
    if first.shape != second.shape or first.ndim != 4:
        raise InputError(f"Both frames must be (B, C, H, W) of one shape, got {tuple(first.shape)} and {tuple(second.shape)}.")
    if not 0 < pyramid.factor < 1 or pyramid.warps < 1 or pyramid.median % 2 != 1 or pyramid.smallest < 2:
        raise InputError(f"A pyramid needs a factor in (0, 1), a warp, an odd median and two pixels, got {pyramid}.")
    if flow is not None and (flow.shape[0], *flow.shape[1:]) != (first.shape[0], 2, *first.shape[-2:]):
        raise InputError(f"The flow must be {(first.shape[0], 2, *first.shape[-2:])}, got {tuple(flow.shape)}.")
    frames = torch.cat((first, second))
    if pyramid.sigma > 0:
        frames = blur(frames, pyramid.sigma)
    levels = [frames] if flow is not None else list(_levels(frames, pyramid))
    if flow is None:
        flow = first.new_zeros(first.shape[0], 2, *levels[-1].shape[-2:])
    for level in reversed(levels):
        one, two = level.chunk(2)
        flow = rescale_flow(flow, size_of(one))
        for _ in range(pyramid.warps):
            flow = median_filter(step(one, two, flow), pyramid.median)
    return flow


def _levels(frames: Tensor, pyramid: Pyramid):
    yield frames
    height, width = frames.shape[-2:]
    # Of the full size each time, so that rounding does not add up; blurred as the change of scale needs it (Meinhardt-Llopis
    # and Sanchez, "Horn-Schunck optical flow with a multi-scale strategy", IPOL 2013, section 4.1).
    sigma, index = 0.6 * math.sqrt(pyramid.factor**-2 - 1), 1
    while True:
        size = tuple(round(side * pyramid.factor**index) for side in (height, width))
        if min(size) < pyramid.smallest:
            return
        frames = F.interpolate(blur(frames, sigma), size=size, mode="bilinear", align_corners=False)
        yield frames
        index += 1


def rescale_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Flow `(B, 2, h, w)` [px] on a grid of `size` = (height, width), in px of that grid."""
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    scale = flow.new_tensor((size[1] / width, size[0] / height)).view(1, 2, 1, 1)
    return F.interpolate(flow, size=tuple(size), mode="bilinear", align_corners=False) * scale


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian of standard deviation `sigma` [px] on each channel of `(B, C, H, W)`; edges repeat."""
    radius = max(1, math.ceil(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device) / sigma) ** 2)
    return separable(x, taps / taps.sum(), taps / taps.sum())


def separable(x: Tensor, along_x: Tensor, along_y: Tensor) -> Tensor:
    """Correlate each channel of `(B, C, H, W)` with `along_x` `(2a+1,)` and then `along_y` `(2b+1,)`; edges repeat."""
    return _correlate(_correlate(x, along_x, -1), along_y, -2)


def _correlate(x: Tensor, taps: Tensor, axis: int) -> Tensor:
    if len(taps) == 1:
        return x * taps
    reach, length = len(taps) // 2, x.shape[axis]
    padded = F.pad(x, (reach, reach, 0, 0) if axis == -1 else (0, 0, reach, reach), mode="replicate")
    answer = padded.narrow(axis, 0, length) * taps[0]
    for offset, tap in enumerate(taps[1:], 1):  # a sum of shifted maps: a convolution of one channel is slower
        answer.addcmul_(padded.narrow(axis, offset, length), tap)
    return answer


def derivative(x: Tensor, axis: int) -> Tensor:
    """Of `(B, C, H, W)` along an axis, -1 for x and -2 for y [per px]: the five-point difference (1, -8, 0, 8, -1)/12; edges
    repeat."""
    length = x.shape[axis]
    padded = F.pad(x, (2, 2, 0, 0) if axis == -1 else (0, 0, 2, 2), mode="replicate")
    far2, near1, near2, far1 = (padded.narrow(axis, offset, length) for offset in (0, 1, 3, 4))
    return (near2 - near1).mul_(8 / 12).add_(far1 - far2, alpha=-1 / 12)


def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """`derivative` along x and along y."""
    return derivative(x, -1), derivative(x, -2)


def sample(second: Tensor, flow: Tensor, top: int = 0) -> tuple[Tensor, Tensor]:
    """Frame 2 at x + flow(x), and where that lies inside the frame, `(B, 1, H, W)` 0 or 1.

    The flow may be that of some rows alone, of which `top` is the first; then so is the answer.

    Cubic convolution with a = -1/2 (Keys, IEEE TASSP 1981), edges repeated. `grid_sample` has the kernel with a = -3/4,
    which does not keep a ramp straight and costs 0.05 px of accuracy on smooth frames.
    """
    height, width = second.shape[-2:]
    target = pixel_grid(*size_of(flow), second) + flow
    if top:
        target = target + target.new_tensor((0, top)).view(1, 2, 1, 1)
    last = target.new_tensor((width - 1, height - 1)).view(1, 2, 1, 1)
    held = torch.fmin(torch.fmax(target, torch.zeros_like(last)), last)  # of NaN the frame's first pixel, outside
    inside = (held == target).all(dim=1, keepdim=True)
    base = held.detach().floor()
    share_x, share_y = (held - base).split(1, dim=1)
    weights_x, weights_y = _cubic_weights(share_x), _cubic_weights(share_y)
    padded = F.pad(second, (1, 2, 1, 2), mode="replicate")
    left, above = base.int().split(1, dim=1)
    corners = (above * padded.shape[-1] + left).flatten(1)
    warped: Tensor | None = None
    for down, weight_y in enumerate(weights_y):
        row: Tensor | None = None
        for right, weight_x in enumerate(weights_x):
            values = _picked(padded.flatten(2)[..., down * padded.shape[-1] + right :], corners)
            values = values.view(*second.shape[:2], *size_of(flow))
            row = weight_x * values if row is None else row.addcmul_(weight_x, values)
        assert row is not None  # of four
        warped = weight_y * row if warped is None else warped.addcmul_(weight_y, row)
    assert warped is not None  # of four rows
    return warped, inside.to(second.dtype)


def _picked(maps: Tensor, indices: Tensor) -> Tensor:
    """Of maps `(B, C, n)` the values at the indices `(B, m)` of each sample: several times as fast as `gather`."""
    return torch.stack([one.index_select(1, where) for one, where in zip(maps, indices, strict=True)])


def _cubic_weights(share: Tensor) -> tuple[Tensor, ...]:
    """Of the neighbours at -1, 0, 1, 2 of a point at `share` in [0, 1)."""
    s = share
    return ((-0.5 * s + 1) * s - 0.5) * s, (1.5 * s - 2.5) * s * s + 1, ((-1.5 * s + 2) * s + 0.5) * s, (0.5 * s - 0.5) * s * s


def linearize(first: Tensor, second: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness constancy around `flow`: `I2(x + w) - I1(x) = It + Ix (u - u0) + Iy (v - v0)` to first order.

    Returns:
        Ix, Iy, It, each `(B, C, H, W)`; zero where x + flow is outside the frame, so that only smoothness acts there. The
        derivatives are the mean of those of frame 1 and of the warped frame 2 (Sun et al., CVPR 2010, section 2).
    """
    warped, inside = sample(second, flow)
    x1, y1 = gradient(first)
    x2, y2 = gradient(warped)
    return inside * (x1 + x2) / 2, inside * (y1 + y2) / 2, inside * (warped - first)
