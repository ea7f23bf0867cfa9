"""A flow that is nearly right, made to bring two frames together: at the edges of things, and by the last fraction of a pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .warping import warp_backward

STEPS = 3
_WINDOW = 7  # px
_DAMPING = 1e-4  # squared gradient of brightness
_LONGEST_STEP = 1.0  # px

_SMALL_WINDOW = 5  # px
_REACHES = (4, 8, 12)  # px
# A candidate's squared difference of colour must be less than this share of the old one's: where both frames show the place, and
# elsewhere, where any likeness may be chance; and less by this.
_CLEARLY, _MUCH, _NOISE = 0.8, 0.25, 5e-5


def adopt_neighbours(first: Tensor, second: Tensor, motion: Tensor, shown: Tensor, t: float = 0.0) -> Tensor:
    """Motion from frame 1 to frame 2 where each pixel may take over that of a place up to 12 px away, if it fits clearly better.

    Flows end a few pixels beside the edges of what moves; the pictures know better. Arguments and answer as `align`.
    """

    best = misfit(first, second, motion, t)
    share = torch.where(shown > 0.5, _CLEARLY, _MUCH)
    for reach in _REACHES:
        for dx, dy in ((reach, 0), (-reach, 0), (0, reach), (0, -reach)):
            candidate = beside(motion, dx, dy)
            found = misfit(first, second, candidate, t)
            better = found + _NOISE < share * best
            motion, best = torch.where(better, candidate, motion), torch.where(better, found, best)
    return motion


def fits_better(first: Tensor, second: Tensor, candidate: Tensor, motion: Tensor, t: float = 0.0) -> Tensor:
    """Where the frames fit a candidate clearly better than a motion, `(B, 1, H, W)` bool. Arguments as `misfit`."""
    return misfit(first, second, candidate, t) + _NOISE < _CLEARLY * misfit(first, second, motion, t)


def beside(field: Tensor, dx: int, dy: int) -> Tensor:
    """The values that stand so many pixels to the right and below, the outermost ones beyond the border."""
    height, width = field.shape[-2:]
    around = F.pad(field, (abs(dx), abs(dx), abs(dy), abs(dy)), mode="replicate")
    return around[..., abs(dy) + dy : abs(dy) + dy + height, abs(dx) + dx : abs(dx) + dx + width]


def misfit(first: Tensor, second: Tensor, motion: Tensor, t: float) -> Tensor:
    """What two frames differ by along a motion, on the grid of time t: squared, mean over colours and a window, `(B, 1, H, W)`."""
    difference = warp_backward(first, -t * motion)[0] - warp_backward(second, (1 - t) * motion)[0]
    return _smooth(difference.square().mean(dim=1, keepdim=True), _SMALL_WINDOW)


def align(first: Tensor, second: Tensor, motion: Tensor, shown: Tensor, t: float = 0.0, steps: int = STEPS) -> Tensor:
    """Motion from frame 1 to frame 2 after steps of Lucas and Kanade, on the grid of time t between them (0: that of frame 1).

    In each window, least squares on brightness(frame 2) - brightness(frame 1) = -gradient * change of motion; where both frames
    show the place, and only where a step makes the difference smaller.

    Args:
        first, second: `(B, 3, H, W)` in [0, 1]; motion: `(B, 2, H, W)` [px] over the whole interval.
        shown: `(B, 1, H, W)` in [0, 1], how much both frames show the place.

    Returns:
        `(B, 2, H, W)` [px].
    """
    grey1, grey2 = (frame.mean(dim=1, keepdim=True) for frame in (first, second))

    def look(motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved1, moved2 = warp_backward(grey1, -t * motion)[0], warp_backward(grey2, (1 - t) * motion)[0]
        difference = moved2 - moved1
        return difference, t * moved1 + (1 - t) * moved2, _smooth(difference.square())

    difference, between, error = look(motion)
    for _ in range(steps):
        x, y = _gradient(between)
        products = torch.cat((x * x, x * y, y * y, x * difference, y * difference), dim=1)
        xx, xy, yy, xd, yd = _smooth(products * shown).split(1, dim=1)
        xx, yy = xx + _DAMPING, yy + _DAMPING
        change = -torch.cat((yy * xd - xy * yd, xx * yd - xy * xd), dim=1) / (xx * yy - xy * xy)
        candidate = motion + change.clamp(-_LONGEST_STEP, _LONGEST_STEP)
        found = (candidate, *look(candidate))
        better = found[-1] < error
        motion, difference, between, error = (
            torch.where(better, new, old) for new, old in zip(found, (motion, difference, between, error), strict=True)
        )
    return motion


def _smooth(x: Tensor, window: int = _WINDOW) -> Tensor:
    """Mean over a window, twice a box."""
    for _ in range(2):
        x = F.avg_pool2d(x, window, 1, window // 2, count_include_pad=False)
    return x


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
