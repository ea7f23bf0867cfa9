"""The kind interface: flow between two frames of any form and size, restored to their size."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .frames import as_batch

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def estimate(frame1, frame2, model=None, weights: str | os.PathLike | None = None, device: str | None = None,
             dtype: str = "auto", backward: bool = False, iterations: int | None = None, refine: int = 0,
             enlarge: float | None = None):
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
        iterations: number of updates of a network that iterates (RAFT, FlowFormer, ...). Default: the network's own.
        refine: steps of variational refinement at full size after the estimate, see `featherflow.classical.refine`.
        enlarge: factor by which a network sees the frames enlarged; the flow comes back at their own size. Default: as the
            weights ask (2 for frames of fewer pixels than their `enlarge_below`, else 1).

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
        raise InputError(f"The two frames must have one size, got {_describe(first)} and {_describe(second)}.")
    method = method_for(model, weights, device, dtype, iterations, refine, enlarge)
    results = []
    for a, b in [(first, second), (second, first)] if backward else [(first, second)]:
        flow = method(a, b)
        flow = flow if _is_batch(frame1) else flow[0]
        results.append(flow if _holds(frame1, torch.Tensor) else flow.movedim(-3, -1).contiguous().numpy())
    return tuple(results) if backward else results[0]


def method_for(model=None, weights: str | os.PathLike | None = None, device: str | None = None, dtype: str = "auto",
               iterations: int | None = None, refine: int = 0, enlarge: float | None = None):
    """A function of two batches `(B, 3, H, W)` float32 RGB in [0, 1] giving their flow `(B, 2, H, W)` [px] on the CPU.

    Args and Raises: as `estimate`. Networks are kept in memory, so that asking again costs nothing.
    """
    from . import classical
    from .weights import default_model

    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got '{dtype}'.")
    if refine < 0:
        raise InputError(f"refine is a number of steps, 0 or more, got {refine}.")
    if enlarge is not None and not 0.25 <= enlarge <= 4:
        raise InputError(f"enlarge is a factor from 0.25 to 4, got {enlarge}.")
    where = _device(device)
    if isinstance(model, str) and model in classical.METHODS:
        for name, value in (("weights", weights), ("number of iterations", iterations), ("enlargement", enlarge)):
            if value is not None:
                raise InputError(f"'{model}' is a classical method and takes no {name}.")

        def method(first, second):
            return classical.estimate(model, first, second, where)
    else:
        if model is None or isinstance(model, str):
            stamp = Path(weights).stat().st_mtime_ns if weights is not None and Path(weights).is_file() else None
            network = _network(model or default_model(), None if weights is None else os.fspath(weights), str(where), stamp)
        else:
            network = model.to(where).eval()
        info = getattr(network, "weights_info", None)
        enlarge_below = info.enlarge_below if info is not None else 0

        def method(first, second):
            small = first.shape[-2] * first.shape[-1] < enlarge_below
            factor = enlarge or (2.0 if small else 1.0)
            return run_network(network, first, second, where, dtype, iterations, factor)

    if not refine:
        return method
    return lambda first, second: classical.refine(first, second, method(first, second), refine, where)


def run_network(network, first: torch.Tensor, second: torch.Tensor, device: torch.device | str = "cpu",
                dtype: str = "auto", iterations: int | None = None, enlarge: float = 1.0) -> torch.Tensor:
    """Run a network by its official size rule, and restore the size.

    The rule is the network's attribute `size_rule`. "resize": to its multiple, and the flow back in one step. "pad": by repeating
    the border, half of it on each side, and cutting the flow to the frame.

    Args:
        first, second: `(B, 3, H, W)` float32 RGB in [0, 1], any size.
        iterations: number of updates of a network that iterates. Default: the network's own.
        enlarge: factor by which the network sees the frames enlarged.

    Returns:
        `(B, 2, H, W)` float32 [px] on the CPU.

    Raises:
        InputError: for iterations of a network that has none, or fewer than 1.
    """
    import torch
    import torch.nn.functional as F

    from .ops import resize

    size = tuple(first.shape[-2:])
    seen = tuple(max(round(side * enlarge), 1) for side in size)
    inner = tuple(max(-(-side // network.size_multiple) * network.size_multiple, network.smallest_size) for side in seen)
    options = {}
    if iterations is not None:
        if not hasattr(network, "iterations"):
            raise InputError(f"{type(network).__name__} does not iterate; leave the number of iterations out.")
        options["iterations"] = iterations
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    device = torch.device(device)
    pads = getattr(network, "size_rule", "resize") == "pad"
    top, left = ((whole - side) // 2 for whole, side in zip(inner, seen, strict=True))
    bottom, right = inner[0] - seen[0] - top, inner[1] - seen[1] - left

    def fit(frame: torch.Tensor) -> torch.Tensor:
        frame = frame.to(device)
        if pads:
            frame = F.pad(resize(frame, seen), (left, right, top, bottom), mode="replicate")
        elif inner != size:
            frame = resize(frame, inner)
            if getattr(network, "resized_to_8_bits", False):
                frame = (frame * 255).round() / 255
        return frame.contiguous(memory_format=torch.channels_last)

    with torch.inference_mode(), torch.autocast(device.type, half) if half else nullcontext():
        if not pads:
            return network(fit(first), fit(second), size=size, **options).float().cpu()
        flow = network(fit(first), fit(second), **options)[..., top : top + seen[0], left : left + seen[1]].float()
        scale = flow.new_tensor((size[1] / seen[1], size[0] / seen[0])).view(1, 2, 1, 1)
        return (resize(flow, size) * scale).cpu()


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


def _is_batch(frame) -> bool:
    return isinstance(frame, list | tuple) or getattr(frame, "ndim", 0) == 4


def _holds(frame, kind: type) -> bool:
    return isinstance(frame[0] if isinstance(frame, list | tuple) else frame, kind)


def _describe(batch) -> str:
    count = f" ({batch.shape[0]} frames)" if batch.shape[0] > 1 else ""
    return f"{batch.shape[-1]}x{batch.shape[-2]}{count}"
