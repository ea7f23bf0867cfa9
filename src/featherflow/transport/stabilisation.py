"""Steady clips: the camera's motion found in the flow, smoothed, and the difference taken out of each frame.

Points of a frame are complex numbers z = x + iy [px] from its centre; a similarity takes z to `turn * z + shift`, where `turn`
holds rotation and zoom.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from ..errors import FileError, InputError
from ..frames import as_batch
from ..inference import Estimator
from ..inference.timing import Stopwatch
from ..pixels import Range
from ..video import (
    THRESHOLD,
    Step,
    VideoJobResult,
    change,
    check_clip_outputs,
    check_format,
    check_threshold,
    open_clip,
    shows_motion,
    steps,
    video_job,
)
from .interpolation import as_picture, depth_of
from .warping import warp_backward

_SAMPLES = 2000
_TRIALS = 200
_INLIER = 1.5  # px
_FEWEST_INLIERS = 0.2  # of the samples; with fewer there is no common motion to be found, as across a cut


@dataclass(frozen=True)
class Similarity:
    """Rotation, zoom and shift of the plane."""

    turn: complex = 1.0
    shift: complex = 0.0

    def __call__(self, z):
        return self.turn * z + self.shift

    def __matmul__(self, other: Similarity) -> Similarity:
        """First `other`, then this one."""
        return Similarity(self.turn * other.turn, self.turn * other.shift + self.shift)

    def inverse(self) -> Similarity:
        return Similarity(1 / self.turn, -self.shift / self.turn)


@dataclass(frozen=True)
class StabilisationResult(VideoJobResult):
    """What was done to steady a clip.

    Jitter: root mean square change of motion from frame to frame at the corners [px], by the flow that the clip was steadied with;
    what it has left over, another method may see.
    """

    zoom: float = 1.0
    jitter_before_px: float = 0.0
    jitter_after_px: float = 0.0

    def sentence(self) -> str:
        return (
            f"{super().sentence()}; jitter {self.jitter_before_px:.2f} -> {self.jitter_after_px:.2f} px "
            f"by its own measure, "
            f"enlarged by {100 * (self.zoom - 1):.0f} % to hide the borders"
        )


def global_motion(flow: np.ndarray, seed: int = 0) -> Similarity:
    """The similarity that most of a flow agrees with: RANSAC on pairs of pixels, then least squares with Tukey's weights.

    Args:
        flow: `(H, W, 2)` [px]; pixels that hold NaN do not count.
        seed: of the random choice of pixels.

    Returns:
        The motion; none where fewer than a fifth of the pixels agree on any.
    """
    height, width = flow.shape[:2]
    random = np.random.default_rng(seed)
    stride = max(int((height * width / _SAMPLES) ** 0.5), 1)
    y, x = np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride]
    vectors = flow[y, x].astype(np.float64)
    known = np.isfinite(vectors).all(axis=-1)
    start = (x - (width - 1) / 2 + 1j * (y - (height - 1) / 2))[known]
    end = start + (vectors[..., 0] + 1j * vectors[..., 1])[known]
    if len(start) < 2:
        return Similarity()
    a, b = random.integers(0, len(start), (2, _TRIALS, 1))
    apart = np.where(start[a] == start[b], 1, start[a] - start[b])
    turns = np.where(start[a] == start[b], 1, (end[a] - end[b]) / apart)
    agreeing = (np.abs(end - turns * (start - start[a]) - end[a]) < _INLIER).sum(axis=1)
    best = agreeing.argmax()
    if agreeing[best] < _FEWEST_INLIERS * len(start):
        return Similarity()
    motion = Similarity(turns[best, 0], end[a[best, 0]] - turns[best, 0] * start[a[best, 0]])
    for reach in (2 * _INLIER, _INLIER, _INLIER, _INLIER):
        weight = np.clip(1 - (np.abs(end - motion(start)) / reach) ** 2, 0, None) ** 2
        motion = _least_squares(start, end, weight)
    return motion


def _least_squares(start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> Similarity:
    total = weight.sum() + 1e-12
    centre1, centre2 = (weight * start).sum() / total, (weight * end).sum() / total
    away = start - centre1
    turn = (weight * away.conj() * (end - centre2)).sum() / ((weight * np.abs(away) ** 2).sum() + 1e-12)
    return Similarity(turn, centre2 - turn * centre1)


def smooth_path(motions: list[Similarity | None], times: np.ndarray, seconds: float) -> list[Similarity]:
    """What to do to each frame so that the camera moves smoothly.

    The path (logarithm of turn, and shift) is smoothed by local straight lines with Gaussian weights, which leave a steady pan as
    it is, at the ends too.

    Args:
        motions: from each frame to the next, one less than there are frames; None where a new path begins, as after a cut.
        times: of the frames [s].
        seconds: standard deviation of the weights.

    Returns:
        One correction for each frame.
    """
    breaks = [index + 1 for index, motion in enumerate(motions) if motion is None]
    if breaks:
        edges = [0, *breaks, len(motions) + 1]
        parts = [smooth_path(motions[a : b - 1], times[a:b], seconds) for a, b in itertools.pairwise(edges)]
        return [correction for part in parts for correction in part]
    whole = [motion for motion in motions if motion is not None]  # all of them
    path = list(itertools.accumulate(whole, lambda so_far, motion: motion @ so_far, initial=Similarity()))
    turns = np.array([p.turn for p in path])
    values = np.stack((np.log(np.abs(turns)) + 1j * np.unwrap(np.angle(turns)), [p.shift for p in path]), axis=1)
    corrections = []
    for index, now in enumerate(times):
        weight = np.exp(-0.5 * ((times - now) / max(seconds, 1e-9)) ** 2)
        near = weight > 1e-4
        line = np.stack((np.ones(near.sum()), times[near] - now), axis=1)
        scaled = line * weight[near, None] ** 0.5
        level = np.linalg.lstsq(scaled, values[near] * weight[near, None] ** 0.5, rcond=None)[0][0]
        corrections.append(Similarity(np.exp(level[0]), level[1]) @ path[index].inverse())
    return corrections


def needed_zoom(corrections: list[Similarity], width: int, height: int) -> float:
    """How much larger all corrected frames must be shown so that none shows its border."""
    corners = _corners(width, height)
    limit = np.array([(width - 1) / 2, (height - 1) / 2])

    def fits(zoom: float) -> bool:
        for correction in corrections:
            source = correction.inverse()(corners / zoom)
            if (np.abs(source.real) > limit[0] + 1e-6).any() or (np.abs(source.imag) > limit[1] + 1e-6).any():
                return False
        return True

    low, high = 1.0, 1.0
    while not fits(high):
        low, high = high, high * 1.25
        if high > 100:
            return float("inf")
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def jitter(motions: list[Similarity | None], width: int, height: int) -> float:
    """Root mean square change of the motion of the corners from one step to the next [px]; not across a cut (None)."""
    corners = _corners(width, height)
    moves = [None if motion is None else motion(corners) - corners for motion in motions]
    changes = [b - a for a, b in itertools.pairwise(moves) if a is not None and b is not None]
    return float(np.sqrt((np.abs(np.array(changes)) ** 2).mean())) if changes else 0.0


def displacement(motion: Similarity, width: int, height: int) -> np.ndarray:
    """How far a similarity moves each pixel of a frame, `(H, W, 2)` [px]."""
    y, x = np.mgrid[:height, :width]
    z = x - (width - 1) / 2 + 1j * (y - (height - 1) / 2)
    moved = motion(z) - z
    return np.stack((moved.real, moved.imag), axis=-1).astype(np.float32)


def _corners(width: int, height: int) -> np.ndarray:
    x, y = (width - 1) / 2, (height - 1) / 2
    return np.array([-x - 1j * y, x - 1j * y, x + 1j * y, -x + 1j * y])


def apply(image: np.ndarray, correction: Similarity, zoom: float = 1.0) -> np.ndarray:
    """A frame `(H, W, 3)` uint8 or uint16 moved by a similarity about its centre, then enlarged; borders repeat."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    z = x - (width - 1) / 2 + 1j * (y - (height - 1) / 2)
    move = correction.inverse()(z / zoom) - z
    flow = torch.from_numpy(np.stack((move.real, move.imag))[None].astype(np.float32))
    with torch.inference_mode():
        return as_picture(warp_backward(as_batch(image), flow, "bicubic")[0], depth_of(image))


def stabilise_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    smoothness: float = 1.0,
    crop: float = 0.2,
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
) -> StabilisationResult:
    """A clip without the shaking of the camera, of the same size, times and sound. It is read twice.

    Args:
        smoothness: standard deviation of the smoothing of the camera's path [s].
        crop: the most that may be lost of width and height; where more would be, the path is smoothed less.
        cuts: likeness below which two frames are two scenes, see `featherflow.video.change`; a new path begins there. 0: never.
        others: as `featherflow.video.flow_video`.

    Raises:
        InputError: for a smoothness or crop that cannot be, and for pipes and cameras, which cannot be read twice.
    """
    if not smoothness > 0:
        raise InputError(f"The smoothness is a time in seconds, more than 0, got {smoothness}.")
    if not 0 < crop < 1:
        raise InputError(f"The crop is a share of the frame, between 0 and 1, got {crop}.")
    check_threshold(cuts)
    clip = open_clip(source, start=start, end=end, fps=fps, value_range=value_range)
    if not clip.repeatable:
        raise InputError(f"Steadying reads a clip twice, which {clip.name} does not allow; save it to a file first.")
    check_clip_outputs(clip, [("the video", output)], overwrite)
    check_format(output, codec, crf, clip.colour)
    estimator = Estimator() if estimator is None else estimator
    watch = Stopwatch(estimator.load_seconds)
    motions, times = [], []
    total = None if clip.expected is None else 2 * clip.expected - 1
    damage: FileError | None = None
    try:
        for step in steps(clip, estimator):
            motions.append(_motion(step, cuts))
            times.append(float(step.first.time))
            if progress:
                progress(len(motions), total)
    except FileError as error:  # what comes before is steadied
        if not motions:
            raise
        damage = error
    times.append(float(step.second.time))
    held = step.second.duration
    corrections, zoom = _within(motions, np.array(times), smoothness, crop, clip.width, clip.height)
    done = len(motions)

    def items():
        for picture, correction in zip(clip, corrections, strict=False):  # the clip is read again, and may have lost its end
            yield picture.time, picture.image, correction
        if damage is not None:
            raise damage

    def note(pictures: int, total: int | None) -> None:
        if progress:
            progress(done + pictures, total)

    result = video_job(
        clip,
        items(),
        lambda image, correction: apply(image, correction, zoom),
        output,
        estimator,
        watch,
        codec=codec,
        crf=crf,
        sound=sound,
        hold=lambda: held,
        total=total,
        progress=note,
    )
    after = [
        None if motion is None else b @ motion @ a.inverse()
        for motion, (a, b) in zip(motions, itertools.pairwise(corrections), strict=True)
    ]
    result = replace(result, cuts=motions.count(None))
    return StabilisationResult(
        **{field.name: getattr(result, field.name) for field in fields(result)},
        zoom=round(zoom, 4),
        jitter_before_px=round(jitter(motions, clip.width, clip.height), 4),
        jitter_after_px=round(jitter(after, clip.width, clip.height), 4),
    )


def _motion(step: Step, cuts: float) -> Similarity | None:
    """The motion of the camera; none where nothing tells it, and None where a new path begins."""
    first, second = step.first.image, step.second.image
    between = change(first, second, step.flow, cuts)
    if between.breaks:
        return None
    motion = Similarity() if between.kind == "same" else global_motion(step.flow)
    if motion != Similarity() and not shows_motion(first, second, displacement(motion, *first.shape[1::-1])):
        return Similarity()
    return motion


def _within(motions, times, smoothness, crop, width, height) -> tuple[list[Similarity], float]:
    """Corrections as smooth as the crop allows, and the zoom that they need."""
    while True:
        corrections = smooth_path(motions, times, smoothness)
        zoom = needed_zoom(corrections, width, height)
        if zoom <= 1 / (1 - crop):
            return corrections, zoom
        smoothness *= 0.7
