"""Flow along a clip: frames in, flows out, one after the other, in the memory of two frames.

The LiteFlowNet family looks at each frame alone before it compares two (NetC). Along a clip that work is done once for each
frame, not once for each pair it belongs to, and once for both directions (`frame.Frame`). Networks that update a flow can start
each pair from the flow of the pair before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..frames import RunningRange
from ..networks import FlowNetwork
from ..ops import push_forward
from .frame import Frame
from .runners import pytorch
from .settings import EstimationSettings

Between = Callable[[Frame, Frame], Tensor]


def check_frames(frames: Iterable[Any]) -> None:
    """Refuse a path in place of frames."""
    if isinstance(frames, str | os.PathLike):
        raise InputError(f"stream takes frames one by one, for instance a list of image files; got the single path '{frames}'.")


def flows(frames: Iterable[Any], between: Between, backward: bool) -> Iterator[Any]:
    """The flow between each two neighbours, in the form of the frames; with `backward`, that pair of flows.

    Raises:
        InputError: for a frame that cannot be used; FileError: for one that cannot be read.
    """
    scale = RunningRange()
    previous: Frame | None = None
    before: Any = None
    for index, frame in enumerate(frames):
        current = Frame(scale.batch(frame, f"frame {index}"), index)
        if scale.grew:
            previous = Frame(scale.batch(before, f"frame {index - 1}"), index - 1)
        if current.batch.shape[0] != 1:
            raise InputError(f"stream takes single frames, but frame {index} is a batch of {current.batch.shape[0]}.")
        if previous is not None:
            if current.size != previous.size:
                is_now, was = (f"{x.size[1]}x{x.size[0]}" for x in (current, previous))
                raise InputError(f"The frames must have one size, but frame {index} is {is_now} and the one before {was}.")
            pairs = [(previous, current), (current, previous)] if backward else [(previous, current)]
            found = [between(first, second)[0] for first, second in pairs]
            if not isinstance(frame, Tensor):
                found = [flow.movedim(0, -1).contiguous().numpy() for flow in found]
            yield tuple(found) if backward else found[0]
        previous, before = current, frame


def check_warm_start(name: str, network: FlowNetwork | None, settings: EstimationSettings) -> FlowNetwork:
    """The network, if its flows can start from others.

    Raises:
        InputError: for a model, engine or tiles that cannot start from a flow.
    """
    if network is None or not network.traits.accepts_initial_flow:
        raise InputError(f"warm_start is for networks that update a flow (raft, flowformer, ...); {name} does not.")
    if settings.engine not in ("auto", "torch"):
        raise InputError(f"warm_start needs the engine torch; {settings.engine} cannot start from a flow.")
    if settings.tile not in ("auto", None):
        raise InputError("warm_start needs whole frames; leave the tile out.")
    return network


class Warm:
    """Flow between two frames of a clip that starts from the one before in its direction.

    A flow back in time is, turned round, the motion that goes on from its frame, which is how it is carried to the next one.
    """

    def __init__(self, network: FlowNetwork):
        self.network = network
        self.starts: dict[int, Tensor] = {}  # by direction: 1, or -1 for back in time

    def __call__(self, spec: pytorch.InferenceSpec, first: Frame, second: Frame) -> Tensor:
        direction = second.number - first.number
        flow, coarse = pytorch.run_from(self.network, spec, first.batch, second.batch, self.starts.get(direction))
        self.starts[direction] = direction * push_forward(direction * coarse)
        return flow
