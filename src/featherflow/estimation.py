"""The kind interface: flow between two frames of any form and size, restored to their size."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .frames import as_batches

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def estimate(
    frame1,
    frame2,
    model=None,
    weights: str | os.PathLike | None = None,
    device: str | None = None,
    dtype: str = "auto",
    backward: bool = False,
    iterations: int | None = None,
    refine: int = 0,
    enlarge: float | None = None,
    engine: str = "auto",
    tile: str | tuple[int, int] | None = "auto",
    octaves: int | None = None,
):
    """Optical flow from `frame1` to `frame2`.

    Args:
        frame1, frame2: two frames, or two batches of frames, of one size of at least 16x16 px: paths, NumPy arrays
            `(H, W, 3)` uint8 RGB, Pillow images, tensors `(3, H, W)`, or lists of these; see `featherflow.frames.as_batch`; both
            are scaled alike where they are deeper than 8 bit. Equal frames have a flow of exactly zero.
        model: a network's name (`"liteflownet2"`, `"liteflownet2:tag"`), the name of a classical method
            (`"farneback"`, `"dis"`, ...) or a network object. Default: the best weights that come with featherflow.
        weights: a `.safetensors` file to use in place of the model's own weights.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, ... Default: the first GPU if there is one.
        dtype: of the convolutions: `"float32"`, `"bfloat16"`, `"float16"`, or by the engine `"openvino"` `"int8"`; flow stays
            in float32. Default `"auto"`: bfloat16 where the CPU computes in it and its cost in accuracy was measured to be below
            1 % for the network, else float32.
        backward: also the flow from `frame2` to `frame1`.
        iterations: number of updates of a network that iterates (RAFT, FlowFormer, ...). Default: the network's own.
        refine: steps of variational refinement at full size after the estimate, see `featherflow.classical.refine`.
        enlarge: factor by which a network sees the frames enlarged; the flow comes back at their own size. Default: as the
            weights ask (2 for frames of fewer pixels than their `enlarge_below`, else 1).
        engine: what runs a network: `"torch"`, `"compile"` (PyTorch's compiler), `"openvino"` or `"onnx"` (built once for each
            network and frame size, and kept). Default `"auto"`: the fastest that has been built, else PyTorch as it is.
        tile: (height, width) [px] of overlapping tiles in which a network runs, so that memory does not grow with the frames;
            None: never. Default `"auto"`: tiles for frames of more than 2.2 million pixels, see `featherflow.tiling`; the
            LiteFlowNet family by PyTorch sees far larger ones whole (`liteflownet2-slim` up to 7680x4320), in bounded memory.
        octaves: how many times a network of the LiteFlowNet family first looks at the frames at half their size and starts from
            what it finds there: each doubles the motions in reach, the first for a quarter more operations. Default: as the
            weights ask (0 for official ones; 1 for those that come with featherflow, and one more for about each fourfold of
            pixels beyond 450,000, see `octaves_for`).

    Returns:
        Flow [px], x to the right, y down, on the first frame's grid: `(H, W, 2)` float32 NumPy, `(B, H, W, 2)` for batches;
        `(2, H, W)` or `(B, 2, H, W)` tensors on the CPU where the frames were tensors. With `backward`, a pair of these.

    Raises:
        InputError: for frames that cannot be used or do not fit each other, or an unknown model, device or dtype.
        FileError: for image files that cannot be read. WeightsError: for a model without weights.
    """
    first, second = as_batches((frame1, frame2), ("frame1", "frame2"))
    if first.shape != second.shape:
        raise InputError(f"The two frames must have one size, got {_describe(first)} and {_describe(second)}.")
    method = methods_for(model, weights, device, dtype, iterations, refine, enlarge, engine, tile, octaves, backward)
    flows = [_as_given(flow, frame1) for flow in method(first, second)]
    return tuple(flows) if backward else flows[0]


def method_for(*args, **settings):
    """A function of two batches `(B, 3, H, W)` float32 RGB in [0, 1] giving their flow `(B, 2, H, W)` [px] on the CPU.

    Args and Raises: as `estimate` after its frames. Networks are kept in memory, so that asking again costs nothing.
    """
    method = methods_for(*args, **settings)
    return lambda first, second: method(first, second)[0]


def methods_for(
    model=None,
    weights: str | os.PathLike | None = None,
    device: str | None = None,
    dtype: str = "auto",
    iterations: int | None = None,
    refine: int = 0,
    enlarge: float | None = None,
    engine: str = "auto",
    tile: str | tuple[int, int] | None = "auto",
    octaves: int | None = None,
    backward: bool = False,
):
    """As `method_for`, but the function gives a list: the flow, and with `backward` that from the second frame to the first."""
    from . import classical, engines, tiling

    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got '{dtype}'.")
    if refine < 0:
        raise InputError(f"refine is a number of steps, 0 or more, got {refine}.")
    if engine not in engines.ENGINES:
        raise InputError(f"The engine must be one of {', '.join(engines.ENGINES)}, got '{engine}'.")
    if enlarge is not None and not 0.25 <= enlarge <= 4:
        raise InputError(f"enlarge is a factor from 0.25 to 4, got {enlarge}.")
    where = device_named(device)
    if isinstance(model, str) and model in classical.METHODS:
        for name, value in (
            ("weights", weights),
            ("number of iterations", iterations),
            ("enlargement", enlarge),
            ("engine", None if engine == "auto" else engine),
            ("octaves", octaves),
        ):
            if value is not None:
                raise InputError(f"'{model}' is a classical method and takes no {name}.")

        def method(first, second):
            pairs = [(first, second), (second, first)] if backward else [(first, second)]
            return [classical.estimate(model, a, b, where) for a, b in pairs]
    else:
        network = network_for(model, weights, where, octaves)
        dtype = dtype_for(network, where, dtype)

        def method(first, second):
            size = tuple(first.shape[-2:])
            part = tiling.tile_for(tile, size, largest_whole(network, engine, dtype))

            def work(frames):
                size = tuple(frames.shape[-2:])
                factor = enlarge or usual_enlargement(network, size)
                seen = with_reach(network, octaves, size, factor)
                return engines.Work(seen, tuple(frames.shape), where, dtype, iterations, factor)

            def single(a, b):
                return engines.runner(engines.choose(engine, work(a)), work(a))(a, b)

            shares = backward and part is None and iterations is None and shares_features(network)
            if shares and engines.choose(engine, work(first)) == "torch":
                return _run_both_ways(work(first).network, first, second, where, dtype, work(first).enlarge)
            pairs = [(first, second), (second, first)] if backward else [(first, second)]
            return [single(a, b) if part is None else tiling.estimate_in_tiles(single, a, b, part) for a, b in pairs]

    def refined(first, second):
        pairs = [(first, second), (second, first)]
        flows = method(first, second)
        if refine:
            flows = [classical.refine(a, b, flow, refine, where) for (a, b), flow in zip(pairs, flows, strict=False)]
        return [still_where_equal(flow, first, second) for flow in flows]

    return refined


def still_where_equal(flow: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Flow `(B, 2, H, W)` of two batches of frames, and exactly zero for each two frames that are equal."""
    equal = [index for index, pair in enumerate(zip(first, second, strict=True)) if pair[0].equal(pair[1])]
    if equal:
        flow = flow.clone()  # it may be an inference tensor
        flow[equal] = 0
    return flow


def largest_whole(network, engine: str, dtype: str) -> int:
    """Pixels of the largest frames that are estimated whole where nobody says otherwise: what networks that bound their memory
    say (in float32 a third of it), by PyTorch; else `tiling.LARGEST_WHOLE`."""
    from .tiling import LARGEST_WHOLE

    own = getattr(network, "largest_whole", 0) if engine in ("auto", "torch") else 0
    return max(own // 3 if dtype == "float32" else own, LARGEST_WHOLE)


#: About the frames of Sintel and KITTI [px]: what networks with octaves were trained for.
_USUAL_PIXELS = 450_000


def octaves_for(octaves: int, size: tuple[int, int], enlarge: float = 1.0) -> int:
    """Octaves for whole frames of (height, width) [px], so that the reach of weights with `octaves` grows with the frames: another
    for about each fourfold of pixels. Weights without any are left as they are, up to `tiling.LARGEST_WHOLE`."""
    from .tiling import LARGEST_WHOLE

    pixels = size[0] * size[1] * enlarge**2
    if octaves == 0 and pixels <= LARGEST_WHOLE:
        return 0
    return octaves + max(round(math.log(pixels / _USUAL_PIXELS, 4)), 0)


def with_reach(network, octaves: int | None, size: tuple[int, int], enlarge: float = 1.0):
    """A network as it sees whole frames of (height, width) [px]: with the octaves that are asked for; where they are None, one
    of the LiteFlowNet family has `octaves_for` such frames."""
    from .networks.liteflownet import LiteFlowNet

    if octaves is None and isinstance(network, LiteFlowNet):
        octaves = octaves_for(network.config.octaves, size, enlarge)
    return with_octaves(network, octaves)


def shares_features(network) -> bool:
    """Whether a network looks at each frame alone before it compares two, so that this can be done once for both directions."""
    return hasattr(network, "encode") and hasattr(network, "decode")


def _run_both_ways(
    network, first: torch.Tensor, second: torch.Tensor, device: torch.device, dtype: str, enlarge: float
) -> list[torch.Tensor]:
    """As two calls of `run_network`, with each frame encoded once for each colour mean: once, where both means are equal."""
    fitting = Fitting.of(network, tuple(first.shape[-2:]), enlarge)
    with computing(device, dtype):
        frames = [fitting.fit(frame.to(device)) for frame in (first, second)]
        as_first = [network.encode(frame, network.mean1) for frame in frames]
        equal = network.mean1.equal(network.mean2)
        as_second = as_first if equal else [network.encode(frame, network.mean2) for frame in frames]
        flows = [network.decode(as_first[here], as_second[1 - here], size=fitting.size) for here in (0, 1)]
        return [fitting.restore(flow).cpu() for flow in flows]


def _as_given(flow: torch.Tensor, frame):
    """Flow `(B, 2, H, W)` in the form in which a frame was given."""
    import torch

    flow = flow if _is_batch(frame) else flow[0]
    return flow if _holds(frame, torch.Tensor) else flow.movedim(-3, -1).contiguous().numpy()


def network_for(model, weights: str | os.PathLike | None, device: torch.device, octaves: int | None = None):
    """The network of a name, with its weights, or the network object itself, on a device and ready to run.

    Networks of a name are kept in memory, so that asking again costs nothing. With other `octaves` than its own it is another
    object with the same weights.
    """
    from .weights import default_model

    if model is not None and not isinstance(model, str):
        import torch

        network = model.to(device).eval()
        if device.type != "cpu":  # cuDNN goes by frames or weights, and a warp gives up the format of the frames
            network.to(memory_format=torch.channels_last)
    else:
        stamp = Path(weights).stat().st_mtime_ns if weights is not None and Path(weights).is_file() else None
        network = _network(model or default_model(), None if weights is None else os.fspath(weights), str(device), stamp)
    return with_octaves(network, octaves)


def dtype_for(network, device: torch.device, dtype: str) -> str:
    """`dtype`, with "auto" made a choice."""
    from . import engines

    return engines.usual_dtype(network, device) if dtype == "auto" else dtype


def usual_enlargement(network, size: tuple[int, int]) -> float:
    """Factor by which a network sees frames of (height, width) enlarged where nobody says otherwise: as its weights ask."""
    info = getattr(network, "weights_info", None)
    return 2.0 if info is not None and size[0] * size[1] < info.enlarge_below else 1.0


def run_network(
    network,
    first: torch.Tensor,
    second: torch.Tensor,
    device: torch.device | str = "cpu",
    dtype: str = "auto",
    iterations: int | None = None,
    enlarge: float = 1.0,
) -> torch.Tensor:
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
    fitting = Fitting.of(network, tuple(first.shape[-2:]), enlarge)
    options = _updates(network, iterations) | ({} if fitting.pads else {"size": fitting.size})
    with computing(device, dtype):
        flow = network(fitting.fit(first.to(device)), fitting.fit(second.to(device)), **options)
        return fitting.restore(flow).cpu()


def starts_from_flow(network) -> bool:
    """Whether a network can begin with a flow, such as that of the frames before, and so be run by `run_network_from`."""
    return "initial_flow" in signature(getattr(network, "flows", lambda: None)).parameters


def run_network_from(
    network,
    first: torch.Tensor,
    second: torch.Tensor,
    start: torch.Tensor | None,
    device: torch.device | str = "cpu",
    dtype: str = "auto",
    iterations: int | None = None,
    enlarge: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `run_network`, beginning with a flow.

    Args:
        start: flow on the network's coarse grid; None: no motion.

    Returns:
        The flow, and the last one on the coarse grid as the network gives it, on its device.
    """
    from .ops import resize_flow

    fitting = Fitting.of(network, tuple(first.shape[-2:]), enlarge)
    frames = (fitting.fit(frame.to(device)) for frame in (first, second))
    with computing(device, dtype):
        last = network.flows(*frames, initial_flow=start, last_only=True, **_updates(network, iterations))[-1]
        flow = last.flow if fitting.pads else resize_flow(last.flow, fitting.size)
        return fitting.restore(flow).cpu(), last.coarse


@dataclass(frozen=True)
class Fitting:
    """How a network sees frames of one size, by its official size rule, and how its flow comes back to that size.

    Sizes are (height, width) [px]: of the frames, as the network sees them enlarged, and of its grid.
    """

    size: tuple[int, int]
    seen: tuple[int, int]
    grid: tuple[int, int]
    pads: bool
    rounds_to_8_bits: bool

    @classmethod
    def of(cls, network, size: tuple[int, int], enlarge: float = 1.0) -> Fitting:
        seen = tuple(max(round(side * enlarge), 1) for side in size)
        grid = tuple(max(-(-side // network.size_multiple) * network.size_multiple, network.smallest_size) for side in seen)
        pads = getattr(network, "size_rule", "resize") == "pad"
        return cls(size, seen, grid, pads, getattr(network, "resized_to_8_bits", False))

    def fit(self, frame: torch.Tensor) -> torch.Tensor:
        """Frames `(B, 3, *size)` as the network takes them, `(B, 3, *grid)`."""
        import torch
        import torch.nn.functional as F

        from .ops import resize

        if self.pads:
            top, left = self._corner()
            bottom, right = self.grid[0] - self.seen[0] - top, self.grid[1] - self.seen[1] - left
            frame = F.pad(resize(frame, self.seen), (left, right, top, bottom), mode="replicate")
        elif self.grid != self.size:
            frame = resize(frame, self.grid)
            if self.rounds_to_8_bits:
                frame = (frame * 255).round() / 255
        return frame.contiguous(memory_format=torch.channels_last)

    def restore(self, flow: torch.Tensor) -> torch.Tensor:
        """Flow `(B, 2, *size)` float32 from the network's answer, which has that size already unless it pads."""
        from .ops import resize_flow

        if not self.pads:
            return flow.float()
        top, left = self._corner()
        return resize_flow(flow[..., top : top + self.seen[0], left : left + self.seen[1]], self.size)

    def _corner(self) -> tuple[int, int]:
        """Where the frame begins on the padded grid."""
        return (self.grid[0] - self.seen[0]) // 2, (self.grid[1] - self.seen[1]) // 2


@contextmanager
def computing(device: torch.device | str, dtype: str):
    """Context in which networks run: no gradients, convolutions in `dtype`."""
    import torch

    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    with torch.inference_mode(), torch.autocast(torch.device(device).type, half) if half else nullcontext():
        yield


def _updates(network, iterations: int | None) -> dict[str, int]:
    """The option that sets a network's number of updates; none where it is not set."""
    if iterations is None:
        return {}
    if not hasattr(network, "iterations"):
        raise InputError(f"{type(network).__name__} does not iterate; leave the number of iterations out.")
    return {"iterations": iterations}


@lru_cache(maxsize=4)
def _network(name: str, weights: str | None, device: str, stamp: int | None):
    import torch

    from .weights import load

    return load(name, weights=weights).to(device, memory_format=torch.channels_last)


def with_octaves(network, octaves: int | None):
    """A network, or one that shares its weights and has another number of octaves.

    Raises:
        InputError: for a network that has no octaves, or a number that makes no sense.
    """
    from .networks.liteflownet import LiteFlowNet

    if octaves is None:
        return network
    if not isinstance(network, LiteFlowNet):
        raise InputError(f"octaves are for networks of the LiteFlowNet family; {type(network).__name__} has none.")
    return network if octaves == network.config.octaves else _changed(network, octaves)


@lru_cache(maxsize=4)  # engines know a network by its object
def _changed(network, octaves: int):
    from .networks.liteflownet import with_options

    other = copy(network)
    other.config = with_options(network.config, {"octaves": octaves})
    return other


def device_named(device: str | None) -> torch.device:
    """The device of a name; without one the first GPU, or else the CPU.

    Raises:
        InputError: for a device that is not there.
    """
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
