"""Variational refinement: a few steps of our robust solver at full size, started from another method's flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def refine(first: Tensor, second: Tensor, flow: Tensor, iterations: int = 3, device: torch.device | str = "cpu") -> Tensor:
    """A flow made better below the pixel, where it was right to about a pixel before.

    Each iteration is one step of `solvers.Brox` on grey levels around the flow so far, with the weights of its robust functions
    from there, and a median filter. What the start has missed by more than a few pixels stays missed.

    Args:
        first, second: `(B, 3, H, W)` float32 RGB in [0, 1]. flow: `(B, 2, H, W)` [px].
        iterations: at least 1; the first brings most.

    Returns:
        `(B, 2, H, W)` float32 [px] on the CPU.

    Raises:
        InputError: for another number of iterations, or shapes that do not fit.
    """
    import torch

    from .methods import grey_levels
    from .pyramid import Pyramid, coarse_to_fine
    from .solvers import Brox

    if iterations < 1:
        raise InputError(f"A refinement takes at least 1 iteration, got {iterations}.")
    pyramid, step = Pyramid(warps=iterations), Brox(fixed_points=1)
    with torch.no_grad():
        refined = []
        for one, two, start in zip(first, second, flow, strict=True):
            grey1, grey2 = (grey_levels(frame[None].to(device), colour=False) for frame in (one, two))
            refined.append(coarse_to_fine(grey1, grey2, step, pyramid, start[None].to(device).float()).cpu())
    return torch.cat(refined)
