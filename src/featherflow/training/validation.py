"""Figures and pictures of a network in training on pairs that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..data import Example
from ..evaluation import Dataset, evaluate
from ..flow import flow_to_rgb
from ..flow.colour import automatic_scale
from ..images import write_image
from ..inference import Estimator
from ..pixels import eight_bits


class Validator:
    """EPE by group of real pairs, and a picture of the first pair of each group.

    Args:
        data: benchmarks as `NAME=ROOT` or `NAME:SPLIT=ROOT`, or folders in the form of `featherflow.evaluation.samples`.
        pictures: folder for `SAMPLES-GROUP.png`: frame 1, the flow and the true flow in the same colours.

    Raises:
        InputError, FileError: at once, for data that is not there or not in that form.
    """

    def __init__(self, data: Sequence[str | Path], device: str | torch.device, pictures: Path | None = None):
        self.datasets = [Dataset.parse(str(text)) if "=" in str(text) else Dataset("samples", Path(text)) for text in data]
        for dataset in self.datasets:
            next(iter(dataset.pairs()), None)
        self.device, self.pictures = str(device), pictures

    def __call__(self, network: torch.nn.Module, samples: int = 0) -> dict[str, float]:
        """End-point errors [px] of the network alone, aggregator `per_image`, after `samples` pairs of training; NaN of a group of
        which nothing is known."""
        method = Estimator(network, dtype="float32", engine="torch", refine=0)
        results = evaluate({"network": method}, self.datasets).results
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            for group, example in self._first_pairs().items():
                drawn = comparison(example, method(example.frame1, example.frame2))
                write_image(self.pictures / f"{samples:09d}-{group}.png", drawn)
        errors = {result.group: result.figures["per_image"]["epe"] for result in results}
        return {group: math.nan if error is None else round(error, 4) for group, error in errors.items()}

    def _first_pairs(self) -> dict[str, Example]:
        first = {}
        for dataset in self.datasets:
            for pair in dataset.pairs():
                if pair.group not in first:
                    first[pair.group] = pair.read()
        return first


def comparison(example: Example, flow: np.ndarray) -> np.ndarray:
    """Frame 1, the flow and the true flow side by side, both flows in the scale of the true one; `(H, 3 W, 3)` uint8."""
    flow_there, valid = example.truth()
    truth = np.where(valid[..., None], flow_there, np.nan)
    scale = automatic_scale(truth)
    return np.concatenate([eight_bits(example.frame1), flow_to_rgb(flow, scale), flow_to_rgb(truth, scale)], axis=1)
