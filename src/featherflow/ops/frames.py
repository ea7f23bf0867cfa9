"""What the networks ask of what they are given, said in one way."""

import torch
from torch import Tensor

from ..errors import InputError


def check_frames(frame1: Tensor, frame2: Tensor, multiple: int, smallest: int) -> None:
    """Refuse frames that a strict `forward` cannot take, saying what was given.

    Args:
        frame1, frame2: must be floating-point `(B, 3, H, W)` of one shape.
        multiple, smallest: of H and W [px].

    Raises:
        InputError: for any other shape, size or dtype.
    """
    for name, frame in (("frame1", frame1), ("frame2", frame2)):
        if frame.ndim != 4 or frame.shape[1] != 3 or not frame.is_floating_point():
            got = f"{tuple(frame.shape)} of {str(frame.dtype).removeprefix('torch.')}"
            raise InputError(f"{name} must be a floating-point tensor (B, 3, H, W) with RGB in [0, 1], got {got}.")
    if frame1.shape != frame2.shape:
        raise InputError(f"frame1 and frame2 must have one shape, got {tuple(frame1.shape)} and {tuple(frame2.shape)}.")
    height, width = frame1.shape[-2:]
    if height % multiple or width % multiple or min(height, width) < smallest:
        raise InputError(
            f"The network takes heights and widths that are multiples of {multiple} and at least {smallest} px, "
            f"got {height}x{width}; featherflow.estimate takes any size."
        )


#: Most by which a frame may vary, in [0, 1], and still show nothing: one level of 8 bit up and down, as the noise of black.
FLAT = 2.5 / 255
_APART = 16  # px between the pixels that are looked at first


def show_no_motion(frame1: Tensor, frame2: Tensor) -> list[bool]:
    """For each two of two batches of frames `(B, 3, H, W)` in [0, 1], whether nothing tells a motion: they are equal, or one is of
    one colour.
    """
    alone = (_are_flat(frame1) | _are_flat(frame2)).tolist()
    return [nothing or a.equal(b) for nothing, a, b in zip(alone, frame1, frame2, strict=True)]


def _are_flat(frames: Tensor) -> Tensor:
    """Whether each of a batch of frames is of one colour, `(B,)`. Few pixels tell of most that it is not."""
    flat = _spread(frames[..., ::_APART, ::_APART]) <= FLAT
    return _spread(frames) <= FLAT if flat.any() else flat


def _spread(frames: Tensor) -> Tensor:
    return (frames.amax((2, 3)) - frames.amin((2, 3))).amax(1)


def check_iterations(iterations: int) -> int:
    """The number of updates, if it is one.

    Raises:
        InputError: for anything but a whole number of at least 1.
    """
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise InputError(f"The number of iterations must be a whole number of at least 1, got {iterations!r}.")
    return iterations


def starting_flow(initial_flow: Tensor | None, features: Tensor) -> Tensor:
    """Flow to start from on the grid of `features`, `(B, 2, H, W)` float32: the one given, or none at all.

    Raises:
        InputError: for a flow of another shape.
    """
    shape = (features.shape[0], 2, *features.shape[-2:])
    if initial_flow is None:
        return features.new_zeros(shape, dtype=torch.float32)
    if tuple(initial_flow.shape) != shape:
        raise InputError(f"initial_flow must have the shape {shape}, got {tuple(initial_flow.shape)}.")
    return initial_flow.to(features.device, torch.float32)
