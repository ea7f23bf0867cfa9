"""Small motions made large: what moves against a still reference moves several times as far."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch

from ..classical.pyramid import median_filter
from ..errors import InputError
from ..estimation import estimate
from ..frames import as_batch
from ..video import VideoJobResult, ahead, open_clip, video_job
from .alignment import align
from .interpolation import as_picture
from .warping import fill_holes, splat, warp_backward

LARGEST_FACTOR = 100.0
_ENOUGH = 0.25  # of a pixel's worth; where less arrives, there is a hole
_CRACKS = 5  # px


def magnify(frame, reference, flow: np.ndarray, factor: float) -> np.ndarray:
    """A frame whose motion against a reference is `factor` times as large.

    Args:
        frame, reference: frames as `featherflow.estimate` takes them.
        flow: from the frame to the reference, `(H, W, 2)` [px].
        factor: 1 leaves the frame as it is, 0 shows it without its motion.

    Returns:
        `(H, W, 3)` uint8 RGB: each pixel is carried along (1 - factor) times its flow; what moves farther covers what does not.

    Raises:
        InputError: for frames, a flow or a factor that cannot be used.
    """
    if not 0 <= factor <= LARGEST_FACTOR:
        raise InputError(f"The factor lies from 0 to {LARGEST_FACTOR:g}, got {factor}.")
    image, still = as_batch(frame, "frame"), as_batch(reference, "reference")
    field = torch.from_numpy(np.ascontiguousarray(flow, np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        field = align(image, still, field, torch.ones_like(field[:, :1]))
        carried = (1 - factor) * field
        arrived, share = splat(carried, carried, importance=carried.norm(dim=1, keepdim=True))
        # What is stretched leaves cracks through which the background shows; a median closes them.
        back = median_filter(fill_holes(arrived, (share / _ENOUGH).clamp_max(1)), _CRACKS)
        return as_picture(warp_backward(image, -back, "bicubic")[0].clamp(0, 1))


def magnify_video(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    factor: float = 5.0,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    codec: str | None = None,
    sound: bool = True,
    model: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    **settings: object,
) -> VideoJobResult:
    """A clip in which everything that has moved since its first frame has moved `factor` times as far. Meant for a still camera.

    Args:
        factor: as `magnify`.
        others: as `featherflow.video.flow_video`.
    """
    if not 0 <= factor <= LARGEST_FACTOR:
        raise InputError(f"The factor lies from 0 to {LARGEST_FACTOR:g}, got {factor}.")
    clip = open_clip(source, start=start, end=end, fps=fps)

    def items():
        reference = None
        for picture in ahead(clip):
            if reference is None:
                reference = picture.image
                yield picture.time, picture.image, None
            else:
                yield picture.time, picture.image, estimate(picture.image, reference, model=model, **settings)

    first = {}

    def larger(image: np.ndarray, flow: np.ndarray | None) -> np.ndarray:
        if flow is None:
            first["frame"] = image
            return image
        return magnify(image, first["frame"], flow, factor)

    return video_job(clip, items(), larger, output, model=model, codec=codec, sound=sound, total=clip.expected, progress=progress)
