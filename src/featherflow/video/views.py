"""What a video of flow shows."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..flow import draw_arrows, draw_confidence, flow_to_rgb
from ..flow import overlay as tint
from ..pixels import GREY


def colour(frame: np.ndarray, flow: np.ndarray, scale: float) -> np.ndarray:
    """The flow in the Middlebury colours."""
    return flow_to_rgb(flow, scale)


def arrows(frame: np.ndarray, flow: np.ndarray, scale: float) -> np.ndarray:
    """Arrows over the frame; one of a flow as long as the scale reaches to the next arrow's tail."""
    step = max(10, round(max(frame.shape[:2]) / 28))
    return draw_arrows(frame, flow, step, magnify=step / scale)


def side_by_side(frame: np.ndarray, flow: np.ndarray, scale: float) -> np.ndarray:
    """The frame, and right of it the flow in colour."""
    return np.concatenate((frame, flow_to_rgb(flow, scale)), axis=1)


def overlay(frame: np.ndarray, flow: np.ndarray, scale: float) -> np.ndarray:
    """The frame in grey, tinted by its motion where something moves."""
    return tint((frame @ np.array(GREY, np.float32)).round().astype(np.uint8), flow, scale)


FLOW_VIEWS = {"colour": colour, "arrows": arrows, "side-by-side": side_by_side, "overlay": overlay}
CONFIDENCE = "confidence"
VIEWS = (*FLOW_VIEWS, CONFIDENCE)


def draw(view: str, frame: np.ndarray, flow: np.ndarray, scale: float, confidence: np.ndarray | None = None) -> np.ndarray:
    """One picture of a view.

    Args:
        view: a name of `VIEWS`; frame: `(H, W, 3)` uint8 RGB; flow: `(H, W, 2)` [px], NaN where it is not to be shown.
        scale: flow length in full colour [px]; confidence: `(H, W)` in [0, 1], for the view of that name.

    Returns:
        `(H, W, 3)` uint8 RGB, twice as wide for side-by-side.

    Raises:
        InputError: for another view.
    """
    check_view(view)
    if view == CONFIDENCE:
        assert confidence is not None  # whoever asks for it has it
        return draw_confidence(frame, confidence)
    return FLOW_VIEWS[view](frame, flow, scale)


def check_view(view: str) -> None:
    if view not in VIEWS:
        raise InputError(f"The view must be one of {', '.join(VIEWS)}, got '{view}'.")
