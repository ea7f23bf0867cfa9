"""What training minimises. A loss is a typed set of numbers that runs a network and judges every flow that it gives on the way.

All take a network, frames `(B, 3, H, W)` RGB in [0, 1], the true flow `(B, 2, H, W)` [px] and the weight of each of its pixels
`(B, 1, H, W)`, 0 where a label does not count, and give a scalar and the network's last flow `(B, 2, H, W)` [px]. Where truth and
weight are twice as many as the pairs, those from frame 2 to frame 1 follow those from frame 1 to frame 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..networks.liteflownet import COARSEST_LEVEL, FLOW_SCALE, FlowEstimate
from ..ops import bilinear_upsampling_kernel, downsample, full_precision, resize, resize_flow, size_of


class Loss(Protocol):
    """See the module."""

    def __call__(
        self, network: nn.Module, frame1: Tensor, frame2: Tensor, truth: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]: ...


def directions(frame1: Tensor, frame2: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The frames from and to which the flows of `truth` go: as they are, or followed by the same the other way round."""
    if len(truth) == len(frame1):
        return frame1, frame2
    return torch.cat((frame1, frame2)), torch.cat((frame2, frame1))


def robust_error(flow: Tensor, truth: Tensor, weight: Tensor, epsilon: float, exponent: float) -> Tensor:
    """Weighted mean of (|flow - truth|^2 + epsilon^2)^(exponent/2).

    Args:
        flow, truth: `(B, 2, H, W)` [px]; weight: `(B, 1, H, W)` in [0, 1].
        epsilon: length below which the error is smooth [px].
        exponent: 1 is the end-point error; less pays more attention to errors that are already small.

    Source: the generalised Charbonnier penalty (Sun, Roth, Black, IJCV 2014).
    """
    squared = (flow - truth).square().sum(dim=1, keepdim=True)
    penalty = (squared + epsilon**2).pow(exponent / 2)
    return (penalty * weight).sum() / weight.sum().clamp_min(1.0)


def reduce_label(truth: Tensor, weight: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Ground truth and weight on a coarser grid: weighted area means; vectors keep their unit."""
    coarse_weight = F.adaptive_avg_pool2d(weight, size)
    coarse = F.adaptive_avg_pool2d(truth * weight, size) / coarse_weight.clamp_min(1e-6)
    return coarse, coarse_weight


def weight_of(estimate: FlowEstimate, level_weights: tuple[float, ...]) -> float:
    """The weight of a level, of those of levels 6 to 2; coarser ones, which large frames may have, weigh what level 6 does."""
    return level_weights[max(COARSEST_LEVEL - estimate.level, 0)]


def check_level_weights(level_weights: tuple[float, ...]) -> None:
    """Refuse weights that would leave levels out.

    Raises:
        InputError: for any number but five.
    """
    if len(level_weights) != 5:
        raise InputError(f"The loss of the LiteFlowNet family takes 5 level_weights, of levels 6 to 2, got {len(level_weights)}.")


@dataclass(frozen=True)
class MultilevelLoss:
    """For the LiteFlowNet family: `robust_error` of M, S and R at every level, and of the last flow at full size.

    Where a level is swept more than once, the earlier sweeps weigh half of what the later do.
    """

    epsilon: float = 0.05  # px
    exponent: float = 0.7
    level_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 2.0, 4.0)  # levels 6 to 2
    full_weight: float = 2.0
    #: Cut gradients where a flow is handed from unit to unit.
    detach: bool = True

    def __post_init__(self):
        check_level_weights(self.level_weights)

    def __call__(self, network, frame1, frame2, truth, weight, **sweeps: int):
        # All frames at once, so that each is looked at once, whichever way its flows go.
        pairs, frames = len(frame1), network.encode(torch.cat((frame1, frame2)), network.mean1)
        second = frames.mapped(lambda x: torch.cat((x[pairs:], x[: len(truth) - pairs])))
        estimates = network.flows(frames.mapped(lambda x: x[: len(truth)]), second, detach=self.detach, **sweeps)
        with full_precision(truth):
            return self.judge(estimates, truth, weight, network.full_size)

    def judge(self, estimates: list[FlowEstimate], truth: Tensor, weight: Tensor, full_size) -> tuple[Tensor, Tensor]:
        """The loss of estimates in internal units, coarsest first, and the last flow at full size [px], which `full_size` gives."""
        total = truth.new_zeros(())
        summed, label_weight, finer = truth * weight, weight, None
        for estimate in reversed(estimates):  # the label of a level is that of the next finer one, reduced
            summed, label_weight = (F.adaptive_avg_pool2d(x, size_of(estimate.last)) for x in (summed, label_weight))
            label, level_weight = summed / label_weight.clamp_min(1e-6), weight_of(estimate, self.level_weights)
            if estimate.level == finer:
                level_weight /= 2
            finer = estimate.level
            for u in estimate.outputs:
                total = total + level_weight * robust_error(u * FLOW_SCALE, label, label_weight, self.epsilon, self.exponent)
        last = full_size(estimates[-1], size_of(truth))
        return total + self.full_weight * robust_error(last, truth, weight, self.epsilon, self.exponent), last


@dataclass(frozen=True)
class PaperLoss:
    """For the LiteFlowNet family as published: a sum over pixels, in units of 20 px, of M, S and R at every level.

    Per flow, with d its distance from the label and B the pairs of a batch: sum of (d^2 + epsilon_squared)^exponent over all
    pixels, over B. A label that does not count leaves the constant epsilon_squared^exponent and no gradient.

    Source: LiteFlowNet2 (TPAMI 2020), sections 4.1 and 5.1, and the training template of LiteFlowNet's release.
    """

    #: 1/2 is the L2 norm of the first training; fine-tuning takes 0.4 (generalised Charbonnier).
    exponent: float = 0.5
    epsilon_squared: float = 0.01  # (20 px)^2
    level_weights: tuple[float, ...] = (0.32, 0.08, 0.02, 0.01, 0.005)  # levels 6 to 2
    #: LiteFlowNet2: weight of the last flow at full size, once the network has reached level 3.
    full_weight: float = 0.0

    def __post_init__(self):
        check_level_weights(self.level_weights)

    def __call__(self, network, frame1, frame2, truth, weight):
        frame1, frame2 = directions(frame1, frame2, truth)
        pyramids = network.encode(frame1, network.mean1), network.encode(frame2, network.mean2)
        estimates = network.flows(*pyramids)
        with full_precision(truth):
            return self.judge(estimates, truth, weight)

    def judge(self, estimates: list[FlowEstimate], truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of estimates in internal units, coarsest first, and the last flow at full size [px]."""
        truth, valid = truth / FLOW_SCALE, weight > 0
        total = truth.new_zeros(())
        for estimate in estimates:
            level_weight = weight_of(estimate, self.level_weights)
            label, known = paper_label(truth, valid, size_of(estimate.last))
            for u in estimate.outputs:
                total = total + level_weight * self.penalty(u, label, known)
        last = estimates[-1].last
        if self.full_weight and estimates[-1].level <= 3:
            total = total + self.full_weight * self.penalty(enlarge(last, 2 ** (estimates[-1].level - 1)), truth, valid)
        return total, resize(last * FLOW_SCALE, size_of(truth))

    def penalty(self, u: Tensor, label: Tensor, known: Tensor) -> Tensor:
        """Sum over pixels, divided by the pairs of the batch."""
        difference = torch.where(known, u - label, 0.0)
        return (difference.square().sum(dim=1) + self.epsilon_squared).pow(self.exponent).sum() / len(u)


def paper_label(truth: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Ground truth on a coarser grid, values unchanged, and where it is known: where at least 2/3 of its weight is.

    Args:
        truth: `(B, 2, H, W)`; valid: `(B, 1, H, W)` bool. The weights are those of `ops.downsample`.
    """
    share = downsample(valid.to(truth.dtype), size)
    label = downsample(torch.where(valid, truth, 0.0), size) / share.clamp_min(1e-6)
    return label, 1.0 - share <= 0.5 * share + 1e-5


def enlarge(u: Tensor, factor: int) -> Tensor:
    """The official bilinear deconvolution of a flow `(B, 2, H, W)` to `factor` times its size; darker at the border."""
    kernel = bilinear_upsampling_kernel(2, factor).to(u)
    return F.conv_transpose2d(u, kernel, stride=factor, padding=factor // 2, groups=2)


@dataclass(frozen=True)
class PyramidLoss:
    """For networks that give one flow per level (FlowNet, SPyNet, PWC-Net): `robust_error` of each, and of the last at full size.

    The levels and their order are those of FlowNet's multi-scale loss (section 3); the penalty is ours.
    """

    #: Pixels of the frame in one unit of the network's flows; 0 where these are in pixels of their own grids.
    unit: float = FLOW_SCALE
    epsilon: float = 0.05  # px
    exponent: float = 0.7
    #: From the coarsest to the finest; a network with fewer flows uses the last ones.
    level_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 2.0, 4.0)
    full_weight: float = 2.0

    def __call__(self, network, frame1, frame2, truth, weight):
        flows = [flow.float() for flow in network.flows(*directions(frame1, frame2, truth))]
        with full_precision(truth):
            return self.judge(flows, truth, weight)

    def judge(self, flows: list[Tensor], truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of flows in the network's unit, coarsest first, and the last one at full size [px]."""
        size = size_of(truth)
        total = truth.new_zeros(())
        for flow, level_weight in zip(flows, self.level_weights[-len(flows) :], strict=True):
            label, label_weight = reduce_label(truth, weight, size_of(flow))
            pixels = flow * (self.unit or size[1] / flow.shape[-1])
            total = total + level_weight * robust_error(pixels, label, label_weight, self.epsilon, self.exponent)
        last = resize_flow(flows[-1] * self.unit, size, unit=size) if self.unit else resize_flow(flows[-1], size)
        return total + self.full_weight * robust_error(last, truth, weight, self.epsilon, self.exponent), last


@dataclass(frozen=True)
class SequenceLoss:
    """For networks that improve one flow step by step: the L1 distance of each, the later the heavier.

    Source: RAFT, equation (7); GMFlow, equation (8); RAFT-Stereo, section 3.4 (its flow is horizontal, and only that part counts).
    """

    #: Weight of each flow relative to its successor.
    gamma: float = 0.8
    #: Updates in training; 0 where the network has no such number.
    iterations: int = 12
    #: Labels longer than this do not count [px].
    longest: float = 400.0
    #: Judge the x part alone: rectified pairs.
    horizontal: bool = False

    def __call__(self, network, frame1, frame2, truth, weight):
        options = {"iterations": self.iterations} if self.iterations else {}
        iterates = network.flows(*directions(frame1, frame2, truth), **options)
        flows = [(iterate.flow if network.traits.accepts_initial_flow else iterate).float() for iterate in iterates]
        with full_precision(truth):
            return self.judge(flows, truth, weight)

    def judge(self, flows: list[Tensor], truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of flows at full size [px], in the order in which they arose, and the last of them."""
        weight = weight * (torch.linalg.vector_norm(truth, dim=1, keepdim=True) < self.longest)
        parts = slice(0, 1 if self.horizontal else 2)
        total = truth.new_zeros(())
        for index, flow in enumerate(flows):
            distance = (flow - truth)[:, parts].abs().sum(dim=1, keepdim=True)
            share = self.gamma ** (len(flows) - 1 - index)
            total = total + share * (distance * weight).sum() / weight.sum().clamp_min(1.0)
        return total, flows[-1]
