"""OpenCV's dense flow methods, where the installed OpenCV has them (extra `opencv`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, MissingExtraError

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


def is_installed() -> bool:
    return importlib.util.find_spec("cv2") is not None


def _cv2() -> Any:  # OpenCV's types know neither None for a flow that is not there yet nor what the contributions add
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("This method needs OpenCV; install it with: pip install 'featherflow[opencv]'") from None
    return cv2


def _contrib(name: str):
    cv2 = _cv2()
    for place in (cv2, getattr(cv2, "optflow", None)):
        if place is not None and hasattr(place, name):
            return getattr(place, name)
    raise MissingExtraError(
        "The installed OpenCV lacks this method; install the one with contributions: "
        "pip install --force-reinstall opencv-contrib-python-headless"
    )


def _farneback(grey1: np.ndarray, grey2: np.ndarray) -> np.ndarray:
    return _cv2().calcOpticalFlowFarneback(grey1, grey2, None, 0.5, 5, 15, 3, 5, 1.2, 0)


def _dis(preset: str) -> Method:
    def method(grey1: np.ndarray, grey2: np.ndarray) -> np.ndarray:
        cv2 = _cv2()
        return cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset}")).calc(grey1, grey2, None)

    return method


def _made_by(factory: str) -> Method:
    return lambda grey1, grey2: _contrib(factory)().calc(grey1, grey2, None)


def _rlof(grey1: np.ndarray, grey2: np.ndarray) -> np.ndarray:
    cv2 = _cv2()
    if grey1.shape[0] > grey1.shape[1]:
        # OpenCV 5 loses the motion of upright frames, all of it in narrow ones; on their sides they are as good as others.
        on_side = _rlof(np.ascontiguousarray(grey1.T), np.ascontiguousarray(grey2.T))
        return np.ascontiguousarray(on_side.transpose(1, 0, 2)[..., ::-1])
    # It takes images of three channels only.
    images = [cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) for grey in (grey1, grey2)]
    return _contrib("calcOpticalFlowDenseRLOF")(*images, None)


def _sparse_to_dense(grey1: np.ndarray, grey2: np.ndarray) -> np.ndarray:
    return _contrib("calcOpticalFlowSparseToDense")(grey1, grey2, None)


#: Name to a function of two uint8 grey images `(H, W)` giving flow `(H, W, 2)` [px].
METHODS: dict[str, Method] = {
    "farneback": _farneback,
    "dis": _dis("MEDIUM"),
    "dis-fast": _dis("FAST"),
    "dis-ultrafast": _dis("ULTRAFAST"),
    "deepflow": _made_by("createOptFlow_DeepFlow"),
    "pcaflow": _made_by("createOptFlow_PCAFlow"),
    "tvl1": _made_by("DualTVL1OpticalFlow_create"),
    "rlof": _rlof,
    "sparse-to-dense": _sparse_to_dense,
}


@dataclass(frozen=True)
class _Least:
    """What a method needs to see: frames that are smaller are enlarged for it.

    Measured on a texture that moves by (2, -1) px in frames of 16x16 to 1000x17: below these sizes answers are wrong, not numbers,
    or end the process.
    """

    side: int = 1  # px
    pixels: int = 1
    #: Frames of fewer pixels are refused: enlarging does not help.
    refused: int = 0


_LEAST = {
    "dis-fast": _Least(64),
    "dis-ultrafast": _Least(64),
    "deepflow": _Least(96),
    "rlof": _Least(96),
    "sparse-to-dense": _Least(128),
    "pcaflow": _Least(64, 240 * 240, refused=48 * 40),
}


def _run(name: str, grey1: np.ndarray, grey2: np.ndarray) -> np.ndarray:
    """Flow `(H, W, 2)` of two grey images, seen as large as the method needs them."""
    cv2, least = _cv2(), _LEAST.get(name, _Least())
    height, width = grey1.shape
    if height * width < least.refused:
        raise InputError(
            f"{name} is made for whole scenes and finds no motion in frames of {width}x{height} px; take another method, e.g. dis."
        )
    enlarge = max(1.0, least.side / min(height, width), (least.pixels / (height * width)) ** 0.5)
    if enlarge > 1:
        size = (round(width * enlarge), round(height * enlarge))
        grey1, grey2 = (cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC) for grey in (grey1, grey2))
    try:
        flow = METHODS[name](grey1, grey2)
    except cv2.error as error:
        reason = (getattr(error, "err", None) or str(error)).strip().splitlines()[0]
        raise InputError(
            f"OpenCV's {name} finds no flow between these frames of {width}x{height} px; they may show too little ({reason})."
        ) from None
    if flow.shape != (*grey1.shape, 2) or not np.isfinite(flow).all():
        raise InputError(f"OpenCV's {name} finds no flow between these frames of {width}x{height} px; they show too little for it.")
    if enlarge > 1:
        back = np.array((width / size[0], height / size[1]), np.float32)
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * back
    return flow


def estimate(name: str, first, second):
    """Flow by one of `METHODS`.

    Args:
        first, second: tensors `(B, 3, H, W)` float32 RGB in [0, 1].

    Returns:
        `(B, 2, H, W)` float32 [px].

    Raises:
        InputError: for an unknown name, and frames that a method cannot take or finds nothing in. MissingExtraError: where OpenCV
        or the method is not installed.
    """
    import torch

    if name not in METHODS:
        raise InputError(f"There is no classical method named '{name}'; known are {', '.join(METHODS)}.")
    cv2 = _cv2()
    flows = []
    for pair in zip(first, second, strict=True):
        images = [np.ascontiguousarray((frame * 255).round().byte().permute(1, 2, 0).cpu().numpy()) for frame in pair]
        flow = _run(name, *(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images))
        flows.append(torch.from_numpy(np.ascontiguousarray(flow)).permute(2, 0, 1).float())
    return torch.stack(flows)
