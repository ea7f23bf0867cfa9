"""A network run by PyTorch's compiler, its whole forward one graph."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...networks import FlowNetwork
from .pytorch import InferenceSpec, computing, in_evaluation

#: Network to mode to its compiled call. The call is handed the network each time, so that nothing here keeps it alive.
_CALLS: WeakKeyDictionary[FlowNetwork, dict[str, Callable[..., Tensor]]] = WeakKeyDictionary()
#: Network to what it has been compiled for.
_PREPARED: WeakKeyDictionary[FlowNetwork, set[tuple[InferenceSpec, bool]]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def prepare(network: FlowNetwork, spec: InferenceSpec) -> None:
    """Compile a network for frames of a shape, once; that takes a minute."""
    made = spec, _graphed(spec.device)
    if made not in _PREPARED.setdefault(network, set()):
        run(network, spec, torch.zeros(spec.shape), torch.zeros(spec.shape))
        _PREPARED[network].add(made)


def run(network: FlowNetwork, spec: InferenceSpec, first: Tensor, second: Tensor) -> Tensor:
    """As `pytorch.run`. The first call for frames of a shape compiles, see `prepare`."""
    call, fitting = compiled(network, spec.device), spec.fitting
    network = in_evaluation(network)
    with computing(spec.device, spec.dtype):
        # Of one layout, whatever the frames come as: the compiler makes code for each.
        frames = [fitting.fit(frame.to(spec.device)).contiguous() for frame in (first, second)]
        flow = fitting.restore(call(network, *frames, **spec.keywords(network)))
        return flow.clone() if spec.device.type == "cuda" else flow  # a CUDA graph writes its next flow to the same place


def compiled(network: FlowNetwork, device: torch.device) -> Callable[..., Tensor]:
    """A function of the network and what its forward takes, made once for each network.

    On a GPU it runs as a CUDA graph. Other threads than the main one do without, because a CUDA graph cannot be run by two at once.
    """
    mode = "reduce-overhead" if _graphed(device) else "default"
    with _LOCK:
        calls = _CALLS.setdefault(network, {})
        if mode not in calls:
            # The compiler keeps what it made by code object, and only so much for each: every network has one of its own.
            own = FunctionType(_call.__code__.replace(co_name=f"call_{id(calls):x}"), globals())
            calls[mode] = torch.compile(own, dynamic=False, fullgraph=True, mode=mode)
        return calls[mode]


def _graphed(device: torch.device) -> bool:
    return device.type == "cuda" and threading.current_thread() is threading.main_thread()


def _call(network, first, second, **options):
    return network(first, second, **options)
