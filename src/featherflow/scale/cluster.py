"""Items over the workers of a Ray cluster, by Ray Data: its actors, their restarts, its back-pressure, its bounds."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from uuid import uuid4

from ..errors import FeatherflowError, InputError
from ..inference import Estimator
from ..inference.settings import EstimationSettings
from ..outputs import check_outputs
from ..weights import default_model
from .items import find_items
from .job import Item, ScaleJob
from .places import absolute, check_extra, joined
from .summary import ItemFailure, ScaleResult
from .verbs import check_options, endings
from .work import RECORD, Outcome, Worker

_OBJECT_STORE = 256 << 20  # bytes on a laptop: what travels is names and outcomes, not frames
_LARGEST_BLOCK = 64  # items that a worker is handed at once
_BLOCKS = 256
_DEATHS = 2  # of the workers that do a block of items, after which it is given up
_LOST = "its worker died each time, for want of memory or by a crash in a library"


def run(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    verb: str = "flow",
    settings: EstimationSettings | None = None,
    options: Mapping[str, object] | None = None,
    address: str | None = None,
    cpus: int | None = None,
    workers: tuple[int, int | None] = (1, None),
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    retries: int = 1,
    verbose: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ScaleResult:
    """Do a verb to every item of a source; what is there already, as asked for and intact, is left.

    Args:
        source: as `featherflow.scale.items.find_items`.
        target: folder to write into, as a path or a URI that fsspec knows; with several machines one that all of them see.
        verb: a name of `featherflow.scale.VERBS`; options: keywords of its function.
        settings: how flow is estimated. Default: `EstimationSettings()`.
        address: of a cluster to join (`host:6379`, `ray://host:10001`, `auto`). Default: that of RAY_ADDRESS, else a cluster of
            this machine alone, for the time of the call.
        cpus: of a cluster of this machine alone, how many it has. Default: all.
        workers: the fewest and the most workers (None: as many as there is room for); Ray grows the pool within these bounds.
        cpus_per_worker, gpus_per_worker: set aside for each worker; a worker computes with as many threads as it has whole CPUs.
            Fractions of a GPU share it.
        retries: how often items that failed are tried again, after all others.
        verbose: show Ray's own progress, and what workers print.
        progress: called with (items done, all items).

    Raises:
        InputError: for what could be done to no item. FileError: for a source that cannot be read or a target that cannot be
            written. MissingExtraError: without the extra `scale`. FeatherflowError: for a cluster that does not answer.
    """
    check_extra()
    _check_pool(workers, cpus_per_worker, gpus_per_worker, retries)
    job = ScaleJob(target=absolute(target), verb=verb, settings=_everywhere(settings), options=dict(options or {}))
    items = find_items(source, verb)
    for pairs in {item.is_pair(verb) for item in items}:
        check_options(verb, job.options, job.settings, pairs)
    _check_places(items, job)
    if job.settings.device in (None, "cpu"):
        Estimator.of(dataclasses.replace(job.settings, device="cpu"))  # a model that cannot be made is told before Ray starts
    pool = _Pool(job, workers, cpus_per_worker, gpus_per_worker)
    return _run(items, pool, lambda: _cluster(address, cpus, verbose), retries, progress)


def _run(
    items: Sequence[Item],
    pool: _Pool,
    cluster: Callable[[], AbstractContextManager],
    retries: int,
    progress: Callable[[int, int], None] | None,
) -> ScaleResult:
    """All items, then those that were lost or failed again, and so on; each time in a session of Ray of its own.

    A worker that died is started anew even where nothing is left for it, and would hold its CPUs until its session ends.
    """
    result = ScaleResult(len(items), cpus_per_worker=pool.cpus)
    workers: set[str] = set()
    waiting = list(range(len(items)))
    attempts, alone = 0, False
    while waiting:
        attempts += 1
        unseen, errors = set(waiting), {}
        with cluster():
            began = time.perf_counter()
            for number, outcome in pool.outcomes(items, waiting, alone):
                if number not in unseen:
                    continue
                unseen.discard(number)
                workers.add(outcome.worker)
                if outcome.status == "failed":
                    errors[number] = outcome.error or ""
                    continue
                result.done += outcome.status == "done"
                result.skipped += outcome.status == "skipped"
                if outcome.status == "done":
                    result.frames += outcome.frames
                    result.work_seconds += outcome.seconds
                if progress:
                    progress(result.done + result.skipped, len(items))
            result.seconds += time.perf_counter() - began
        waiting = sorted([*errors, *unseen])
        if attempts > retries and (alone or not unseen):
            break
        alone = True  # so that an item that kills its worker takes no other with it
    result.failures = [ItemFailure(items[number].name, errors.get(number, _LOST), attempts) for number in waiting]
    result.workers = sorted(workers)
    return result


class _Pool:
    """Workers of Ray Data."""

    def __init__(self, job: ScaleJob, workers: tuple[int, int | None], cpus: float, gpus: float):
        self.job, self.workers, self.cpus, self.gpus, self.run = job, workers, cpus, gpus, uuid4().hex

    def outcomes(self, items: Sequence[Item], numbers: Sequence[int], alone: bool) -> Iterator[tuple[int, Outcome]]:
        """Number and outcome of items, as they come; of those whose workers died again and again there is none.

        Args:
            alone: hand each worker one item at a time, and the next when that is done; else blocks of them, one ahead.
        """
        ray = import_module("ray")  # an extra that is not among those for development
        size = 1 if alone else max(1, min(_LARGEST_BLOCK, len(numbers) // _BLOCKS))
        rows = [{"number": n, "item": json.dumps([items[n].sources, items[n].name])} for n in numbers]
        fewest, most = self.workers
        data = ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / size))
        with warnings.catch_warnings():
            # Ray 2.60 announces that this keyword goes with 2.64, without another; pyproject.toml ends before.
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            data = data.map_batches(
                _Actor,
                fn_constructor_args=(self.job.as_dict(), self.run, max(int(self.cpus), 1)),
                batch_size=size,
                compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=1 if alone else 2),
                num_cpus=self.cpus,
                num_gpus=self.gpus or None,
                max_task_retries=_DEATHS,
            )
        for row in data.iter_rows():
            yield int(row["number"]), Outcome(**json.loads(row["outcome"]))


class _Actor:
    """`Worker` as Ray Data calls it, with batches of rows."""

    def __init__(self, job: dict, run: str, threads: int):
        import torch

        torch.set_num_threads(threads)
        try:
            import cv2

            cv2.setNumThreads(threads)
        except ImportError:
            pass
        self.worker = Worker(ScaleJob.of_dict(job), run)

    def __call__(self, batch: Mapping) -> dict[str, list]:
        items = [json.loads(str(text)) for text in batch["item"]]
        outcomes = [self.worker(Item(tuple(sources), name)) for sources, name in items]
        return {"number": batch["number"], "outcome": [json.dumps(dataclasses.asdict(outcome)) for outcome in outcomes]}


@contextmanager
def _cluster(address: str | None, cpus: int | None, verbose: bool) -> Iterator[None]:
    """Ray for the time of the block.

    Raises:
        FeatherflowError: for a cluster that does not answer, and where this process uses Ray already.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ part speaks past the logging of Python
    ray = import_module("ray")
    if ray.is_initialized():
        raise FeatherflowError("This process uses Ray already; end that with ray.shutdown(), or run in a process of its own.")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    local = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE} if address == "local" else {}
    level = logging.INFO if verbose else logging.ERROR
    try:
        ray.init(address=address, logging_level=level, log_to_driver=verbose, **local)
    except Exception as error:
        ray.shutdown()
        raise FeatherflowError(f"Ray at '{address}' does not answer: {error}") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(level)
    context = ray.data.DataContext.get_current()
    before = {name: getattr(context, name) for name in ("enable_progress_bars", "print_on_execution_start", "max_errored_blocks")}
    context.enable_progress_bars = context.print_on_execution_start = verbose
    context.max_errored_blocks = -1  # a block that kills its workers is left out; its items are tried again one by one
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        ray.shutdown()


def _everywhere(settings: EstimationSettings | None) -> EstimationSettings:
    """The same on every machine: the model by its name, the weights by their path from the root."""
    settings = settings or EstimationSettings()
    weights = None if settings.weights is None else str(Path(settings.weights).absolute())
    return dataclasses.replace(settings, model=settings.model or default_model(), weights=weights)


def _check_pool(workers: tuple[int, int | None], cpus: float, gpus: float, retries: int) -> None:
    fewest, most = workers
    if fewest < 1 or (most is not None and most < fewest):
        raise InputError(f"The number of workers is bounded by FEWEST:MOST, 1 or more each, got {fewest}:{most}.")
    if not cpus > 0 or (cpus > 1 and cpus % 1):
        raise InputError(f"A worker has a fraction of a CPU or a whole number of them, got {cpus}.")
    if gpus < 0 or (gpus > 1 and gpus % 1):
        raise InputError(f"A worker has a fraction of a GPU or a whole number of them, got {gpus}.")
    if retries < 0:
        raise InputError(f"Items are tried again 0 times or more, got {retries}.")


def _check_places(items: Sequence[Item], job: ScaleJob) -> None:
    """Refuse a target in which results would take the place of sources, or of each other."""
    made = endings(job.verb, job.options)
    sources = {source for item in items for source in item.sources}
    for item in items:
        written = joined(job.target, item.name + made[0])
        if written in sources or any(source.rpartition("/")[0] == written for source in item.sources):
            raise InputError(f"What is made of '{item.name}' would be written over what is read; name another folder.")
    if "://" in job.target:
        return
    folders = sorted({source.rpartition("/")[0] for item in items for source in item.sources if "://" not in source})
    check_outputs(
        [
            (f"what is made of '{item.name}'", joined(job.target, item.name + ending))
            for item in items
            for ending in (*made, RECORD)
        ],
        sources,
        overwrite=None,
        sequences=folders,
        makes_folders=True,
    )
