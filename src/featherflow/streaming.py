"""Flow along a clip: frames in, flows out, one after the other, in the memory of two frames.

The LiteFlowNet family looks at each frame alone before it compares two (NetC). Along a clip that work is done once for each
frame, not once for each pair it belongs to, and once for both directions. Networks that update a flow can start each pair from
the flow of the pair before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import InputError
from .estimation import (
    Fitting,
    computing,
    device_named,
    dtype_for,
    largest_whole,
    method_for,
    network_for,
    run_network_from,
    starts_from_flow,
    still_where_equal,
    usual_enlargement,
    with_reach,
)
from .frames import as_batch

if TYPE_CHECKING:
    import torch


def stream(
    frames: Iterable,
    model=None,
    weights: str | os.PathLike | None = None,
    *,
    backward: bool = False,
    device: str | None = None,
    dtype: str = "auto",
    iterations: int | None = None,
    refine: int = 0,
    enlarge: float | None = None,
    engine: str = "auto",
    tile: str | tuple[int, int] | None = "auto",
    octaves: int | None = None,
    warm_start: bool = False,
) -> Iterator:
    """Flow from each frame to the next, as frames come in.

        for flow in featherflow.stream(frames): ...

    The flows equal those of `estimate` on each two neighbours to 1e-4 px, unless `warm_start` is asked for. With weights of the
    LiteFlowNet family, each frame's features are computed once for each colour mean: the weights that come with featherflow have
    one mean for both frames of a pair, the official ones have two (then there is something to reuse with `backward` only). Pair
    by pair go other models, frames that are estimated in tiles, and engines other than PyTorch.

    Args:
        frames: single frames of one size, one at a time, as `estimate` takes them. Nothing is read ahead.
        backward: both directions, (frame to next, next to frame).
        model, weights, device, dtype, iterations, refine, enlarge, engine, tile, octaves: as `estimate`.
        warm_start: start each pair but the first from the flow of the pair before, carried along itself. For networks that update a
            flow (RAFT, FlowFormer, RAFT-Stereo), run by PyTorch and on whole frames ("auto" makes no tiles then). Each direction
            starts from its own flow. After a cut the start is a wrong one.

    Yields:
        One flow less than there are frames: `(H, W, 2)` float32 NumPy [px], or `(2, H, W)` tensors on the CPU where the frames
        are tensors; with `backward`, a pair of these.

    Raises:
        InputError: at once for settings that cannot be used, later for the frame that cannot be used; others as `estimate`.
    """
    if isinstance(frames, str | os.PathLike):
        raise InputError(f"stream takes frames one by one, for instance a list of image files; got the single path '{frames}'.")
    between = _between(model, weights, device, dtype, iterations, refine, enlarge, engine, tile, octaves, warm_start)
    return _flows(frames, between, backward)


@dataclass
class _Frame:
    """A frame `(1, 3, H, W)`, its number in the clip, and what a network made of it: pyramids by the slot (0 or 1) of a pair."""

    number: int
    batch: torch.Tensor
    pyramids: dict = field(default_factory=dict)


def _flows(frames: Iterable, between: Callable[[_Frame, _Frame], torch.Tensor], backward: bool) -> Iterator:
    import torch

    previous = None
    for index, frame in enumerate(frames):
        current = _Frame(index, as_batch(frame, f"frame {index}"))
        if current.batch.shape[0] != 1:
            raise InputError(f"stream takes single frames, but frame {index} is a batch of {current.batch.shape[0]}.")
        if previous is not None:
            if current.batch.shape != previous.batch.shape:
                is_now, was = (f"{x.batch.shape[-1]}x{x.batch.shape[-2]}" for x in (current, previous))
                raise InputError(f"The frames must have one size, but frame {index} is {is_now} and the one before {was}.")
            pairs = [(previous, current), (current, previous)] if backward else [(previous, current)]
            flows = [still_where_equal(between(a, b), a.batch, b.batch)[0] for a, b in pairs]
            if not isinstance(frame, torch.Tensor):
                flows = [flow.movedim(0, -1).contiguous().numpy() for flow in flows]
            yield tuple(flows) if backward else flows[0]
        previous = current


def _between(
    model, weights, device, dtype, iterations, refine, enlarge, engine, tile, octaves, warm_start
) -> Callable[[_Frame, _Frame], torch.Tensor]:
    """A function of two frames giving their flow `(1, 2, H, W)`, reusing what it knows of a frame where the model allows it."""
    from . import classical, engines, tiling
    from .networks.liteflownet import LiteFlowNet

    # This refuses unusable settings.
    pairwise = method_for(model, weights, device, dtype, iterations, refine, enlarge, engine, tile, octaves)
    where = device_named(device)
    network = None
    if not (isinstance(model, str) and model in classical.METHODS):
        network = network_for(model, weights, where, octaves)
    if warm_start:
        return _warm(network, model, where, dtype, iterations, refine, enlarge, engine, tile)
    if not isinstance(network, LiteFlowNet) or iterations is not None:
        return lambda first, second: pairwise(first.batch, second.batch)

    dtype = dtype_for(network, where, dtype)

    def between(first: _Frame, second: _Frame) -> torch.Tensor:
        size = tuple(first.batch.shape[-2:])
        factor = enlarge or usual_enlargement(network, size)
        seen = with_reach(network, octaves, size, factor)
        work = engines.Work(seen, tuple(first.batch.shape), where, dtype, None, factor)
        part = tiling.tile_for(tile, size, largest_whole(network, engine, dtype))
        if part is not None or engines.choose(engine, work) != "torch":
            return pairwise(first.batch, second.batch)
        fitting = Fitting.of(seen, size, factor)
        with computing(where, dtype):
            pyramids = (_pyramid(seen, first, 0, fitting, where), _pyramid(seen, second, 1, fitting, where))
            flow = fitting.restore(seen.decode(*pyramids, size=size)).cpu()
        return classical.refine(first.batch, second.batch, flow, refine, where) if refine else flow

    return between


def _pyramid(network, frame: _Frame, slot: int, fitting: Fitting, device: torch.device):
    means = (network.mean1, network.mean2)
    slot = 0 if means[0].equal(means[1]) else slot
    if slot not in frame.pyramids:
        frame.pyramids[slot] = network.encode(fitting.fit(frame.batch.to(device)), means[slot])
    return frame.pyramids[slot]


def _warm(network, model, device, dtype, iterations, refine, enlarge, engine, tile) -> Callable[[_Frame, _Frame], torch.Tensor]:
    """As `_between`, where each flow starts from the one before in its direction.

    A flow back in time is, turned round, the motion that goes on from its frame, which is how it is carried to the next one.
    """
    from . import classical
    from .ops import push_forward

    if network is None or not starts_from_flow(network):
        name = f"'{model}'" if isinstance(model, str) else type(network).__name__
        raise InputError(f"warm_start is for networks that update a flow (raft, flowformer, ...); {name} does not.")
    if engine not in ("auto", "torch"):
        raise InputError(f"warm_start needs the engine torch; {engine} cannot start from a flow.")
    if tile not in ("auto", None):
        raise InputError("warm_start needs whole frames; leave the tile out.")
    dtype = dtype_for(network, device, dtype)
    starts: dict[int, torch.Tensor] = {}  # by direction: 1, or -1 for back in time

    def between(first: _Frame, second: _Frame) -> torch.Tensor:
        direction = second.number - first.number
        factor = enlarge or usual_enlargement(network, tuple(first.batch.shape[-2:]))
        flow, coarse = run_network_from(
            network, first.batch, second.batch, starts.get(direction), device, dtype, iterations, factor
        )
        starts[direction] = direction * push_forward(direction * coarse)
        return classical.refine(first.batch, second.batch, flow, refine, device) if refine else flow

    return between
