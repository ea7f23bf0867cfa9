"""What every network asks of its frames, said in one way."""

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
