"""Flow algebra: compose, invert, switch the frame a flow stands on, resample, follow along a path.

Every function takes a flow as NumPy `(H, W, 2)`, or `(B, H, W, 2)`, with NaN where it is unknown, or as a tensor `(2, H, W)` or
`(B, 2, H, W)`, and gives a pair in the same form:

- the flow [px], x to the right and y down; where it is not valid, NaN in an array and 0 in a tensor, where NaN would spoil every
  gradient;
- its validity, boolean `(H, W)`, `(B, H, W)`, `(1, H, W)` or `(B, 1, H, W)`.

Where a flow is known may be said beside it by a mask of that form; NaN counts as unknown in any case. Between pixels a flow is
bilinear, so that whatever is exact for flows that are affine in x and y is exact here. Everything is differentiable in the flows.
Arithmetic is in float64 for arrays, and in the type of the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .fields import UNKNOWN_THRESHOLD, positive

# What rounding of coordinates may do in float32, on frames of a few thousand pixels [px]: so far outside is still inside, and so
# small a share of an unknown neighbour is none.
_ROUNDING = 1e-3
_NEWTON_STEPS = 12
_LEAST_AREA = 1e-3  # a step of Newton divides by the change of area
_KNOWN_SHARE = 0.5


@dataclass(frozen=True)
class _Form:
    """How a flow was given, and hence how the answer is."""

    array: bool
    batched: bool
    dtype: Any

    def give(self, flow: Tensor, valid: Tensor):
        """A flow `(B, 2, H, W)` and its validity `(B, 1, H, W)` in the form in which flows were given."""
        if not self.array:
            flow = torch.where(valid, flow, torch.zeros_like(flow))
            return (flow, valid) if self.batched else (flow[0], valid[0])
        field = flow.detach().cpu().permute(0, 2, 3, 1).numpy().astype(self.dtype)
        mask = valid[:, 0].cpu().numpy()
        field[~mask] = np.nan
        return (field, mask) if self.batched else (field[0], mask[0])


def compose(first, second, valid_first=None, valid_second=None):
    """From flows 1 -> 2 and 2 -> 3 to the flow 1 -> 3: `f(x) = first(x) + second(x + first(x))`.

    Args:
        first, second: flows of one form and size, each on the grid of its own first frame.
        valid_first, valid_second: where they are known.

    Returns the flow on frame 1's grid and its validity, see above: valid where `first` is known, leads inside the frame, and
    arrives where `second` is known.

    Raises `InputError` for flows of another form, or of two sizes.
    """
    flow, known, form = enter(first, valid_first, "the first flow")
    then, then_known, other = enter(second, valid_second, "the second flow")
    if (form.array, form.batched) != (other.array, other.batched):
        raise InputError(f"flows to compose must have one form, but are a {_named(form)} and a {_named(other)}")
    if flow.shape != then.shape:
        raise InputError(f"flows to compose must have one size, but are {_size(flow)} and {_size(then)}")
    place = pixels(flow) + flow
    carried, arrives = _sample(then.to(flow.dtype), then_known, place)
    return form.give(flow + carried, known & arrives)


def path(flows: Iterable) -> Iterator[tuple]:
    """Along flows 1 -> 2, 2 -> 3, ..., N-1 -> N: the flows 1 -> 2, 1 -> 3, ..., 1 -> N, one after the other.

    Args:
        flows: of one form and size; any iterable, of which only the present flow is kept.

    Yields pairs of flow and validity on frame 1's grid, as `compose` gives them.

    Raises as `compose`.
    """
    whole, valid = None, None
    for flow in flows:
        if whole is None:
            tensor, known, form = enter(flow, None)
            whole, valid = form.give(tensor, known)
        else:
            whole, valid = compose(whole, flow, valid)
        yield whole, valid


def invert(flow, valid=None, *, tolerance: float = 0.01, max_gradient: float | None = None):
    """From the flow 1 -> 2 to the flow 2 -> 1: the g with `g(y) = -f(y + g(y))`, on frame 2's grid.

    It is found by Newton's method on x + f(x) = y, with steps of the fixed point above where Newton's do not help, from the pixel
    of frame 1 that arrives nearest to y: in one step where f is affine. Where several pixels arrive at one place, g leads to one of
    them: a flow alone does not say which of them is seen.

    Args:
        flow, valid: see above.
        tolerance: largest miss `|f(y + g(y)) + g(y)|` [px] that counts as found.
        max_gradient: where neighbours of frame 1 differ by more than this [px], the flow is torn, not stretched, and nothing
            between them has come from there. Default: any stretching is taken.

    Returns the flow on frame 2's grid and its validity: valid where something known of frame 1 arrives.

    Raises `InputError` for another form, or a tolerance or gradient that is not positive.
    """
    tolerance = positive(tolerance, "tolerance")
    if max_gradient is not None:
        max_gradient = positive(max_gradient, "max_gradient")
    field, known, form = enter(flow, valid)
    target = pixels(field)
    with torch.no_grad():
        place = _solve(field, known, target)
        _, slope = _cell(field, place)
        miss = place + _sample(field, known, place)[0] - target
    arrived, inside = _sample(field, known, place)
    # One more step, through which the gradient of the answer is that of an implicit function: dg = -(1 + df/dx)^-1 df.
    inverse = place - target - _newton(place + arrived - target, slope)
    found = inside & (miss.square().sum(dim=1, keepdim=True) <= tolerance**2)
    if max_gradient is not None:
        # On a pixel's own column or row, what lies between it and the next does not matter.
        between = (place - place.round()).abs() > _ROUNDING
        u_x, u_y, v_x, v_y = (part > max_gradient for part in slope.abs().split(1, dim=1))
        found = found & ~((u_x | v_x) & between[:, :1]) & ~((u_y | v_y) & between[:, 1:])
    return form.give(inverse, found)


def switch_frame(flow, valid=None, *, to: str = "second", **options: Any):
    """The same motion 1 -> 2 on the other frame's grid.

    On the first frame's grid, a flow says where each pixel goes: from x to x + f(x). On the second's it says where each has come
    from: y - g(y). featherflow's flows stand on the first.

    Args:
        flow, valid: see above.
        to: "second", for a flow that stands on the first frame's grid, or "first", for one that stands on the second's.
        options: tolerance, max_gradient, as `invert`.

    Returns and raises as `invert`; also `InputError` for another `to`.
    """
    if to not in ("second", "first"):
        raise InputError(f"the frame to switch to is 'second' or 'first', but got {to!r}")
    if to == "first":
        return invert(-flow, valid, **options)
    inverse, found = invert(flow, valid, **options)
    return -inverse, found


def resample(flow, size: tuple[int, int], valid=None):
    """The flow of the same two frames at another size: values are scaled as the frames are.

    Frames are areas that are scaled as a whole, as image programs do, so that pixel centres x go to `(x + 1/2) * new / old - 1/2`.
    Enlarged, a flow is interpolated bilinearly; made smaller, it is averaged over the pixels that a new one covers. Both keep flows
    that are affine in x and y as they are, at the border too.

    Args:
        flow, valid: see above.
        size: new height and width [px].

    Returns the flow and its validity: valid where half or more of what a pixel is made of is known.

    Raises `InputError` for another form, or a size that is not two whole numbers of at least 1.
    """
    new_height, new_width = whole_size(size)
    field, known, form = enter(flow, valid)
    height, width = field.shape[-2:]
    rows, columns = _weights(height, new_height, field), _weights(width, new_width, field)
    share = rows @ known.to(field.dtype) @ columns.T
    enough = share >= _KNOWN_SHARE - 1e-6
    values = rows @ field @ columns.T / torch.where(enough, share, torch.ones_like(share))
    ratios = values.new_tensor((new_width / width, new_height / height)).view(1, 2, 1, 1)
    return form.give(values * ratios, enough)


# Forms ----------------------------------------------------------------------------------------------------------------


def enter(flow, valid, what: str = "the flow") -> tuple[Tensor, Tensor, _Form]:
    """A flow in any form as a tensor `(B, 2, H, W)`, 0 where unknown, where it is known `(B, 1, H, W)`, and the form it had."""
    if isinstance(flow, Tensor):
        if flow.ndim not in (3, 4) or flow.shape[-3] != 2 or flow.numel() == 0 or not flow.is_floating_point():
            raise InputError(f"{what} as a tensor must be floating point, (2, H, W) or (B, 2, H, W), but got {_describe(flow)}")
        form = _Form(False, flow.ndim == 4, None)
        field = flow if flow.dtype == torch.float64 else flow.float()
        field = field if form.batched else field[None]
    elif isinstance(flow, np.ndarray):
        if flow.ndim not in (3, 4) or flow.shape[-1] != 2 or flow.size == 0 or flow.dtype.kind not in "fiu":
            raise InputError(f"{what} as an array must hold numbers, (H, W, 2) or (B, H, W, 2), but got {_describe(flow)}")
        form = _Form(True, flow.ndim == 4, np.float64 if flow.dtype == np.float64 else np.float32)
        batch = flow if form.batched else flow[None]
        field = torch.from_numpy(np.ascontiguousarray(np.moveaxis(batch, -1, 1), dtype=np.float64))
    else:
        raise InputError(f"{what} must be a NumPy array (H, W, 2) or a tensor (B, 2, H, W), but got a {type(flow).__name__}")
    known = (field.detach().abs() <= UNKNOWN_THRESHOLD).all(dim=1, keepdim=True)  # false for NaN
    if valid is not None:
        mask = torch.as_tensor(valid, device=field.device)
        expected = (known[:, 0] if form.array else known) if form.batched else (known[0, 0] if form.array else known[0])
        if mask.shape != expected.shape:
            raise InputError(f"the mask of {what} must have the shape {tuple(expected.shape)}, but got {tuple(mask.shape)}")
        known = known & (mask != 0).reshape(known.shape)
    return torch.where(known, field, torch.zeros_like(field)), known, form


def whole_size(size) -> tuple[int, int]:
    """A height and a width [px] that were given; `InputError` for what is not two whole numbers of at least 1."""
    try:
        height, width = (int(side) for side in size)
        if min(height, width) >= 1 and (height, width) == tuple(size):
            return height, width
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"a size is a height and a width of at least 1 px, but got {size!r}")


def pixels(like: Tensor) -> Tensor:
    """The places `(1, 2, H, W)` of all pixels [px], x in channel 0, y in channel 1, in the type of `like`."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack((x, y))[None]


def _describe(flow) -> str:
    return f"{tuple(flow.shape)} of {flow.dtype}"


def _named(form: _Form) -> str:
    return ("batch of " if form.batched else "single ") + ("array" if form.array else "tensor")


def _size(flow: Tensor) -> str:
    return f"{flow.shape[0]} of {flow.shape[-1]}x{flow.shape[-2]}"


# Between pixels -------------------------------------------------------------------------------------------------------


def _corners(values: Tensor, place: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Values at the corners of the cell that holds each place (left and right above, left and right below), and its shares.

    A place outside belongs to the nearest cell, with shares below 0 or above 1.
    """
    batch, channels, height, width = values.shape
    place = place.expand(batch, -1, -1, -1)
    x, y = place[:, :1], place[:, 1:]
    left = x.detach().floor().clamp(0, max(width - 2, 0))
    top = y.detach().floor().clamp(0, max(height - 2, 0))
    flat = values.flatten(2)

    def at(dx: int, dy: int) -> Tensor:
        index = (top + dy).clamp(max=height - 1) * width + (left + dx).clamp(max=width - 1)
        return flat.gather(2, index.long().flatten(2).expand(-1, channels, -1)).view(batch, channels, *place.shape[-2:])

    return [at(0, 0), at(1, 0), at(0, 1), at(1, 1)], x - left, y - top


def _mix(corners: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    upper, lower = corners[0] * (1 - x) + corners[1] * x, corners[2] * (1 - x) + corners[3] * x
    return upper * (1 - y) + lower * y


def _sample(values: Tensor, known: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear values at places, outside the nearest of the border, and where they are made of known values inside the frame."""
    height, width = values.shape[-2:]
    limits = place.new_tensor((width - 1, height - 1)).view(1, 2, 1, 1)
    inside = ((place >= -_ROUNDING) & (place <= limits + _ROUNDING)).all(dim=1, keepdim=True)
    within = torch.minimum(place.clamp_min(0), limits)
    corners, x, y = _corners(torch.cat((values, (~known).to(values.dtype)), dim=1), within)
    mixed = _mix(corners, x, y)
    missing = mixed[:, -1:].detach()
    enough = missing <= _ROUNDING
    return mixed[:, :-1] / torch.where(enough, 1 - missing, torch.ones_like(missing)), inside & enough


def _cell(flow: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """The flow at places, each cell continued linearly beyond the frame, and its slope (u_x, u_y, v_x, v_y) `(B, 4, H, W)`."""
    corners, x, y = _corners(flow, place)
    along = (corners[1] - corners[0]) * (1 - y) + (corners[3] - corners[2]) * y
    down = (corners[2] - corners[0]) * (1 - x) + (corners[3] - corners[1]) * x
    return _mix(corners, x, y), torch.cat((along[:, :1], down[:, :1], along[:, 1:], down[:, 1:]), dim=1)


def _newton(miss: Tensor, slope: Tensor) -> Tensor:
    """The step that Newton's method takes back: (1 + slope)^-1 miss, or the miss itself where areas shrink to nothing."""
    u_x, u_y, v_x, v_y = slope.split(1, dim=1)
    a, d = 1 + u_x, 1 + v_y
    area = a * d - u_y * v_x
    sound = area.abs() > _LEAST_AREA
    area = torch.where(sound, area, torch.ones_like(area))
    step = torch.cat((d * miss[:, :1] - u_y * miss[:, 1:], a * miss[:, 1:] - v_x * miss[:, :1]), dim=1) / area
    return torch.where(sound, step, miss)


def _solve(flow: Tensor, known: Tensor, target: Tensor) -> Tensor:
    """Places p of frame 1 with p + flow(p) = target, as near as they are found."""
    place = target + _first_guess(flow, known)
    value, slope = _cell(flow, place)
    miss = place + value - target
    # Where a step makes matters worse, shorter ones are tried from the same place.
    length = torch.ones_like(miss[:, :1])
    precision = 4 * torch.finfo(flow.dtype).eps * max(flow.shape[-2:])
    for number in range(_NEWTON_STEPS):
        if bool((miss.abs() <= precision).all()):
            break
        step = _newton(miss, slope) if number % 3 < 2 else miss
        candidate = place - length * step
        value, candidate_slope = _cell(flow, candidate)
        candidate_miss = candidate + value - target
        better = candidate_miss.square().sum(dim=1, keepdim=True) < miss.square().sum(dim=1, keepdim=True)
        place, slope = torch.where(better, candidate, place), torch.where(better, candidate_slope, slope)
        miss = torch.where(better, candidate_miss, miss)
        length = torch.where(better, torch.ones_like(length), length / 2)
    return place


def _first_guess(flow: Tensor, known: Tensor) -> Tensor:
    """For each pixel of frame 2, minus the flow of the pixel that arrives nearest to it; smoothly continued where none arrives."""
    batch, _, height, width = flow.shape
    arrival = pixels(flow) + flow
    count = height * width
    nearest = flow.new_full((batch * count,), torch.inf)
    first = torch.arange(batch, device=flow.device).view(-1, 1, 1) * count
    seen = []
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = arrival[:, 0].floor() + dx, arrival[:, 1].floor() + dy
            lands = known[:, 0] & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = (torch.where(lands, y * width + x, torch.zeros_like(x)).long() + first)[lands]
            distance = ((arrival[:, 0] - x).square() + (arrival[:, 1] - y).square())[lands]
            nearest.scatter_reduce_(0, index, distance, "amin")
            seen.append((index, distance, lands))
    guess = flow.new_zeros((batch * count, 2))
    for index, distance, lands in seen:
        wins = distance == nearest[index]
        guess[index[wins]] = -flow.permute(0, 2, 3, 1)[lands][wins]
    filled = torch.isfinite(nearest).view(batch, 1, height, width).to(flow.dtype)
    return _continued(guess.view(batch, height, width, 2).permute(0, 3, 1, 2), filled)


def _continued(values: Tensor, weight: Tensor) -> Tensor:
    """Values where `weight` is 1; elsewhere those of the next coarser level that knows some."""
    if min(values.shape[-2:]) == 1 or bool((weight >= 1).all()):
        return values
    sums = torch.nn.functional.avg_pool2d(torch.cat((values * weight, weight), dim=1), 2, ceil_mode=True)
    coarse = _continued(sums[:, :-1] / sums[:, -1:].clamp_min(1e-8), (4 * sums[:, -1:]).clamp_max(1))
    around = torch.nn.functional.interpolate(coarse, size=values.shape[-2:], mode="nearest")
    return torch.where(weight >= 1, values, around)


def _weights(old: int, new: int, like: Tensor) -> Tensor:
    """Weights `(new, old)` of the pixels of one axis: each row sums to 1 and has its centre of gravity where the new pixel lies."""
    inputs = torch.arange(old, dtype=torch.float64)
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5
    if old == 1:
        weights = torch.ones(new, 1, dtype=torch.float64)
    elif new >= old:
        left = centres.floor().clamp(0, old - 2)
        share = (centres - left)[:, None]
        weights = (inputs == left[:, None]) * (1 - share) + (inputs == left[:, None] + 1) * share
    else:
        ends = (centres[:, None] - old / new / 2, centres[:, None] + old / new / 2)
        weights = (torch.minimum(ends[1], inputs + 0.5) - torch.maximum(ends[0], inputs - 0.5)).clamp_min(0)
        weights = weights / weights.sum(dim=1, keepdim=True)
        # Pixels that are covered in part count at their centres, which moves the mean; what is added moves it back.
        mean = weights @ inputs
        offset = inputs - mean[:, None]
        spread = (weights * offset.square()).sum(dim=1)
        weights = weights * (1 + offset * ((centres - mean) / spread.clamp_min(1e-12))[:, None])
    return weights.to(like)
