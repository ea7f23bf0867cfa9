"""What counts as a flow field: one check at the door for every function of this room.

The NumPy form is `(H, W, 2)` float32, `[..., 0]` = x to the right, `[..., 1]` = y down, unit px, standing on the first
frame's grid. A pixel whose flow is unknown holds NaN.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import DTypeLike

from featherflow.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

#: A flow: `(H, W, 2)`, or as a tensor `(2, H, W)` or `(1, 2, H, W)`.
Flow: TypeAlias = "np.ndarray | Tensor"
#: `(H, W)`, booleans, or numbers that count where they are not zero.
Mask: TypeAlias = "np.ndarray | Tensor"

# Middlebury's flow code calls a component beyond this magnitude "unknown" (Baker et al., IJCV 2011, flowIO.h).
UNKNOWN_THRESHOLD = 1e9


def as_field(flow: Flow, what: str = "the flow", dtype: DTypeLike = np.float32) -> np.ndarray:
    """Return `flow` as an `(H, W, 2)` array of `dtype`, values in px.

    Takes a NumPy array `(H, W, 2)` or a torch tensor `(2, H, W)` or `(1, 2, H, W)` on any device, of any real number
    type. Values are not looked at. The result may share memory with `flow`: do not write to it.

    Raises `InputError` for anything else, naming `what` and its shape or type.
    """
    # A tensor exists only if torch is imported, so this room never has to import it.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(flow, torch.Tensor):
        shape, tensor = tuple(flow.shape), cast("Tensor", flow)
        if len(shape) == 4 and shape[0] == 1:
            tensor = tensor[0]
        if tensor.ndim != 3 or tensor.shape[0] != 2 or tensor.numel() == 0:
            raise InputError(f"{what} as a tensor must have shape (2, H, W) or (1, 2, H, W), but got {shape}")
        if tensor.is_complex() or tensor.dtype == torch.bool:
            raise InputError(f"{what} must hold real numbers, but its type is {tensor.dtype}")
        # NumPy knows no bfloat16; every other type converts exactly on the way to float64.
        return tensor.detach().cpu().to(torch.float64 if dtype == np.float64 else torch.float32).permute(1, 2, 0).numpy()
    if not isinstance(flow, np.ndarray):
        raise InputError(f"{what} must be a NumPy array (H, W, 2) or a torch tensor, but got a {type(flow).__name__}")
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0:
        raise InputError(f"{what} as an array must have shape (H, W, 2), but got {flow.shape}")
    if flow.dtype.kind not in "fiu":
        raise InputError(f"{what} must hold real numbers, but its type is {flow.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):  # a float64 too large for float32 becomes inf, which is handled
        return flow.astype(dtype, copy=False)


def as_mask(mask: Mask, shape: tuple[int, int], what: str = "the valid mask") -> np.ndarray:
    """Return `mask` as a boolean `(H, W)` array; numbers count as true when they are not zero.

    Raises `InputError` when its shape is not `shape`.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(mask, torch.Tensor):
        mask = cast("Tensor", mask).detach().cpu().numpy()
    mask = np.asarray(mask)
    if mask.shape != tuple(shape):
        raise InputError(f"{what} must have the shape of the flow's grid, {tuple(shape)}, but got {mask.shape}")
    if mask.dtype.kind not in "bfiu":
        raise InputError(f"{what} must hold booleans or numbers, but its type is {mask.dtype}")
    return mask if mask.dtype == bool else mask != 0


def known(field: np.ndarray) -> np.ndarray:
    """Boolean `(H, W)`: both components are numbers of at most 1e9 px in magnitude, Middlebury's bound for "known"."""
    with np.errstate(invalid="ignore"):
        return np.all(np.abs(field) <= UNKNOWN_THRESHOLD, axis=-1)


def positive(value, name: str) -> float:
    """Return `value` as a float. Raises `InputError`, naming it, when it is not a positive number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not (np.isfinite(number) and number > 0):
        raise InputError(f"{name} must be a positive number, but is {value!r}")
    return number
