"""Several methods on the same real pairs, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..flow import FlowMetrics
from .samples import Sample

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """End-point errors [px] by method and group; aggregator `per_image`: the mean over pairs of each pair's mean."""

    epe: dict[str, dict[str, float]]
    pairs: dict[str, int]


def compare(
    methods: dict[str, Method], samples: Sequence[Sample], progress: Callable[[int, int], None] | None = None
) -> Comparison:
    """Run each method on each pair.

    Args:
        methods: name to a function of two frames `(H, W, 3)` uint8 RGB giving flow `(H, W, 2)` [px].
        progress: called with (pairs done, pairs in all).
    """
    metrics: dict[str, dict[str, FlowMetrics]] = {name: {} for name in methods}
    pairs: dict[str, int] = {}
    for index, sample in enumerate(samples):
        if progress:
            progress(index, len(samples))
        frame1, frame2, truth, valid = sample.read()
        pairs[sample.group] = pairs.get(sample.group, 0) + 1
        for name, method in methods.items():
            metrics[name].setdefault(sample.group, FlowMetrics()).update(method(frame1, frame2), truth, valid)
    return Comparison(
        {name: {group: m.result().per_image.epe for group, m in groups.items()} for name, groups in metrics.items()}, pairs
    )


def markdown_table(comparison: Comparison) -> str:
    """One row per method, one column per group."""
    groups = list(comparison.pairs)
    header = ["EPE [px], per_image", *(f"{group} ({comparison.pairs[group]})" for group in groups)]
    rows = [[name, *(f"{figures[group]:.2f}" for group in groups)] for name, figures in comparison.epe.items()]
    lines = [header, ["---"] + ["---:"] * len(groups), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
