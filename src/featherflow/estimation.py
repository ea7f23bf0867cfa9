"""The kind interface: flow between two frames of any form and size, restored to their size."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .frames import as_batch

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def estimate(frame1, frame2, model=None, weights: str | os.PathLike | None = None, device: str | None = None,
             dtype: str = "auto", backward: bool = False, refine: int = 0):
    """Optical flow from `frame1` to `frame2`.

    Args:
        frame1, frame2: two frames, or two batches of frames, of one size of at least 16x16 px: paths, NumPy arrays
            `(H, W, 3)` uint8 RGB, Pillow images, tensors `(3, H, W)`, or lists of these; see `featherflow.frames.as_batch`.
        model: a network's name (`"liteflownet2"`, `"liteflownet2:tag"`), the name of a classical method
            (`"farneback"`, `"dis"`, ...) or a network object. Default: the best weights that come with featherflow.
        weights: a `.safetensors` file to use in place of the model's own weights.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, ... Default: the first GPU if there is one.
        dtype: of the convolutions: `"auto"` (float32), `"float32"`, `"bfloat16"`, `"float16"`; flow stays in float32.
        backward: also the flow from `frame2` to `frame1`.
        refine: steps of variational refinement at full size after the estimate, see `featherflow.classical.refine`.

    Returns:
        Flow [px], x to the right, y down, on the first frame's grid: `(H, W, 2)` float32 NumPy, `(B, H, W, 2)` for batches;
        `(2, H, W)` or `(B, 2, H, W)` tensors on the CPU where the frames were tensors. With `backward`, a pair of these.

    Raises:
        InputError: for frames that cannot be used or do not fit each other, or an unknown model, device or dtype.
        FileError: for image files that cannot be read. WeightsError: for a model without weights.
    """
    import torch

    first, second = as_batch(frame1, "frame1"), as_batch(frame2, "frame2")
    if first.shape != second.shape:
        raise InputError(
            f"The two frames must have one size, got {_describe(first)} and {_describe(second)}."
        )
    flows = [method_for(model, weights, device, dtype, refine)(a, b) for a, b in _directions(first, second, backward)]
    results = []
    for flow in flows:
        flow = flow if _is_batch(frame1) else flow[0]
        results.append(flow if _holds_tensors(frame1) else flow.movedim(-3, -1).contiguous().numpy())
    assert all(isinstance(result, np.ndarray | torch.Tensor) for result in results)
    return tuple(results) if backward else results[0]


def method_for(model=None, weights: str | os.PathLike | None = None, device: str | None = None, dtype: str = "auto",
               refine: int = 0):
    """A function of two batches `(B, 3, H, W)` float32 RGB in [0, 1] giving their flow `(B, 2, H, W)` [px] on the CPU.

    Args and Raises: as `estimate`. Networks are kept in memory, so that asking again costs nothing.
    """
    from . import classical
    from .weights import default_model

    if refine:
        if refine < 0:
            raise InputError(f"refine is a number of steps, 0 or more, got {refine}.")
        start, where = method_for(model, weights, device, dtype), _device(device)
        return lambda first, second: classical.refine(first, second, start(first, second), refine, where)
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got '{dtype}'.")
    if isinstance(model, str) and model in classical.METHODS:
        if weights is not None:
            raise InputError(f"'{model}' is a classical method and takes no weights.")
        where = _device(device)
        return lambda first, second: classical.estimate(model, first, second, where)
    where = _device(device)
    if model is None or isinstance(model, str):
        stamp = Path(weights).stat().st_mtime_ns if weights is not None and Path(weights).is_file() else None
        network = _network(model or default_model(), None if weights is None else os.fspath(weights), str(where), stamp)
    else:
        network = model.to(where).eval()
    return lambda first, second: run_network(network, first, second, where, dtype)


def run_network(network, first: torch.Tensor, second: torch.Tensor, device: torch.device | str = "cpu",
                dtype: str = "auto") -> torch.Tensor:
    """Run a network by its official size rule: resize to its multiple, estimate, restore the size in one step.

    Args:
        first, second: `(B, 3, H, W)` float32 RGB in [0, 1], any size.

    Returns:
        `(B, 2, H, W)` float32 [px] on the CPU.
    """
    import torch

    from .ops import resize

    size = tuple(first.shape[-2:])
    inner = tuple(max(-(-side // network.size_multiple) * network.size_multiple, network.smallest_size) for side in size)
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    device = torch.device(device)
    with torch.inference_mode(), torch.autocast(device.type, half) if half else nullcontext():
        frames = [
            resize(frame.to(device), inner).contiguous(memory_format=torch.channels_last) for frame in (first, second)
        ]
        return network(*frames, size=size).float().cpu()


@lru_cache(maxsize=4)
def _network(name: str, weights: str | None, device: str, stamp: int | None):
    import torch

    from .weights import load

    return load(name, weights=weights).to(device, memory_format=torch.channels_last)


def _device(device: str | None) -> torch.device:
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError):
        raise InputError(f"The device '{device}' is not available here; 'cpu' always is.") from None
    return where


def _directions(first, second, backward: bool):
    return [(first, second), (second, first)] if backward else [(first, second)]


def _is_batch(frame) -> bool:
    return isinstance(frame, list | tuple) or getattr(frame, "ndim", 0) == 4


def _holds_tensors(frame) -> bool:
    import torch

    return isinstance(frame[0] if isinstance(frame, list | tuple) else frame, torch.Tensor)


def _describe(batch) -> str:
    count = f" ({batch.shape[0]} frames)" if batch.shape[0] > 1 else ""
    return f"{batch.shape[-1]}x{batch.shape[-2]}{count}"
