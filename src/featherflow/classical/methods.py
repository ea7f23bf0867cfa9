"""All classical methods by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InputError
from ..pixels import GREY
from . import opencv

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ClassicalMethod:
    """`run`: frames `(1, 3, H, W)` float32 RGB in [0, 1] and a device to flow `(1, 2, H, W)` [px]."""

    name: str
    summary: str
    paper: str
    run: Callable[[Tensor, Tensor, torch.device | str], Tensor]


def estimate(name: str, first: Tensor, second: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Flow by one of `METHODS`. Pairs are solved one by one, so that no pair depends on its batch; none that shows no motion.

    Args:
        first, second: tensors `(B, 3, H, W)` float32 RGB in [0, 1].
        device: for our own methods; OpenCV's run on the CPU.

    Returns:
        `(B, 2, H, W)` float32 [px] on the CPU.

    Raises:
        InputError: for an unknown name, and frames that a method cannot take or finds nothing in. MissingExtraError: where OpenCV
        or the method is not installed.
    """
    import torch

    from ..ops import show_no_motion

    if name not in METHODS:
        raise InputError(f"There is no classical method named '{name}'; known are {', '.join(METHODS)}.")
    run = METHODS[name].run
    flows = []
    with torch.no_grad():
        for a, b, still in zip(first.split(1), second.split(1), show_no_motion(first, second), strict=True):
            flows.append(a.new_zeros(1, 2, *a.shape[-2:]).cpu() if still else run(a, b, device).cpu())
    return torch.cat(flows)


def _own(name: str, first: Tensor, second: Tensor, device: torch.device | str) -> Tensor:
    from .pyramid import Pyramid, coarse_to_fine
    from .solvers import TVL1, Brox, HornSchunck, LucasKanade

    step, pyramid, colour = {
        "horn-schunck": (HornSchunck(), Pyramid(factor=0.7, warps=3), False),
        "lucas-kanade": (LucasKanade(), Pyramid(), True),
        "brox": (Brox(), Pyramid(factor=0.7, warps=3), True),
        "tv-l1": (TVL1(), Pyramid(factor=0.7), False),
    }[name]
    return coarse_to_fine(grey_levels(first.to(device), colour), grey_levels(second.to(device), colour), step, pyramid)


def grey_levels(frame: Tensor, colour: bool) -> Tensor:
    """RGB `(B, 3, H, W)` in [0, 1] to 0 to 255, `(B, 3, H, W)`, or `(B, 1, H, W)` by ITU-R BT.601 without `colour`."""
    if colour:
        return frame * 255
    red, green, blue = frame.split(1, dim=1)
    return (red * (255 * GREY[0])).add_(green, alpha=255 * GREY[1]).add_(blue, alpha=255 * GREY[2])


def _of_opencv(name: str, first: Tensor, second: Tensor, device: torch.device | str) -> Tensor:
    return opencv.estimate(name, first, second)


#: Name to method; our own first.
METHODS: dict[str, ClassicalMethod] = {
    name: ClassicalMethod(name, summary, paper, partial(_own, name))
    for name, summary, paper in (
        ("horn-schunck", "quadratic data and smoothness, coarse to fine; ours", "Horn, Schunck, Artificial Intelligence 1981"),
        ("lucas-kanade", "least squares in a window at every pixel, coarse to fine; ours", "Lucas, Kanade, IJCAI 1981"),
        ("brox", "brightness and gradient constancy, robust, by warping; ours", "Brox, Bruhn, Papenberg, Weickert, ECCV 2004"),
        ("tv-l1", "absolute data term, total variation, by duality; ours", "Zach, Pock, Bischof, DAGM 2007"),
    )
} | {
    name: ClassicalMethod(name, f"{summary}; OpenCV", paper, partial(_of_opencv, name))
    for name, summary, paper in (
        ("farneback", "polynomial expansion", "Farneback, SCIA 2003"),
        ("dis", "dense inverse search, preset medium", "Kroeger et al., ECCV 2016"),
        ("dis-fast", "dense inverse search, preset fast", "Kroeger et al., ECCV 2016"),
        ("dis-ultrafast", "dense inverse search, preset ultrafast", "Kroeger et al., ECCV 2016"),
        ("deepflow", "variational with dense matching", "Weinzaepfel et al., ICCV 2013"),
        ("pcaflow", "sum of learned basis flows", "Wulff, Black, CVPR 2015"),
        ("tvl1", "absolute data term, total variation", "Zach, Pock, Bischof, DAGM 2007"),
        ("rlof", "robust local flow on a grid, interpolated", "Senst et al., IEEE TCSVT 2012"),
        ("sparse-to-dense", "Lucas-Kanade on a grid, interpolated", "Lucas, Kanade, IJCAI 1981"),
    )
}
