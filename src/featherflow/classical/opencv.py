"""OpenCV's dense flow methods, where the installed OpenCV has them (extra `opencv`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InputError, MissingExtraError

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _cv2():
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


def estimate(name: str, first, second):
    """Flow by one of `METHODS`.

    Args:
        first, second: tensors `(B, 3, H, W)` float32 RGB in [0, 1].

    Returns:
        `(B, 2, H, W)` float32 [px].

    Raises:
        InputError: for an unknown name; MissingExtraError: where OpenCV or the method is not installed.
    """
    import torch

    if name not in METHODS:
        raise InputError(f"There is no classical method named '{name}'; known are {', '.join(METHODS)}.")
    cv2 = _cv2()
    flows = []
    for pair in zip(first, second, strict=True):
        images = [np.ascontiguousarray((frame * 255).round().byte().permute(1, 2, 0).cpu().numpy()) for frame in pair]
        flow = METHODS[name](*(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images))
        flows.append(torch.from_numpy(np.ascontiguousarray(flow)).permute(2, 0, 1).float())
    return torch.stack(flows)
