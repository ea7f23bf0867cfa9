"""Pictures between two frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..frames import as_batch
from .alignment import adopt_neighbours, align, beside, fits_better, misfit
from .warping import fill_holes, splat_sums, visibility, warp_backward

# Where pixels collide, one whose look or whose way back disagrees gives way: weight exp(-importance).
_LOOK = 5.0  # per unit of brightness difference, on the scale [0, 1]
_WAY_BACK = 4.0
_ENOUGH = 0.25  # of a pixel's worth from either frame; where less arrives, there is a hole
_DOUBLES = 0.25  # of brightness; where the frames differ by more, on average around a pixel, one of them is taken
_GRADUALLY, _SHARPEST = 0.08, 4.0
_UNSEEN = 0.05  # share of a frame that seems not to show a place, for that may be wrong; both frames err apart
# Motions that are tried at each pixel: its own and, where both frames show the place, those so far beside it [px]. One along which
# the frames differ by more than along the best counts less, by exp(-more / (noise + spread * best)), in squared brightness on the
# scale [0, 1]: where one motion fits it is alone, and where none does they are averaged.
_PLACES = ((0, 0), *((x, y) for r in (4, 8, 16) for x, y in ((r, 0), (-r, 0), (0, r), (0, -r))))
_NOISE, _SPREAD, _SEEN = 1e-4, 4.0, 4.0
_OWN = 1e-4  # at least, so that something is left where the own motion fits badly and no other counts
_EARLIER = 0.5  # log odds by which the earlier frame is taken where nothing else decides, so that the choice is the same all over


def interpolate(
    frame1,
    frame2,
    flow: np.ndarray,
    backward: np.ndarray,
    times: Sequence[float] = (0.5,),
    also: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> list[np.ndarray]:
    """What lies between two frames.

    The motion at time t is that of the pixels of both frames that pass there, splatted; along it and along those beside it, both
    frames are fetched and blended by nearness in time, each motion counting by how well the frames agree along it. A frame that
    does not show a place, by the disagreement of the two flows, hardly counts there, and where the frames differ much one wins.

    Args:
        frame1, frame2: frames as `featherflow.estimate` takes them.
        flow, backward: flow from each to the other, `(H, W, 2)` [px].
        times: between 0 (frame 1) and 1 (frame 2).
        also: flow and backward by other methods, whose motion is taken where the frames fit it clearly better.

    Returns:
        One picture `(H, W, 3)` RGB for each time: uint8, or uint16 where frame 1 is an array of uint16.

    Raises:
        InputError: for frames, flows or times that cannot be used.
    """
    first, second = as_batch(frame1, "frame1"), as_batch(frame2, "frame2")
    fields = [
        [torch.from_numpy(np.ascontiguousarray(field, np.float32)).permute(2, 0, 1)[None] for field in pair]
        for pair in ((flow, backward), *also)
    ]
    with torch.inference_mode():
        own, *others = (Passing(first, second, *pair) for pair in fields)
        between = Between(own, others)
        return [as_picture(between.at(float(t)), depth_of(frame1)) for t in times]


class Passing:
    """What the flows between two frames `(B, 3, H, W)` say to pass at a time between them."""

    def __init__(self, first: Tensor, second: Tensor, flow: Tensor, backward: Tensor):
        self.first, self.second, self.flow, self.backward = first, second, flow, backward
        self.seen_in_second, self.seen_in_first = visibility(flow, backward), visibility(backward, flow)
        self.weights = (_trust(first, second, flow, self.seen_in_second), _trust(second, first, backward, self.seen_in_first))

    def at(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """The motion over the whole interval of what passes at time t, and whether frame 1 and frame 2 show it."""
        one = torch.ones_like(self.seen_in_first)
        passing = splat_sums(_weighed(self.weights[0], self.flow, one, self.seen_in_second), t * self.flow)
        passing = passing + splat_sums(_weighed(self.weights[1], -self.backward, self.seen_in_first, one), (1 - t) * self.backward)
        weight, arrived = passing[:, -2:-1], passing[:, -1:]
        passing = fill_holes(passing[:, :-2] / weight.clamp_min(1e-8), (arrived / _ENOUGH).clamp_max(1))
        return passing[:, :2], passing[:, 2:3], passing[:, 3:4]


class Between:
    """Two frames and the flows between them, ready to be looked at in between.

    Args:
        own: by the flows that are believed.
        others: by those of other methods.
    """

    def __init__(self, own: Passing, others: Sequence[Passing] = ()):
        self.own, self.others, self.first, self.second = own, others, own.first, own.second

    def at(self, t: float) -> Tensor:
        """The picture at time t, `(B, 3, H, W)`.

        Raises:
            InputError: for a time outside of 0 to 1.
        """
        if not 0 <= t <= 1:
            raise InputError(f"A time between two frames lies from 0 to 1, got {t}.")
        motion, shown1, shown2 = self._passing(t)
        misfits = [misfit(self.first, self.second, beside(motion, *place), t) for place in _PLACES]
        least = torch.stack(misfits).amin(dim=0)
        total, count = torch.zeros_like(self.first), torch.zeros_like(shown1)
        for place, found in zip(_PLACES, misfits, strict=True):
            weight = torch.exp((least - found) / (_NOISE + _SPREAD * least))
            weight = weight + _OWN if place == (0, 0) else weight * (_SEEN * shown1 * shown2).clamp_max(1)
            total, count = total + weight * self._along(beside(motion, *place), shown1, shown2, t), count + weight
        return (total / count).clamp(0, 1)

    def _passing(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """As `Passing.at`, of the method that fits the frames at each place, and brought together with them."""
        best = self.own.at(t)
        for other in self.others:
            candidate = other.at(t)
            better = fits_better(self.first, self.second, candidate[0], best[0], t)
            best = tuple(torch.where(better, new, old) for new, old in zip(candidate, best, strict=True))
        motion, shown1, shown2 = best
        shown = shown1 * shown2
        motion = adopt_neighbours(self.first, self.second, motion, shown, t)
        return align(self.first, self.second, motion, shown, t), shown1, shown2

    def _along(self, motion: Tensor, shown1: Tensor, shown2: Tensor, t: float) -> Tensor:
        """The picture at time t if this were the motion."""
        image1, inside1 = warp_backward(self.first, -t * motion, "bicubic")
        image2, inside2 = warp_backward(self.second, (1 - t) * motion, "bicubic")
        share1 = (1 - t) * (shown1 * inside1 + _UNSEEN)
        share2 = t * (shown2 * inside2 + _UNSEEN)
        # Where both show the place and yet differ, one of them is wrong, and half of each would be a half transparent double.
        apart = _around((image1 - image2).abs().mean(dim=1, keepdim=True) * shown1 * shown2 * inside1 * inside2)
        decided = 1 + ((apart - _DOUBLES) / _GRADUALLY).clamp(0, _SHARPEST)
        first_rather = torch.sigmoid(decided * (_around(share1).log() - _around(share2).log() + (decided - 1) * _EARLIER))
        share1 = torch.where(decided > 1, first_rather, share1 / (share1 + share2))
        return share1 * image1 + (1 - share1) * image2


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
