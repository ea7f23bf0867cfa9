"""A verb done to every item of a source by workers of Ray: what is checked before, what is tried again, what is told after."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from ..errors import FeatherflowError, InputError
from ..images import IMAGE_SUFFIXES
from ..inference import Estimator
from ..inference.settings import EstimationSettings
from ..outputs import check_outputs
from ..weights import default_model
from .items import find_items
from .job import Item, ScaleJob
from .places import absolute, check_extra, joined
from .session import Pool, Session
from .spans import in_spans
from .summary import ItemFailure, ScaleResult
from .verbs import check_options, endings
from .work import RECORD

_LOST = "its worker died each time, for want of memory or by a crash in a library"
_SELECTING = {"start", "end", "stride", "fps"}  # options of clips that spans take the place of
_PATIENCE = 10  # s for a cluster to take a call


def run(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    verb: str = "flow",
    settings: EstimationSettings | None = None,
    options: Mapping[str, object] | None = None,
    span: int | None = None,
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
        span: of the verb flow, cut videos into items of about so many seconds. Default: a clip is one item.
        address: of a cluster to join, from one of its machines (`host:6379`, `auto`). Default: that of RAY_ADDRESS, else a cluster
            of this machine alone, for the time of the call.
        cpus: of a cluster of this machine alone, how many it has. Default: all.
        workers: the fewest and the most workers (None: as many as there is room for); Ray grows the pool within these bounds.
        cpus_per_worker, gpus_per_worker: set aside for each worker; a worker computes with as many threads as it has whole CPUs.
            Fractions of a GPU share it; without any, workers compute on the CPU.
        retries: how often items that failed are tried again, after all others.
        verbose: show Ray's own progress, and what workers print.
        progress: called with (items done, all items).

    Raises:
        InputError: for what could be done to no item. FileError: for a source that cannot be read or a target that cannot be
            written. MissingExtraError: without the extra `scale`. FeatherflowError: for a cluster that does not answer or is lost.
    """
    check_extra()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_pool(address, cpus, workers, cpus_per_worker, gpus_per_worker, retries)
    settings = _everywhere(settings, gpus_per_worker)
    job = ScaleJob(target=absolute(target), verb=verb, settings=settings, options=dict(options or {}))
    _check_span(span, job)
    items = find_items(source, verb)
    items = in_spans(items, span) if span is not None else items
    possible = [item for item in items if item.fault is None]
    for pairs in {item.is_pair(verb) for item in possible}:
        check_options(verb, job.options, job.settings, pairs)
    _check_places(possible, job)
    Estimator.of(dataclasses.replace(settings, device="cpu"))  # a model that cannot be made is told before Ray starts
    _check_answers(address)
    pool = Pool(
        run=uuid4().hex,
        address=address,
        cpus=cpus,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        verbose=verbose,
    )
    return _run(items, Session(job, pool), retries, progress)


def _run(items: Sequence[Item], session: Session, retries: int, progress: Callable[[int, int], None] | None) -> ScaleResult:
    """All items, then those that were lost or failed again, and so on; each time in a session of Ray of its own.

    A worker that died is started anew even where nothing is left for it, and would hold its CPUs until its session ends.
    """
    result = ScaleResult(len(items), cpus_per_worker=session.pool.cpus_per_worker)
    result.failures = [ItemFailure(item.name, item.fault, 0) for item in items if item.fault is not None]
    workers: set[str] = set()
    waiting = {number: item for number, item in enumerate(items) if item.fault is None}
    errors: dict[int, str] = {}
    attempts, alone = 0, False
    while waiting:
        attempts += 1
        unseen, errors = set(waiting), {}
        for number, outcome in session.outcomes(waiting, alone):
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
        waiting = {number: item for number, item in waiting.items() if number in errors or number in unseen}
        if attempts > retries and (alone or not unseen):
            break
        alone = True  # so that an item that kills its worker takes no other with it
    result.failures += [ItemFailure(item.name, errors.get(number, _LOST), attempts) for number, item in waiting.items()]
    result.seconds = session.seconds
    result.workers = sorted(workers)
    return result


def _everywhere(settings: EstimationSettings | None, gpus: float) -> EstimationSettings:
    """The same on every machine: the model by its name, the weights by a path from the root, the device by what is set aside."""
    settings = settings or EstimationSettings()
    weights = None if settings.weights is None else str(Path(settings.weights).absolute())
    device = settings.device or ("cuda" if gpus else "cpu")
    if device != "cpu" and not gpus:
        raise InputError(f"For workers on '{device}', say how much of a GPU each has, e.g. --gpus-per-worker 1.")
    return dataclasses.replace(settings, model=settings.model or default_model(), weights=weights, device=device)


def _check_pool(
    address: str, own_cpus: int | None, workers: tuple[int, int | None], cpus: float, gpus: float, retries: int
) -> None:
    fewest, most = workers
    if address.startswith("ray://"):
        raise InputError("Ray Data does not work through ray://; run the command on a machine of the cluster, with address auto.")
    if own_cpus is not None and address != "local":
        raise InputError(f"A number of CPUs is for a cluster of this machine alone; that at '{address}' has its own.")
    if own_cpus is not None and own_cpus < 1:
        raise InputError(f"A cluster of this machine has 1 CPU or more, got {own_cpus}.")
    if fewest < 1 or (most is not None and most < fewest):
        raise InputError(f"The number of workers is bounded by FEWEST:MOST, 1 or more each, got {fewest}:{most}.")
    if not cpus > 0 or (cpus > 1 and cpus % 1):
        raise InputError(f"A worker has a fraction of a CPU or a whole number of them, got {cpus}.")
    if not gpus >= 0 or (gpus > 1 and gpus % 1):
        raise InputError(f"A worker has a fraction of a GPU or a whole number of them, got {gpus}.")
    if retries < 0:
        raise InputError(f"Items are tried again 0 times or more, got {retries}.")


def _check_span(span: int | None, job: ScaleJob) -> None:
    if span is None:
        return
    if span < 1:
        raise InputError(f"A span is a whole number of seconds, 1 or more, got {span}.")
    if job.verb != "flow":
        raise InputError(f"Spans are for the verb flow; what {job.verb} makes of a clip is one file.")
    if taken := sorted(job.options.keys() & _SELECTING):
        raise InputError(f"With spans, every frame of a clip is taken; leave the option {taken[0]} out.")


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FeatherflowError(f"Ray at '{address}' does not answer: {reason.lower()}.") from None


def _check_places(items: Sequence[Item], job: ScaleJob) -> None:
    """Refuse a target in which results would take the place of sources, or of each other."""
    kinds = {item.is_pair(job.verb) for item in items}
    ends_of = {pairs: [*endings(job.verb, job.options, job.settings, pairs), RECORD] for pairs in kinds}
    made = {item.name: ends_of[item.is_pair(job.verb)] for item in items}
    twice = [name for name, count in Counter(name + end for name, ends in made.items() for end in ends).items() if count > 1]
    if twice:
        raise InputError(f"'{twice[0]}' would be made of two items, once over the other; give them names of their own in a list.")
    sources = {source for item in items for source in item.sources}
    folders = {source.rpartition("/")[0] for source in sources}
    for name, ends in made.items():
        for end in ends:
            place = joined(job.target, name + end)
            joins_frames = place.lower().endswith(IMAGE_SUFFIXES) and place.rpartition("/")[0] in folders
            if place in sources or joins_frames:
                raise InputError(f"What is made of '{name}' would be written over what is read; name another folder.")
    if "://" not in job.target:
        check_outputs(
            [(f"what is made of '{name}'", joined(job.target, name + end)) for name, ends in made.items() for end in ends],
            sources,
            overwrite=None,
            sequences=sorted(folder for folder in folders if "://" not in folder),
            makes_folders=True,
        )
