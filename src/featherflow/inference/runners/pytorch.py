"""A network run by PyTorch, as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...networks import PLAIN, FlowNetwork, RunOptions, Traits
from ...ops import ReadyConvolution, can_make_ready, resize_flow
from ..fitting import Fitting

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class InferenceSpec:
    """What is to be run, beside the network and the frames: everything that a graph made for it depends on."""

    #: Of a batch of frames, `(B, 3, H, W)`.
    shape: tuple[int, ...]
    traits: Traits
    device: torch.device
    #: Of the convolutions.
    dtype: str
    options: RunOptions = PLAIN
    #: Factor by which the network sees the frames enlarged.
    enlarge: float = 1.0

    @cached_property
    def fitting(self) -> Fitting:
        height, width = self.shape[-2:]
        return Fitting.of(self.traits, (height, width), self.enlarge)

    def keywords(self, network: FlowNetwork) -> dict[str, Any]:
        """Keywords of the network's `forward`. Raises as `RunOptions.keywords`."""
        return self.options.keywords(network) | ({} if self.fitting.pads else {"size": self.fitting.size})


def run(network: FlowNetwork, spec: InferenceSpec, first: Tensor, second: Tensor) -> Tensor:
    """Flow `(B, 2, H, W)` float32 [px] on the spec's device, of frames `(B, 3, H, W)` float32 RGB in [0, 1]."""
    net, fitting = in_evaluation(network), spec.fitting
    with computing(spec.device, spec.dtype):
        frames = [fitting.fit(frame.to(spec.device)) for frame in (first, second)]
        return fitting.restore(net(*frames, **spec.keywords(network)))


def run_from(
    network: FlowNetwork, spec: InferenceSpec, first: Tensor, second: Tensor, start: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `run`, beginning with a flow, for networks that accept one.

    Args:
        start: flow on the network's coarse grid; None: no motion.

    Returns:
        The flow, and the last one on the coarse grid as the network gives it.
    """
    net, fitting = in_evaluation(network), spec.fitting
    with computing(spec.device, spec.dtype):
        frames = [fitting.fit(frame.to(spec.device)) for frame in (first, second)]
        options: dict[str, Any] = spec.options.keywords(network)
        last = net.flows(*frames, initial_flow=start, last_only=True, **options)[-1]
        flow = last.flow if fitting.pads else resize_flow(last.flow, fitting.size)
        return fitting.restore(flow), last.coarse


def has_one_mean(network: Any) -> bool:
    """Whether a network that shares features looks at both frames of a pair in the same way."""
    return torch.equal(network.mean1, network.mean2)


def encode(network: FlowNetwork, spec: InferenceSpec, frame: Tensor, place: int) -> object:
    """What a network that shares features makes of one frame `(B, 3, H, W)` in a place (0 or 1) of a pair."""
    net = in_evaluation(network)
    with computing(spec.device, spec.dtype):
        mean = (net.mean1, net.mean2)[place]
        return net.encode(spec.fitting.fit(frame.to(spec.device)), mean, **spec.options.encoding(network))


def decode(network: FlowNetwork, spec: InferenceSpec, first: object, second: object) -> Tensor:
    """As `run`, of two frames that are encoded already."""
    net = in_evaluation(network)
    with computing(spec.device, spec.dtype):
        return spec.fitting.restore(net.decode(first, second, spec.fitting.size, **spec.options.decoding(network)))


@contextmanager
def computing(device: torch.device, dtype: str) -> Iterator[None]:
    """Context in which networks run: no gradients, convolutions in `dtype` whatever the caller's context says."""
    half = _HALF.get(dtype)
    with ExitStack() as contexts:
        contexts.enter_context(torch.inference_mode())
        if half is not None:
            contexts.enter_context(torch.autocast(device.type, half))
        elif torch.is_autocast_enabled(device.type):
            contexts.enter_context(torch.autocast(device.type, enabled=False))
        yield


def in_evaluation(network: FlowNetwork) -> Any:
    """The network in evaluation mode, without a change of it, which another thread would see: if it is in training, other modules
    around the same tensors."""
    return apart(network) if any(module.training for module in network.modules()) else network


def made_ready(network: FlowNetwork, dtype: str) -> FlowNetwork:
    """The network to run in `dtype` in place of one that does not change any more, with the same answers: in bfloat16 on a CPU
    its convolutions narrow their weights and lay them out once, not at each call. Else the network itself."""
    if dtype != "bfloat16" or not any(map(can_make_ready, network.modules())):
        return network
    ready = apart(network)
    for parent in ready.modules():
        for name, module in parent._modules.items():
            if module is not None and can_make_ready(module):
                parent._modules[name] = ReadyConvolution.of(module)
    return ready


def apart(module: Any) -> Any:
    """Other modules around the same tensors, in evaluation mode. What is done to them, as by tracing, does not show in `module`."""
    view = copy(module)
    view.training = False
    view._parameters, view._buffers = dict(module._parameters), dict(module._buffers)
    view._modules = {name: part if part is None else apart(part) for name, part in module._modules.items()}
    return view
