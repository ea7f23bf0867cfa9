"""Endless streams of training batches: rendered, or read from benchmarks. Each part of each step is a function of the seed and
its numbers alone, so that a run that was stopped sees what it would have seen, on any number of threads or machines.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch

from featherflow.data.augmentation import Augmentation, centre_crop, gather_sources
from featherflow.data.benchmarks import BENCHMARKS, Example, Pair, find_pairs
from featherflow.data.procedural import PairBatch, SceneConfig, render_pairs
from featherflow.data.textures import TextureBank
from featherflow.errors import InputError

AHEAD = 2
"""Steps whose pairs are decoded in advance."""

_TRAINING_SPLITS = ("train", "training", "all")


class RenderedPairs:
    """Procedural pairs, rendered when asked for, on the device.

    Args:
        both_ways: give the backward flow too; a pair then counts as two of a batch.
    """

    def __init__(
        self,
        scene: SceneConfig,
        textures: TextureBank | None,
        seed: int,
        device: torch.device | str = "cpu",
        both_ways: bool = False,
    ):
        self.scene, self.textures, self.seed, self.device = scene, textures, seed, torch.device(device)
        self.both_ways = both_ways

    def part(self, step: int, index: int, parts: int, batch: int, iteration: int) -> PairBatch:
        """Part `index` of the `parts` of a step's batch."""
        generator = torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + step) * parts + index)
        pairs = batch // parts // (2 if self.both_ways else 1)
        return render_pairs(pairs, self.scene, self.textures, generator, str(self.device), backward=self.both_ways)


class ReadPairs:
    """Pairs of benchmarks, decoded ahead by threads, shuffled anew in each epoch, augmented to crops of one size.

    Args:
        pools: sets that share each batch evenly; pair j of a run comes from pool j modulo their number.
        size: (height, width) of the crops [px].
        augmentation: None for plain centre crops.
        threads: how many decode.

    Nothing but the pairs of the next steps is in memory.
    """

    def __init__(
        self,
        pools: Sequence[Sequence[Pair]],
        size: tuple[int, int],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        threads: int = 4,
    ):
        if not pools or not all(pools):
            raise InputError("A stream of pairs needs at least one pair in each of its sets.")
        self.pools, self.size, self.augmentation = [list(pool) for pool in pools], size, augmentation
        self.seed, self.device = seed, torch.device(device)
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.waiting: dict[int, Future[Example]] = {}
        self.lock = threading.Lock()

    def part(self, step: int, index: int, parts: int, batch: int, iteration: int) -> PairBatch:
        """Part `index` of the `parts` of a step's batch.

        Raises:
            FileError: naming a file that is missing or broken.
        """
        count = batch // parts
        with self.lock:
            for later in range(AHEAD + 1):
                for number in self._numbers(step + later, index, count, batch):
                    if number not in self.waiting:
                        self.waiting[number] = self.threads.submit(self.pair(number).read)
            wanted = [self.waiting.pop(number) for number in self._numbers(step, index, count, batch)]
        sources = gather_sources([future.result() for future in wanted], self.device)
        if self.augmentation is None:
            return centre_crop(sources, self.size)
        generator = torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + step) * parts + index)
        return self.augmentation(sources, self.size, generator, iteration)

    def pair(self, number: int) -> Pair:
        """Pair `number` of the stream, counted from 0."""
        pool = number % len(self.pools)
        epoch, position = divmod(number // len(self.pools), len(self.pools[pool]))
        return self.pools[pool][_order(self.seed, epoch, pool, len(self.pools[pool]))[position]]

    @staticmethod
    def _numbers(step: int, index: int, count: int, batch: int) -> range:
        first = step * batch + index * count
        return range(first, first + count)


@lru_cache(maxsize=16)
def _order(seed: int, epoch: int, pool: int, length: int) -> list[int]:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 1_000 + pool)
    return torch.randperm(length, generator=generator).tolist()


def find_pools(data: Mapping[str, str | os.PathLike[str]], shares: Sequence[Sequence[str]] = ()) -> list[list[Pair]]:
    """Training pairs of benchmarks, in the sets that share a batch.

    Args:
        data: folders by benchmark, "flyingchairs" or with a split of choice "flyingchairs:all".
        shares: names of benchmarks that make one set together; each that is in none is a set of its own.

    Raises:
        InputError, FileError: as `find_pairs`; for a split without ground truth too.
    """
    found = {}
    for kind, root in data.items():
        name, _, split = kind.partition(":")
        if name in BENCHMARKS and not split:
            split = next((split for split in _TRAINING_SPLITS if split in BENCHMARKS[name].splits), None)
            if split is None:
                raise InputError(f"'{name}' is for judging what was trained, not for training; it has no pairs for that.")
        pairs = list(find_pairs(name, Path(root), split))
        if any(pair.flow is None for pair in pairs):
            raise InputError(f"Split '{split}' of '{name}' has no public ground truth to train on.")
        found.setdefault(name, []).extend(pairs)
    together = [[name for name in share if name in found] for share in shares]
    alone = [[name] for name in found if not any(name in share for share in shares)]
    return [[pair for name in share for pair in found[name]] for share in (*together, *alone) if share]
