"""Several methods on several benchmarks: every figure, time and memory."""

from __future__ import annotations

import itertools
import logging
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.benchmarks import BENCHMARKS, Example, Pair, find_pairs
from ..errors import InputError
from ..inference import estimate
from .figures import AGGREGATORS, FIGURES, GroupFigures, figure_keys
from .memory import PeakMemory
from .samples import find_samples

#: Two frames `(H, W, 3)` RGB, uint8 or float32 in [0, 1], to flow `(H, W, 2)` [px].
Method = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: The benchmark name for a mixed folder of a few pairs, see `featherflow.evaluation.samples`.
SAMPLES = "samples"

#: Told of every flow as it is found: method, pair, what was read of it, flow, its mean end-point error [px] (NaN if unknown).
Watcher = Callable[[str, Pair, Example, np.ndarray, float], None]

_WARM_UP_PIXELS = 128

_log = logging.getLogger(__name__)


def method_named(text: str, device: str | None = None, dtype: str = "float32") -> Method:
    """`NAME`, or `NAME+N` with N steps of variational refinement, as a function of two frames.

    Args:
        device, dtype: as `featherflow.estimate`.

    Raises:
        InputError: if what stands behind the plus is no number of steps.
    """
    name, steps = parse_refined(text)
    settings: dict[str, Any] = {"device": device, "dtype": dtype, "refine": steps}

    def method(frame1: np.ndarray, frame2: np.ndarray) -> np.ndarray:
        return estimate(frame1, frame2, name, **settings)

    return method  # the network is loaded when it is its turn


def parse_refined(text: str) -> tuple[str, int]:
    """`NAME` or `NAME+N`: the name of a model, and how many steps of variational refinement follow it.

    Raises:
        InputError: if what stands behind the plus is no number of steps.
    """
    name, plus, steps = text.rpartition("+") if "+" in text else (text, "", "0")
    if not name or not steps.isdecimal() or (plus and int(steps) < 1):
        raise InputError(f"'{text}' must be NAME or NAME+N, with N steps of refinement, e.g. dis+3.")
    return name, int(steps)


@dataclass(frozen=True)
class Dataset:
    """A benchmark where it lies. `split` None: its first."""

    name: str
    root: Path
    split: str | None = None

    @classmethod
    def parse(cls, text: str) -> Dataset:
        """`NAME=ROOT` or `NAME:SPLIT=ROOT`, e.g. "flyingchairs:all=FlyingChairs_release".

        Raises:
            InputError: for another form, or an unknown name or split.
        """
        name, equals, root = text.partition("=")
        name, _, split = name.partition(":")
        if not equals or not name or not root:
            raise InputError(f"'{text}' must be NAME=ROOT or NAME:SPLIT=ROOT, e.g. sintel=MPI-Sintel.")
        if name != SAMPLES and name not in BENCHMARKS:
            raise InputError(f"There is no benchmark named '{name}'; known are {', '.join([*BENCHMARKS, SAMPLES])}.")
        if split and (name == SAMPLES or split not in BENCHMARKS[name].splits):
            raise InputError(f"'{name}' has no split '{split}'.")
        return cls(name, Path(root), split or None)

    @property
    def part(self) -> str:
        """The split that is meant."""
        return "mixed" if self.name == SAMPLES else self.split or BENCHMARKS[self.name].splits[0]

    def pairs(self) -> Iterator[Pair]:
        """Its pairs, see `find_pairs`."""
        if self.name != SAMPLES:
            return find_pairs(self.name, self.root, self.split)
        return iter([_sample_pair(sample) for sample in find_samples(self.root)])


def _sample_pair(sample) -> Pair:
    masks = {}
    if sample.group.startswith("sintel") and sample.invalid is not None and sample.invalid.exists():
        masks = {"invalid": sample.invalid, "occlusion": sample.flow.parents[1] / "occlusions" / sample.invalid.name}
    noc = sample.flow.parents[1] / "flow_noc" / sample.flow.name
    if sample.group == "kitti2015" and noc.exists():
        masks = {"flow_noc": noc}
    # Of KITTI 2012, samples hold the non-occluded truth only, and no figure over it may pass for one over all pixels.
    group = "kitti2012-noc" if sample.group == "kitti2012" and sample.flow.parent.name == "flow_noc" else sample.group
    return Pair(group, sample.name, sample.frame1, sample.frame2, sample.flow, **masks)


@dataclass(frozen=True)
class GroupResult:
    """One method on one group of pairs."""

    model: str
    group: str
    #: Pairs whose truth knows at least one pixel.
    pairs: int
    pixels: int
    #: Aggregator, then key of `FIGURES`, to value.
    figures: dict[str, dict[str, float | None]]
    #: Name of the pair to its own common figures; None without a known pixel.
    each: dict[str, dict[str, float] | None]
    #: Median time of one pair, without reading [ms].
    ms: float


@dataclass(frozen=True)
class ModelCost:
    """`peak_rss_mib`: most memory the process held while the method ran; `own_peak`: not that of earlier methods."""

    peak_rss_mib: float | None
    own_peak: bool


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; figures depend on data and weights alone, times and memory on the machine."""

    models: tuple[str, ...]
    groups: tuple[str, ...]
    results: tuple[GroupResult, ...]
    costs: dict[str, ModelCost]

    def result(self, model: str, group: str) -> GroupResult:
        """The result of a method on a group.

        Raises:
            KeyError: if there is none.
        """
        for result in self.results:
            if (result.model, result.group) == (model, group):
                return result
        raise KeyError((model, group))

    def as_dict(self) -> dict:
        """Plain dictionaries, ready for JSON; what differs from run to run stands under "cost"."""
        return {
            "aggregators": list(AGGREGATORS),
            "units": {key: figure.unit for key, figure in FIGURES.items()},
            "results": [
                {"model": r.model, "group": r.group, "pairs": r.pairs, "pixels": r.pixels, **r.figures, "each": r.each}
                for r in self.results
            ],
            "cost": {
                model: {
                    "peak_rss_mib": cost.peak_rss_mib,
                    "own_peak": cost.own_peak,
                    "ms_per_pair": {r.group: r.ms for r in self.results if r.model == model},
                }
                for model, cost in self.costs.items()
            },
        }


def evaluate(
    methods: Mapping[str, Method],
    datasets: Sequence[Dataset],
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    groups: Collection[str] | None = None,
    watch: Watcher | None = None,
) -> Evaluation:
    """Run each method on each pair. One pair is in memory at a time.

    Args:
        limit: take only the first so many pairs of each group.
        progress: called with (pairs done, pairs in all), counting each method's.
        groups: take only these groups, e.g. "sintel-clean"; default all.
        watch: called with each flow; one method after another, in the order of `methods`.

    Raises:
        InputError, FileError: as `find_pairs`, `Pair.read` and the methods do; InputError if two data sets have one group.
    """
    if not methods or not datasets:
        raise InputError("Name at least one method and one data set.")
    kept = {group: pairs for group, pairs in _grouped(datasets, limit).items() if groups is None or group in groups}
    if not kept:
        raise InputError(f"The data holds no pair of {' or '.join(groups or ('any group',))}.")
    total, done = sum(map(len, kept.values())) * len(methods), 0
    results: list[GroupResult] = []
    costs: dict[str, ModelCost] = {}
    for model, method in methods.items():
        _warm_up(method, next(iter(kept.values()))[0])
        memory = PeakMemory()
        memory.start()
        for group, pairs in kept.items():
            figures, times = GroupFigures(group), []
            for pair in pairs:
                if progress:
                    progress(done, total)
                example = pair.read()
                started = time.perf_counter()
                flow = method(example.frame1, example.frame2)
                times.append(1000 * (time.perf_counter() - started))
                error = figures.update(flow, example, pair.name)
                if math.isnan(error) and model == next(iter(methods)):
                    _log.warning("note: '%s' says of no pixel how it moves; the pair does not count.", pair.flow)
                if watch:
                    watch(model, pair, example, flow, error)
                done += 1
            each = figures.each()
            known = sum(own is not None for own in each.values())
            results.append(GroupResult(model, group, known, figures.pixels(), figures.figures(), each, statistics.median(times)))
        costs[model] = ModelCost(memory.mib(), memory.own)
    if progress:
        progress(total, total)
    return Evaluation(tuple(methods), tuple(kept), tuple(results), costs)


def group_sizes(datasets: Sequence[Dataset], limit: int | None = None) -> dict[str, int]:
    """Group to number of its pairs."""
    return {group: len(pairs) for group, pairs in _grouped(datasets, limit).items()}


def _grouped(datasets: Sequence[Dataset], limit: int | None) -> dict[str, list[Pair]]:
    if limit is not None and limit < 1:
        raise InputError(f"A limit of pairs is at least 1, got {limit}.")
    groups: dict[str, list[Pair]] = {}
    for dataset in datasets:
        found = sorted(dataset.pairs(), key=lambda pair: pair.group)  # stable: the names' order stays
        for group, pairs in itertools.groupby(found, key=lambda pair: pair.group):
            if group in groups:
                raise InputError(f"Two data sets hold pairs of {group}; name each benchmark once.")
            groups[group] = list(itertools.islice(pairs, limit))
    missing = next((pair for pairs in groups.values() for pair in pairs if pair.flow is None), None)
    if missing is not None:
        raise InputError(f"The ground truth of {missing.group} {missing.name} is not public; take a split that has one.")
    return groups


def _warm_up(method: Method, pair: Pair) -> None:
    """Load what the method loads on its first call, so that no pair's time holds it."""
    example, side = pair.read(), _WARM_UP_PIXELS
    method(*(np.ascontiguousarray(frame[:side, :side]) for frame in (example.frame1, example.frame2)))


def columns(evaluation: Evaluation, group: str) -> list[str]:
    """Keys of the figures that at least one method has on a group, in the order of its table."""
    results = [result for result in evaluation.results if result.group == group]
    return [key for key in figure_keys(group) if any(r.figures[name][key] is not None for r in results for name in AGGREGATORS)]
