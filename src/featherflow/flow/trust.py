"""How far a flow can be trusted: for each pixel, how probable it is that its flow is right.

A flow is right here where its end-point error is at most 1 px, or 5 % of its true length where that is more.

What is known of a pixel without the truth are cues: what the flows of both directions say about each other, how alike the frames
are along the flow, whether they would be less alike beside it (the cost volume around the flow), how much there is to see, and
whether the flow is torn there. They are weighed by a proportional-odds model (McCullagh, J. R. Stat. Soc. B, 1980): one score s,
linear in the cues, for which the error is at most t times the tolerance with the probability sigmoid(s + b_t).
`benchmarks/confidence.py` fits its coefficients on rendered pairs, and measures on real ones how well they order errors, and how
far the probabilities hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..frames import as_batches
from ..pixels import GREY
from . import algebra
from .fields import Flow

#: A flow is right within the larger of these: px, and share of its length.
RIGHT_PIXELS = 1.0
RIGHT_FRACTION = 0.05

#: Of the score, by cue, for t = 1; see `cues`. Made by `benchmarks/confidence.py --fit`.
COEFFICIENTS = {
    "constant": -5.468,
    "outside": 2.581,
    "disagreement": -0.605,
    "likeness": 1.928,
    "likeness_wide": 2.570,
    "peak": 1.873,
    "texture": -0.413,
    "boundary": -0.489,
    "boundary_wide": -0.358,
}

_WINDOW = 7  # px of a side; cues are means over windows
_WIDE = 4  # the wide windows are as much wider
_MARGIN = 32  # px that the windows reach, at most; a multiple of _WIDE
_STRIP_PIXELS = 1 << 20  # are looked at together, so that memory does not grow with the frames
_GREY = 1 / 255  # a grey level
_MISS, _TORN = 0.05, 0.02  # tolerances below which a distance or a gradient says no more
#: Grey levels, standard deviation in a wide window, at which there is as much noise as information: that of 8-bit black is below.
_EMPTY = 0.75
_SMALL = 160  # px of the longer side, at which frames are looked at as a whole
#: Correlations of small frames along the flow that are two scenes, and that are one; 30 real pairs came to 0.45 and more.
_STRANGE, _ONE_SCENE = 0.15, 0.45
#: (dy, dx) beside the flow whose costs are compared with that of the flow [px].
_BESIDE = ((-2, 0), (2, 0), (0, -2), (0, 2), (-1, -1), (-1, 1), (1, -1), (1, 1))


@torch.no_grad()
def confidence(frame1: Flow, frame2: Flow, flow: Flow, backward: Flow) -> Any:
    """For each pixel the probability that its flow is right, see above.

    Where there is nothing to see in either frame, as in black, it is 0: there a flow is a guess. It is low, too, where the pixel
    leaves the frame or is occluded, though networks often guess such motions well.

    Args:
        frame1, frame2: the two frames, or batches of them, as `featherflow.estimate` takes them.
        flow, backward: the flows between them in both directions, as `featherflow.estimate(..., backward=True)` gives them: `(H,
            W, 2)` or `(B, H, W, 2)` arrays, `(2, H, W)` or `(B, 2, H, W)` tensors [px].

    Returns:
        `(H, W)` or `(B, H, W)` float32 array, or `(1, H, W)` or `(B, 1, H, W)` tensor, in [0, 1]; 0 where a flow is unknown.

    Raises:
        InputError: for frames or flows of another form, or of sizes that do not agree; FileError: for files that cannot be read.
    """
    first, second = as_batches((frame1, frame2), ("frame1", "frame2"))
    field, known, form = algebra.enter(flow, None)
    back, back_known, _ = algebra.enter(backward, None, "the backward flow")
    sizes = [tuple(part.shape[-2:]) for part in (first, second, field, back)]
    counts = [part.shape[0] for part in (first, second, field, back)]
    if len(set(sizes)) > 1 or len(set(counts)) > 1:
        said = ", ".join(f"{count} of {width}x{height}" for count, (height, width) in zip(counts, sizes, strict=True))
        raise InputError(f"Frames, flow and backward flow must be as many and of one size, got {said}.")
    unknown = torch.tensor(float("nan"))
    field, back = (
        torch.where(there, part, unknown.to(part)).to(first.device, torch.float32)
        for part, there in ((field, known), (back, back_known))
    )
    answer = torch.cat(_strips(first, second, field, back), dim=2) * _related(first, second, field)
    if form.array:
        answer = answer[:, 0].cpu().numpy()
    return answer if form.batched else answer[0]


def check_confidence(least: float | None) -> None:
    """Refuse what is no threshold of confidence.

    Raises:
        InputError: outside of 0 to 1.
    """
    if least is not None and not 0 <= least <= 1:
        raise InputError(f"The least confidence lies from 0 (everything) to 1 (nothing), got {least}.")


def confidence_levels(confidence: np.ndarray) -> np.ndarray:
    """Confidences `(H, W)` in [0, 1] as the numbers of a 16-bit grey picture, 65535 for 1."""
    return np.rint(confidence * np.float32(65535)).astype(np.uint16)


def _strips(first: Tensor, second: Tensor, flow: Tensor, backward: Tensor) -> list[Tensor]:
    """Probabilities strip by strip of rows, `(B, 1, rows, W)` each."""
    batch, _, height, width = first.shape
    rows = max(_STRIP_PIXELS // (batch * width) // _WIDE, 1) * _WIDE
    weights = first.new_tensor(list(COEFFICIENTS.values())).view(1, -1, 1, 1)
    answers = []
    for top in range(0, height, rows):
        begin, end = max(top - _MARGIN, 0), min(top + rows + _MARGIN, height)
        seen = cues(first[:, :, begin:end], second, flow[:, :, begin:end], backward, begin)
        information = seen.pop("information")
        score = (torch.cat([seen[name] for name in COEFFICIENTS], dim=1) * weights).sum(dim=1, keepdim=True)
        answer = torch.sigmoid(score) * information
        answers.append(answer[:, :, top - begin : top - begin + min(rows, height - top)])
    return answers


def _related(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """How far the frames show one scene at all, `(B, 1, 1, 1)` from 0 to 1: by the correlation along the flow of what is left of
    small frames when the mean around each pixel is taken away. Noise, and two scenes, have nothing in common."""
    step = max(-(-max(first.shape[-2:]) // _SMALL), 1)
    grey, other = (F.avg_pool2d(_grey(image), step) for image in (first, second))
    motion = torch.nan_to_num(F.avg_pool2d(flow, step), nan=float(10 * _SMALL * step)) / step
    height, width = grey.shape[-2:]
    around = min(height, width) // 8 * 2 + 1
    grey, other = (part - _means(part, around) for part in (grey, other))
    place = (algebra.pixels(motion) + motion).movedim(1, -1)
    limits = place.new_tensor((width - 1, height - 1))
    moved = F.grid_sample(other, place * (2 / limits) - 1, padding_mode="border", align_corners=True)
    inside = ((place >= 0) & (place <= limits)).all(dim=-1)[:, None].float()

    def mean(values: Tensor) -> Tensor:
        return (values * inside).sum(dim=(1, 2, 3), keepdim=True) / inside.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)

    a, b = grey - mean(grey), moved - mean(moved)
    likeness = mean(a * b) / ((mean(a * a) * mean(b * b)).sqrt() + 1e-6)
    return ((likeness - _STRANGE) / (_ONE_SCENE - _STRANGE)).clamp(0, 1)


def cues(first: Tensor, second: Tensor, flow: Tensor, backward: Tensor, top: int = 0) -> dict[str, Tensor]:
    """What is known of each pixel without the truth, each `(B, 1, rows, W)` float32.

    Args:
        first: `(B, 3, rows, W)` RGB in [0, 1], rows of frame 1 from `top` on; second: `(B, 3, H, W)`, all of frame 2.
        flow: `(B, 2, rows, W)` [px] on those rows; backward: `(B, 2, H, W)`. NaN where unknown.

    Returns, by name:
        constant: 1. outside: 1 where the flow leads outside of the frame or the backward flow is unknown there; then all cues that
        need frame 2 are 0. disagreement: log of the distance between the start and there and back again, over the tolerance;
        disagreement_around: of its mean. photometric: log of the mean difference in colour. likeness, likeness_wide: correlation
        of both frames' windows, -1 to 1. peak: log of the costs beside the flow, the smallest of eight, over the cost of the flow.
        texture: log of the standard deviation in frame 1. boundary, boundary_wide: log of the flow's gradient, over the tolerance.
        photometric and disagreement_around have no weight: `benchmarks/confidence.py` judges them by themselves.
        information: no cue, but the share, 0 to 1, of what is to be seen that is more than noise.
    """
    height, width = second.shape[-2:]
    known = torch.isfinite(flow).all(dim=1, keepdim=True)
    flow = torch.where(known, flow, torch.zeros_like(flow))
    place = (algebra.pixels(flow) + flow.new_tensor((0, top)).view(1, 2, 1, 1) + flow).movedim(1, -1)
    limits = place.new_tensor((width - 1, height - 1))
    sampled = F.grid_sample(
        torch.cat((second, backward), dim=1), place * (2 / limits) - 1, padding_mode="border", align_corners=True
    )
    moved, returned = sampled[:, :3], sampled[:, 3:]
    inside = ((place >= 0) & (place <= limits)).all(dim=-1)[:, None] & known & torch.isfinite(returned).all(dim=1, keepdim=True)
    tolerance = (RIGHT_FRACTION * _length(flow)).clamp_min(RIGHT_PIXELS)
    miss = torch.where(inside, _length(flow + returned) / tolerance, 0.0).clamp_max(20)
    torn = (_gradient(flow) / tolerance).clamp_max(5).square()
    grey, grey_moved = _grey(first), _grey(moved)
    a, b = grey - 0.5, grey_moved - 0.5  # small numbers, for the sake of differences of squares in float32
    maps = torch.cat((a, b, a * a, b * b, a * b, torn, miss, (first - moved).abs().mean(dim=1, keepdim=True)), dim=1)
    near, far = _means(maps), _wide_means(maps[:, :6])
    costs = _costs(grey, grey_moved)
    found = {
        "constant": torch.ones_like(miss),
        "outside": 1 - inside.float(),
        "disagreement": torch.log(miss + _MISS) * inside,
        "disagreement_around": torch.log(near[:, 6:7] + _MISS),
        "photometric": torch.log(near[:, 7:8] + _GREY) * inside,
        "likeness": _likeness(near) * inside,
        "likeness_wide": _likeness(far) * inside,
        "peak": torch.log((costs[:, 1:].amin(dim=1, keepdim=True) + 2 * _GREY) / (costs[:, :1] + 2 * _GREY)) * inside,
        "texture": torch.log(_variance(near).sqrt() + _GREY),
        "boundary": torch.log(near[:, 5:6].sqrt() + _TORN),
        "boundary_wide": torch.log(far[:, 5:6].sqrt() + _TORN),
    }
    least = torch.where(inside, torch.minimum(_variance(far), _variance(far, 1)), _variance(far)) / (_EMPTY * _GREY) ** 2
    return {**found, "information": known * least.square() / (least.square() + 1)}


def _grey(image: Tensor) -> Tensor:
    return (image * image.new_tensor(GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1, keepdim=True).sqrt()


def _gradient(flow: Tensor) -> Tensor:
    """Length of the flow's differences to the right and down, all four, `(B, 1, H, W)` [px]; to beyond the border 0."""
    right = F.pad(flow.diff(dim=-1), (0, 1)).square()
    down = F.pad(flow.diff(dim=-2), (0, 0, 0, 1)).square()
    return (right + down).sum(dim=1, keepdim=True).sqrt()


def _means(maps: Tensor, window: int = _WINDOW) -> Tensor:
    """Means over windows, at the border over what of them is inside."""
    reach = window // 2
    maps = F.avg_pool2d(maps, (window, 1), 1, (reach, 0), count_include_pad=False)
    return F.avg_pool2d(maps, (1, window), 1, (0, reach), count_include_pad=False)


def _wide_means(maps: Tensor) -> Tensor:
    height, width = maps.shape[-2:]
    coarse = _means(F.avg_pool2d(maps, _WIDE, ceil_mode=True))
    size = (coarse.shape[-2] * _WIDE, coarse.shape[-1] * _WIDE)
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)[..., :height, :width]


def _variance(means: Tensor, of: int = 0) -> Tensor:
    """Of frame 1, or (`of` = 1) of frame 2 along the flow, from means of values and of their squares."""
    return (means[:, 2 + of : 3 + of] - means[:, of : of + 1].square()).clamp_min(0)


def _likeness(means: Tensor) -> Tensor:
    """Correlation of both frames in a window; near 0 where there is less to see than a grey level."""
    covariance = means[:, 4:5] - means[:, :1] * means[:, 1:2]
    return covariance / ((_variance(means) * _variance(means, 1)).sqrt() + _GREY**2)


def _costs(grey: Tensor, moved: Tensor) -> Tensor:
    """Mean differences in windows, of the flow and of those beside it, `(B, 9, H, W)`."""
    height, width = grey.shape[-2:]
    reach = 2
    padded = F.pad(moved, (reach,) * 4, mode="replicate")
    shifted = [padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width] for dy, dx in ((0, 0), *_BESIDE)]
    return _means((grey - torch.cat(shifted, dim=1)).abs())
