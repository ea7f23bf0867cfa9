"""Frames in any form a person has them, as tensors: paths, arrays, Pillow images, tensors; grey, RGB, RGBA; whole numbers or float.

How their numbers become [0, 1]: `pixels`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .images import Still, from_pillow, read_stored
from .pixels import Range, check_unit, common_range, own_range, three_channels, to_unit

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_FRAME = 16  # px


def as_batches(frames: Sequence[Any], names: Sequence[str], value_range: Range | None = None) -> list[Tensor]:
    """Frames that belong together as batches, scaled alike; each as `as_batch` takes it.

    Args:
        value_range: the numbers that become 0 and 1 in frames deeper than 8 bit. Default: see `pixels`.
    """
    places = [_place(frame) for frame in frames]
    if value_range is None and None not in places:
        found = (_in_place(frame, name) for frame, name in zip(frames, names, strict=True))
        ready = [batch for batch in found if batch is not None]
        if len(ready) == len(frames):
            return ready
    parts = [_arrays(frame, name) for frame, name in zip(frames, names, strict=True)]
    common = common_range([array for part in parts for array, _ in part])
    batches = [_as_one(part, name, value_range, common) for part, name in zip(parts, names, strict=True)]
    return [batch if place is None else batch.to(place) for batch, place in zip(batches, places, strict=True)]


class RunningRange:
    """The range of frames that come one by one: that of all so far, so that it grows and never shrinks."""

    def __init__(self) -> None:
        self.common: Range | None = None
        #: Whether the frame before has to be scaled again, since the last one is beyond the range that it was scaled by.
        self.grew = False
        self._extremes: dict[np.dtype, np.ndarray] = {}

    def batch(self, frame: Any, name: str) -> Tensor:
        """A frame as `as_batch` gives it, scaled by the range of all so far, its own included."""
        place, before, self.grew = _place(frame), self.common, False
        if place is not None and (ready := _in_place(frame, name)) is not None:
            return ready
        parts = _arrays(frame, name)
        for array, _ in parts:
            if array.dtype.kind in "iu" and array.dtype != np.uint8 and array.size:
                known = self._extremes.get(array.dtype, array[:0].reshape(-1))
                numbers = np.concatenate((known, [array.min(), array.max()])).astype(array.dtype)
                self._extremes[array.dtype] = np.array([numbers.min(), numbers.max()])
        self.common = common_range(list(self._extremes.values()))
        self.grew = before is not None and before != self.common
        batch = _as_one(parts, name, None, self.common)
        return batch if place is None else batch.to(place)


def as_batch(frame: Any, name: str = "the frame", value_range: Range | None = None) -> Tensor:
    """Any form of a frame, or of a batch of frames, as a tensor `(B, 3, H, W)` float32 RGB in [0, 1], on the device of a tensor.

    Args:
        frame: a path; a Pillow image; a NumPy array `(H, W)`, `(H, W, C)` or `(B, H, W, C)`; a tensor `(C, H, W)` or
            `(B, C, H, W)`; C = 1, 3 or 4 (alpha is ignored); whole numbers or float in [0, 1]; or a list of these, of one size.
        name: how errors call it.
        value_range: the numbers that become 0 and 1 in a frame deeper than 8 bit. Default: for uint16 all 16 bits, for other whole
            numbers those of the frame; frames that belong together are better scaled by `as_batches`.

    Raises:
        InputError: for any other type, shape, dtype or range, NaN, or less than 16 px on a side; FileError as `read_image`.
    """
    place = _place(frame)
    if place is not None and value_range is None and (ready := _in_place(frame, name)) is not None:
        return ready
    batch = _as_one(_arrays(frame, name), name, value_range)
    return batch if place is None else batch.to(place)


def _place(frame):
    """The device of a tensor, or of a list of them, that is not on the CPU; else None."""
    import torch

    first = frame[0] if isinstance(frame, list | tuple) and frame else frame
    return first.device if isinstance(first, torch.Tensor) and first.device.type != "cpu" else None


def _in_place(frame, name: str):
    """A tensor `(C, H, W)` or `(B, C, H, W)`, or a list of them, as a batch that never leaves its device; None where the numbers of
    several frames decide how each is scaled.

    Raises: as `as_batch`.
    """
    import torch

    if isinstance(frame, list | tuple):
        parts = [_in_place(part, f"{name}[{index}]") for index, part in enumerate(frame)]
        return None if any(part is None for part in parts) else _one_batch(parts)
    if not isinstance(frame, torch.Tensor) or not (frame.dtype == torch.uint8 or frame.is_floating_point()):
        return None
    _check_channels(frame, name)
    batch = frame.detach() if frame.ndim == 4 else frame.detach()[None]
    batch = batch[:, :1].expand(-1, 3, -1, -1) if batch.shape[1] < 3 else batch[:, :3]
    unit = batch.float()
    if batch.dtype == torch.uint8:
        unit = unit / 255.0
    else:
        low, high = (float(number) for number in torch.stack((unit.amin(), unit.amax())))  # NaN, if any number is
        if not np.isfinite((low, high)).all():
            raise InputError(f"{name} holds NaN or infinite values; expected finite numbers.")
        check_unit(low, high, name)
        unit = unit.clamp(0.0, 1.0)
    _check_size(unit, name)
    return unit.contiguous(memory_format=torch.channels_last)


def _check_channels(tensor, name: str) -> None:
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3, 4):
        raise InputError(f"{name} as a tensor must be (C, H, W) or (B, C, H, W) with C = 1, 3 or 4, got {tuple(tensor.shape)}.")


def _check_size(batch, name: str) -> None:
    if min(batch.shape[-2:]) < _SMALLEST_FRAME:
        raise InputError(f"{name} is {_size(batch)} px; the smallest that is taken is {_SMALLEST_FRAME}x{_SMALLEST_FRAME}.")


def _arrays(frame, name: str) -> list[tuple[np.ndarray, str]]:
    """Arrays `(H, W)`, `(H, W, C)` or `(B, H, W, C)` of their own type, each with its name."""
    import torch

    if isinstance(frame, list | tuple):
        if not frame:
            raise InputError(f"{name} is an empty list; expected at least one frame.")
        return [entry for index, part in enumerate(frame) for entry in _arrays(part, f"{name}[{index}]")]
    if isinstance(frame, str | os.PathLike | Still):
        return [(read_stored(frame), f"'{frame}'")]
    if isinstance(frame, torch.Tensor):
        array = frame.detach().cpu()
        array = (array.float() if array.dtype in (torch.bfloat16, torch.float16) else array).numpy()
        _check_channels(frame, name)
        return [(np.moveaxis(array, -3, -1), name)]
    if isinstance(frame, np.ndarray):
        if frame.ndim in (3, 4) and frame.shape[-1] == 2:
            raise InputError(f"{name} must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {frame.shape}.")
        return [(frame.astype(frame.dtype.newbyteorder("="), copy=False), name)]
    if hasattr(frame, "convert") and hasattr(frame, "mode"):
        return [(from_pillow(frame), name)]
    raise InputError(f"{name} must be a path, a NumPy array, a Pillow image or a tensor, got {type(frame).__name__}.")


def _as_one(parts: list[tuple[np.ndarray, str]], name: str, value_range: Range | None, common: Range | None = None):
    return _one_batch([_tensor(array, part, own_range(array, value_range, common)) for array, part in parts])


def _one_batch(batches: list):
    import torch

    if len({batch.shape[1:] for batch in batches}) > 1:
        sizes = ", ".join(sorted({_size(batch) for batch in batches}))
        raise InputError(f"The frames of a batch must have one size, got {sizes}.")
    return batches[0] if len(batches) == 1 else torch.cat(batches)


def _tensor(array: np.ndarray, name: str, value_range: Range | None):
    import torch

    array = three_channels(to_unit(array, name, value_range), name)
    batch = torch.from_numpy(np.ascontiguousarray(array if array.ndim == 4 else array[None])).permute(0, 3, 1, 2)
    _check_size(batch, name)
    return batch


def _size(batch) -> str:
    return f"{batch.shape[-1]}x{batch.shape[-2]}"
