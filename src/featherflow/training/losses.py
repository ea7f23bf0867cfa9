"""What training minimises: a robust end-point error at every level, on the output of every unit."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..networks.liteflownet import FLOW_SCALE, FlowEstimate
from ..ops import resize


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


def multilevel_loss(
    estimates: list[FlowEstimate],
    truth: Tensor,
    weight: Tensor,
    level_weights: dict[int, float],
    full_weight: float,
    epsilon: float = 0.05,
    exponent: float = 0.7,
) -> Tensor:
    """Sum over levels and units of `robust_error`, plus one term for the last flow enlarged to the frame.

    Args:
        estimates: of all levels, in internal units.
        truth: `(B, 2, H, W)` [px of the frame]; weight: `(B, 1, H, W)`, 0 where the label does not count.
        level_weights: weight of each unit's error by level; full_weight: weight of the full-resolution term.
    """
    total = truth.new_zeros(())
    for estimate in estimates:
        label, label_weight = reduce_label(truth, weight, estimate.last.shape[-2:])
        for u in estimate.outputs:
            error = robust_error(u * FLOW_SCALE, label, label_weight, epsilon, exponent)
            total = total + level_weights[estimate.level] * error
    last = resize(estimates[-1].last * FLOW_SCALE, truth.shape[-2:])
    return total + full_weight * robust_error(last, truth, weight, epsilon, exponent)
