"""The flow field itself: files, colour, metrics and forward-backward consistency.

The lowest room: it knows NumPy and no network, and imports torch, Pillow and the file codecs only where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featherflow.flow.colour import (
    SMALLEST_MEASURED_SCALE,
    automatic_scale,
    colour_wheel_legend,
    encode_flow_picture,
    error_map,
    flow_to_rgb,
    measured_scale,
    save_flow_picture,
    with_legend,
)
from featherflow.flow.consistency import backward_warp, forward_backward_consistency, occlusion, warp_error
from featherflow.flow.files import SUFFIXES, decode_flow, encode_flow, read_flow, read_flow_with_valid, write_flow
from featherflow.flow.metrics import FlowErrors, FlowMetrics, FlowResult, ImageErrors, epe
from featherflow.flow.pictures import draw_arrows, draw_confidence, mark, overlay

if TYPE_CHECKING:
    from featherflow.flow.trust import confidence

__all__ = [
    "SMALLEST_MEASURED_SCALE",
    "SUFFIXES",
    "FlowErrors",
    "FlowMetrics",
    "FlowResult",
    "ImageErrors",
    "automatic_scale",
    "backward_warp",
    "colour_wheel_legend",
    "confidence",
    "decode_flow",
    "draw_arrows",
    "draw_confidence",
    "encode_flow",
    "encode_flow_picture",
    "epe",
    "error_map",
    "flow_to_rgb",
    "forward_backward_consistency",
    "mark",
    "measured_scale",
    "occlusion",
    "overlay",
    "read_flow",
    "read_flow_with_valid",
    "save_flow_picture",
    "warp_error",
    "with_legend",
    "write_flow",
]


def __getattr__(name: str) -> object:
    if name == "confidence":  # the one that needs torch, which takes a second to import
        from featherflow.flow.trust import confidence

        globals()[name] = confidence
        return confidence
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
