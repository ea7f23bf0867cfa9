"""Small motions made large: what moves against a still reference moves several times as far."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ..classical.median import median_filter
from ..errors import InputError
from ..frames import as_batch
from ..inference import Estimator
from ..pixels import Range
from ..video import (
    THRESHOLD,
    Picture,
    VideoJobResult,
    ahead,
    change,
    check_clip_outputs,
    check_format,
    check_threshold,
    open_clip,
    video_job,
)
from .alignment import align
from .interpolation import as_picture, depth_of
from .warping import fill_holes, splat, warp_backward

LARGEST_FACTOR = 100.0
#: How far a pixel is carried at most [px]; farther, pictures tear.
LIMIT = 40.0
_ENOUGH = 0.25  # of a pixel's worth; where less arrives, there is a hole
_CRACKS = 5  # px
_HIGHEST = 0.49  # of the frames a second: at half of them a motion cannot be told from its mirror image


@dataclass(frozen=True)
class MagnificationResult(VideoJobResult):
    """What was done to magnify motions."""

    #: Frames in which something would have been carried farther than the limit, and was not.
    limited_frames: int = 0
    #: Frames of the same scene in which too little is where it was; motion is counted from them anew.
    new_references: int = 0

    def sentence(self) -> str:
        said = super().sentence()
        if self.limited_frames:
            said += f"; in {self.limited_frames} of them something moves too far and less is made of it"
        if self.new_references:
            times = "once" if self.new_references == 1 else f"{self.new_references} times"
            said += f"; the scene moves on from its first frame, and {times} motion is counted anew; is the camera still?"
        return said


def magnify(frame, reference, flow: np.ndarray, factor: float, limit: float | None = None) -> np.ndarray:
    """A frame whose motion against a reference is `factor` times as large.

    Args:
        frame, reference: frames as `featherflow.estimate` takes them.
        flow: from the frame to the reference, `(H, W, 2)` [px].
        factor: 1 leaves the frame as it is, 0 shows it without its motion.
        limit: how far a pixel is carried at most [px]; None: as far as the factor says.

    Returns:
        `(H, W, 3)` RGB, uint8, or uint16 where the frame is an array of uint16: each pixel is carried along (1 - factor) times its
        flow; what moves farther covers what does not.

    Raises:
        InputError: for frames, a flow or a factor that cannot be used.
    """
    _check_factor(factor)
    image = as_batch(frame, "frame")
    with torch.inference_mode():
        field = _aligned(image, as_batch(reference, "reference"), flow)
        return as_picture(_carry(image, (1 - factor) * field, limit)[0], depth_of(frame))


def _aligned(image: Tensor, still: Tensor, flow: np.ndarray) -> Tensor:
    """A flow `(H, W, 2)` as `(1, 2, H, W)`, after the last fraction of a pixel."""
    field = torch.from_numpy(np.ascontiguousarray(flow, np.float32)).permute(2, 0, 1)[None]
    return align(image, still, field, torch.ones_like(field[:, :1]))


def _carry(image: Tensor, carried: Tensor, limit: float | None) -> tuple[Tensor, bool]:
    """An image with each pixel carried so far [px], and whether the limit held anything back."""
    length = carried.norm(dim=1, keepdim=True)
    held_back = limit is not None and bool((length > limit).any())
    if limit is not None and held_back:
        carried = carried * (limit / length.clamp_min(1e-6)).clamp_max(1)
    arrived, share = splat(carried, carried, importance=carried.norm(dim=1, keepdim=True))
    # What is stretched leaves cracks through which the background shows; a median closes them.
    back = median_filter(fill_holes(arrived, (share / _ENOUGH).clamp_max(1)), _CRACKS)
    return warp_backward(image, -back, "bicubic")[0].clamp(0, 1), held_back


def _check_factor(factor: float) -> None:
    if not 0 <= factor <= LARGEST_FACTOR:
        raise InputError(f"The factor lies from 0 to {LARGEST_FACTOR:g}, got {factor}.")


class _Band:
    """Motion that goes to and fro between two frequencies [Hz]: a Butterworth band-pass filter of the first order.

    A resonator, p' = w q and q' = -w p - b (q - u), is stepped by the trapezoidal rule; its velocity q is what passes. Half-way
    between the two frequencies u passes whole and in time, at each of them 0.71 of it. The rule bends frequencies,
    w -> tan(w step / 2), so both are bent beforehand, anew for each step, since frames may come at any time.
    """

    def __init__(self, low: float, high: float, time: Fraction):
        self.frequencies, self.time = (low, high), time
        self.before: Tensor | float = 0.0  # the reference has not moved
        self.states: tuple[Tensor | float, Tensor | float] = (0.0, 0.0)

    def filtered(self, field: Tensor, time: Fraction) -> Tensor:
        """The part of a field at a time [s], later than the one before."""
        step, self.time = float(time - self.time), time
        low, high = (math.tan(math.pi * min(frequency * step, _HIGHEST)) for frequency in self.frequencies)
        turn, width = math.sqrt(low * high), high - low
        p, q = self.states
        passed = (q * (1 - width - turn**2) - 2 * turn * p + width * (self.before + field)) / (1 + width + turn**2)
        self.states, self.before = (p + turn * (q + passed), passed), field
        return passed


def magnify_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    factor: float = 5.0,
    limit: float = LIMIT,
    band: tuple[float, float] | None = None,
    cuts: float = THRESHOLD,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    codec: str | None = None,
    crf: int | None = None,
    sound: bool = True,
    overwrite: bool = False,
    value_range: Range | None = None,
    estimator: Estimator | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> MagnificationResult:
    """A clip in which everything that has moved since its first frame has moved `factor` times as far. Meant for a still camera.

    Args:
        factor, limit: as `magnify`.
        band: of frequencies [Hz], (lowest, highest): only what moves to and fro that often is made larger. Default: all motion.
        cuts: likeness below which a frame is of another scene than the first, see `featherflow.video.change`; motion counts from
            there on. 0: never.
        others: as `featherflow.video.flow_video`.

    Raises:
        InputError: for a factor, limit or band that cannot be; others as `featherflow.video.flow_video`.
    """
    _check_factor(factor)
    check_threshold(cuts)
    if not limit > 0:
        raise InputError(f"The limit is a distance in pixels, more than 0, got {limit}.")
    if band is not None and not 0 < band[0] < band[1]:
        raise InputError(f"A band is two frequencies in Hz, the lower first, got {band[0]:g} to {band[1]:g}.")
    clip = open_clip(source, start=start, end=end, fps=fps, value_range=value_range)
    rate = float(min(clip.rate, clip.selection.fps or clip.rate))
    if band is not None and band[0] >= rate / 2:
        raise InputError(
            f"At {rate:g} frames a second nothing faster than {rate / 2:g} Hz can be seen, and the band begins at {band[0]:g} Hz."
        )
    check_clip_outputs(clip, [("the video", output)], overwrite)
    check_format(output, codec, crf, clip.colour)
    estimator = Estimator() if estimator is None else estimator
    found = lost = limited = 0
    held = None

    def items():
        nonlocal found, lost, held
        reference: np.ndarray | None = None
        before: np.ndarray | None = None
        for picture in ahead(clip):
            held = picture.duration
            flow = None
            if reference is not None:
                flow = estimator(picture.image, reference)
                if change(picture.image, reference, flow, cuts).breaks:
                    flow = None
                    if (
                        before is None
                        or before is reference
                        or change(before, picture.image, estimator(before, picture.image), cuts).breaks
                    ):
                        found += 1
                    else:  # the same scene, of which too little is left where it was
                        lost += 1
            if flow is None:
                reference = picture.image
            before = picture.image
            yield picture.time, picture, reference, flow

    kept: _Band | None = None

    def larger(picture: Picture, reference: np.ndarray, flow: np.ndarray | None) -> np.ndarray:
        nonlocal limited, kept
        if flow is None:
            kept = None if band is None else _Band(*band, picture.time)
            return picture.image
        image = as_batch(picture.image)
        with torch.inference_mode():
            field = _aligned(image, as_batch(reference), flow)
            field = field if kept is None else kept.filtered(field, picture.time)
            shown, held_back = _carry(image, (1 - factor) * field, limit)
        limited += held_back
        return as_picture(shown, depth_of(picture.image))

    result = video_job(
        clip,
        items(),
        larger,
        output,
        estimator,
        codec=codec,
        crf=crf,
        sound=sound,
        hold=lambda: held,
        fewest=2,
        total=clip.expected,
        progress=progress,
    )
    return MagnificationResult(
        **{field.name: getattr(result, field.name) for field in fields(result) if field.name != "cuts"},
        cuts=found,
        limited_frames=limited,
        new_references=lost,
    )
