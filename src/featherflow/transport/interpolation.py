"""Pictures between two frames, and clips with more of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..frames import Range, as_batch
from ..inference import Estimator
from ..video import (
    THRESHOLD,
    VideoJobResult,
    change,
    check_clip_outputs,
    check_threshold,
    open_clip,
    steps,
    video_job,
)
from .alignment import adopt_neighbours, align
from .warping import fill_holes, splat_sums, visibility, warp_backward

FACTORS = (2, 4, 8)

# Where pixels collide, one whose look or whose way back disagrees gives way: weight exp(-importance).
_LOOK = 5.0  # per unit of brightness difference, on the scale [0, 1]
_WAY_BACK = 4.0
_ENOUGH = 0.25  # of a pixel's worth from either frame; where less arrives, there is a hole
_DOUBLES = 0.08  # of brightness; where the frames differ by more, on average around a pixel, one of them is taken
_SHARPEST = 4.0
_EARLIER = 0.5  # log odds by which the earlier frame is taken where nothing else decides, so that the choice is the same all over


def interpolate(frame1, frame2, flow: np.ndarray, backward: np.ndarray, times: Sequence[float] = (0.5,)) -> list[np.ndarray]:
    """What lies between two frames.

    The motion at time t is that of the pixels of both frames that pass there, splatted; along it, both frames are fetched and
    blended by nearness in time. A frame that does not show a place, by the disagreement of the two flows, is left out there.

    Args:
        frame1, frame2: frames as `featherflow.estimate` takes them.
        flow, backward: flow from each to the other, `(H, W, 2)` [px].
        times: between 0 (frame 1) and 1 (frame 2).

    Returns:
        One picture `(H, W, 3)` RGB for each time: uint8, or uint16 where frame 1 is an array of uint16.

    Raises:
        InputError: for frames, flows or times that cannot be used.
    """
    first, second = as_batch(frame1, "frame1"), as_batch(frame2, "frame2")
    fields = [torch.from_numpy(np.ascontiguousarray(field, np.float32)).permute(2, 0, 1)[None] for field in (flow, backward)]
    with torch.inference_mode():
        between = Between(first, second, *fields)
        return [as_picture(between.at(float(t)), depth_of(frame1)) for t in times]


class Between:
    """Two frames `(B, 3, H, W)` and the flows between them, ready to be looked at in between."""

    def __init__(self, first: Tensor, second: Tensor, flow: Tensor, backward: Tensor):
        self.first, self.second, self.flow, self.backward = first, second, flow, backward
        self.seen_in_second, self.seen_in_first = visibility(flow, backward), visibility(backward, flow)
        self.weights = (_trust(first, second, flow, self.seen_in_second), _trust(second, first, backward, self.seen_in_first))

    def at(self, t: float) -> Tensor:
        """The picture at time t, `(B, 3, H, W)`.

        Raises:
            InputError: for a time outside of 0 to 1.
        """
        if not 0 <= t <= 1:
            raise InputError(f"A time between two frames lies from 0 to 1, got {t}.")
        # What passes at time t: its motion over the whole interval, and whether frame 1 and frame 2 show it.
        one = torch.ones_like(self.seen_in_first)
        passing = splat_sums(_weighed(self.weights[0], self.flow, one, self.seen_in_second), t * self.flow)
        passing = passing + splat_sums(_weighed(self.weights[1], -self.backward, self.seen_in_first, one), (1 - t) * self.backward)
        weight, arrived = passing[:, -2:-1], passing[:, -1:]
        passing = fill_holes(passing[:, :-2] / weight.clamp_min(1e-8), (arrived / _ENOUGH).clamp_max(1))
        motion, shown1, shown2 = passing[:, :2], passing[:, 2:3], passing[:, 3:4]
        shown = shown1 * shown2
        motion = align(self.first, self.second, adopt_neighbours(self.first, self.second, motion, shown, t), shown, t)
        image1, inside1 = warp_backward(self.first, -t * motion, "bicubic")
        image2, inside2 = warp_backward(self.second, (1 - t) * motion, "bicubic")
        share1 = (1 - t) * (shown1 * inside1 + 1e-3)
        share2 = t * (shown2 * inside2 + 1e-3)
        # Where both show the place and yet differ, one of them is wrong, and half of each would be a half transparent double.
        apart = _around((image1 - image2).abs().mean(dim=1, keepdim=True) * shown * inside1 * inside2)
        decided = 1 + ((apart - _DOUBLES) / _DOUBLES).clamp(0, _SHARPEST)
        first_rather = torch.sigmoid(decided * (_around(share1).log() - _around(share2).log() + (decided - 1) * _EARLIER))
        share1 = torch.where(decided > 1, first_rather, share1 / (share1 + share2))
        return (share1 * image1 + (1 - share1) * image2).clamp(0, 1)


def _trust(own: Tensor, other: Tensor, flow: Tensor, seen: Tensor) -> Tensor:
    difference = (own - warp_backward(other, flow)[0]).abs().mean(dim=1, keepdim=True)
    return torch.exp(-_LOOK * difference * seen - _WAY_BACK * (1 - seen))


def _around(x: Tensor) -> Tensor:
    """Mean over 7x7 px, so that neighbours decide alike."""
    return F.avg_pool2d(x, 7, 1, 3, count_include_pad=False)


def _weighed(weight: Tensor, *values: Tensor) -> Tensor:
    """Values times weight, the weight, and ones: what to sum up for a weighted mean and for a count."""
    return torch.cat([value * weight for value in values] + [weight, torch.ones_like(weight)], dim=1)


def as_picture(image: Tensor, dtype: np.dtype | type = np.uint8) -> np.ndarray:
    """`(1, 3, H, W)` in [0, 1] to `(H, W, 3)` uint8, or uint16 in all 16 bits."""
    most = np.iinfo(dtype).max
    return (image[0] * most).round().clamp(0, most).permute(1, 2, 0).contiguous().numpy().astype(dtype)


def depth_of(frame) -> type:
    """The type of pictures made of a frame: uint16 of an array of that type, else uint8."""
    return np.uint16 if getattr(frame, "dtype", None) == np.uint16 else np.uint8


def interpolate_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    factor: int = 2,
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
) -> VideoJobResult:
    """A clip with `factor` times as many pictures a second; its own frames keep their times, depth and colours, with the sound.

    The codec decides how near its own frames stay to what they were: ffv1 and PNG files change nothing. The last frame is held as
    long as it was, so that the clip keeps its length.

    Args:
        factor: 2, 4 or 8.
        cuts: likeness below which two frames are two scenes, see `featherflow.video.change`, and the nearer one is repeated.
            0: never.
        others: as `featherflow.video.flow_video`.

    Raises:
        InputError: for another factor; others as `featherflow.video.flow_video`.
    """
    if factor not in FACTORS:
        raise InputError(f"The factor must be one of {', '.join(map(str, FACTORS))}, got {factor}.")
    check_threshold(cuts)
    clip = open_clip(source, start=start, end=end, fps=fps, value_range=value_range)
    check_clip_outputs(clip, [("the video", output)], overwrite, factor)
    estimator = Estimator() if estimator is None else estimator
    found, held = 0, None

    def items():
        nonlocal found, held
        for step in steps(clip, estimator, backward=True):
            times = [Fraction(k, factor) for k in range(1, factor)]
            yield step.first.time, step.first.image
            between = change(step.first.image, step.second.image, step.flow, cuts)
            if between.breaks or between.kind == "same":
                found += between.breaks
                pictures = [(step.first if t < Fraction(1, 2) else step.second).image for t in times]
            else:
                pictures = interpolate(step.first.image, step.second.image, *step.both(), [float(t) for t in times])
            for t, picture in zip(times, pictures, strict=True):
                yield step.first.time + t * (step.second.time - step.first.time), picture
        yield step.second.time, step.second.image
        held = step.second.duration or step.second.time - step.first.time

    total = None if clip.expected is None else (clip.expected - 1) * factor + 1
    result = video_job(
        clip,
        items(),
        lambda picture: picture,
        output,
        estimator,
        codec=codec,
        crf=crf,
        sound=sound,
        finer=factor,
        hold=lambda: held,
        total=total,
        progress=progress,
    )
    return replace(result, cuts=found)
