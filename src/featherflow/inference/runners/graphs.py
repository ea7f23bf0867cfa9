"""A network as one closed graph: frames in, flow out, nothing left to choose."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...networks import PLAIN, FlowNetwork, RunOptions
from ..fitting import Fitting
from .pytorch import apart


class ExportWrapper(nn.Module):
    """A network with its size rule around it, for frames of one size; or without, for frames of many.

    Args:
        size: (height, width) of the frames [px].
        options: how the network is run, where not as it does by itself.
        enlarge: factor by which the network sees the frames enlarged.
        bytes_in: take frames `(B, H, W, 3)` uint8 RGB and give flow `(B, H, W, 2)`, as files and cameras have them; otherwise
            frames are `(B, 3, H, W)` float32 in [0, 1] and flow is `(B, 2, H, W)`. Both ways flow is float32 [px].
        free: take frames of any size that the network takes, as they are; `size` is that of the examples.
    """

    def __init__(
        self,
        network: FlowNetwork,
        size: tuple[int, int],
        options: RunOptions = PLAIN,
        enlarge: float = 1.0,
        bytes_in: bool = False,
        free: bool = False,
    ):
        super().__init__()
        self.network = apart(network)  # tracing puts other tensors in place of the parameters for a while
        self.fitting = Fitting.of(network.traits, size, enlarge)
        self.options: dict[str, Any] = options.keywords(network)
        if not self.fitting.pads and not free:
            self.options["size"] = self.fitting.size
        self.bytes_in = bytes_in
        self.free = free
        self.eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if self.free:
            return self.network(first, second, **self.options)
        if self.bytes_in:
            first, second = (frame.permute(0, 3, 1, 2).float() / 255 for frame in (first, second))
        flow = self.network(self.fitting.fit(first), self.fitting.fit(second), **self.options)
        flow = self.fitting.restore(flow)
        return flow.permute(0, 2, 3, 1) if self.bytes_in else flow

    def example(self, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Frames that the module takes: a smooth random texture, and itself moved by (3, 2) px."""
        height, width = self.fitting.size
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(batch, 3, height // 6 + 4, width // 6 + 4, generator=generator, dtype=torch.float32)
        texture = nn.functional.interpolate(noise, (height + 2, width + 3), mode="bicubic", align_corners=False).clamp(0, 1)
        return self.as_taken(texture[..., 2:, 3:]), self.as_taken(texture[..., :height, :width])

    def as_taken(self, frame: Tensor) -> Tensor:
        """Frames `(B, 3, H, W)` float32 in [0, 1] in the form that the module takes."""
        if self.bytes_in:
            frame = (frame * 255).round().byte().permute(0, 2, 3, 1)
        return frame.contiguous()


def exported_program(module: nn.Module, frames: tuple[Tensor, ...], dynamic_shapes=None):
    """`module` captured as a graph by `torch.export`.

    Raises:
        ValueError: for a graph that holds for some of the sizes only that were to be free. And whatever the exporter stumbles over.
    """
    from torch._dynamo.exc import UserError  # seconds to import

    with torch.no_grad(), quiet():
        try:
            program = torch.export.export(module, frames, dynamic_shapes=dynamic_shapes, strict=False)
        except UserError:
            if dynamic_shapes is None:
                raise
            raise ValueError(_NOT_FREE) from None  # "constraints violated", and how to debug the exporter
    if dynamic_shapes is not None:
        _check_free(program, dynamic_shapes)
    return program


_NOT_FREE = "its graph depends on the size of the frames"


def _check_free(program, dynamic_shapes) -> None:
    """The exporter narrows ranges without a word where the graph depends on the size."""
    found = [(limits.lower, limits.upper) for symbol, limits in program.range_constraints.items() if symbol.is_Symbol]
    asked = [(dim.root.min, dim.root.max) for dim in dynamic_shapes[0].values()]  # of all frames
    if any(found.count(limits) < asked.count(limits) for limits in asked):
        raise ValueError(_NOT_FREE)


def deepest(error: BaseException) -> str:
    """First line of the error that an exporter's long report began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


_TALKATIVE = (
    "torch.onnx",
    "torch.onnx._internal.exporter._registration",
    "onnxscript",
    "openvino.frontend.pytorch.fx_decoder",
    "nncf",
)


def _is_not_of_exporters(record) -> bool:
    return record.module != "fx_decoder"  # of OpenVINO, which writes to the root


@contextmanager
def quiet():
    """Without the exporters' remarks, which are for those who write exporters, and with the caller's logging as it was."""
    import logging

    root, handler = logging.getLogger(), logging.NullHandler()
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    root.addFilter(_is_not_of_exporters)
    root.addHandler(handler)  # one who writes to a root without any would get a handler made that stays
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_is_not_of_exporters)
        root.removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
