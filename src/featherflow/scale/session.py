"""A process with Ray in it: `python -m featherflow.scale.session`, and how it is started and listened to.

When a cluster goes away, Ray ends the process that speaks with it from within, without a word to Python, and it serves a process
once. So each session with Ray has a process of its own. It reads what is to be done from standard input, writes a line of JSON for
each outcome to standard output, and ends with its work, or when standard input does.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module

from ..errors import FeatherflowError, InputError, counted, printable
from ..inference.runners.heap import keep_freed_memory
from .job import Item, ScaleJob
from .work import Outcome, Worker

_OBJECT_STORE = 256 << 20  # bytes on a laptop: what travels is names and outcomes, not frames
_LARGEST_BLOCK = 64  # pairs that a worker is handed at once
_BLOCKS = 256  # of pairs, where there are enough
_MOST_BLOCKS = 10_000  # of clips, which are handed out one by one up to here
_MORE_DEATHS = 2  # of the workers that do a block of items, after the first, before it is given up
_PATIENCE = 60  # s for a cluster to let us in, and for Ray to end

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Workers, and the cluster that they are on; what each means, `featherflow.scale.cluster.run` says."""

    run: str
    address: str = "local"
    cpus: int | None = None
    workers: tuple[int, int | None] = (1, None)
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    verbose: bool = False


class Session:
    """Items done by workers of Ray, in a process of its own, seen from outside."""

    def __init__(self, job: ScaleJob, pool: Pool):
        self.job, self.pool = job, pool
        #: From the start of the workers to the last item of all calls.
        self.seconds = 0.0

    def outcomes(self, items: Mapping[int, Item], alone: bool) -> Iterator[tuple[int, Outcome]]:
        """Number and outcome of items, as they come; of those whose workers died again and again there is none.

        Args:
            alone: hand each worker one item at a time, and the next when that is done; else of pairs blocks, one ahead.

        Raises:
            InputError: for workers that there is no room for. FeatherflowError: for a cluster that does not answer, or is lost.
        """
        with self._process(items, alone) as (process, last_words):
            for line in self._lines(process):
                message = json.loads(line)
                state = message["state"]
                if state == "outcome":
                    yield message["number"], Outcome(**message["outcome"])
                elif state == "joined":
                    continue
                elif state == "note":
                    _log.warning(message["text"])
                elif state == "refused":
                    kind = InputError if message["kind"] == InputError.__name__ else FeatherflowError
                    raise kind(message["text"])
                else:
                    self.seconds += message["seconds"]
                    return
            raise FeatherflowError(
                f"Ray has ended in the middle of the work, or its cluster is gone{last_words()}. "
                "What is done is done; run the same command again."
            )

    def _lines(self, process: subprocess.Popen[str]) -> Iterator[str]:
        """Those that it writes; killed where the first does not come, for Ray itself tries for minutes to join a cluster."""
        assert process.stdout is not None  # as asked for
        late = threading.Event()
        clock = threading.Timer(_PATIENCE, lambda: (late.set(), process.kill()))
        clock.daemon = True
        if self.pool.address != "local":
            clock.start()
        try:
            for line in process.stdout:
                clock.cancel()
                yield line
        finally:
            clock.cancel()
        if late.is_set():
            raise FeatherflowError(f"Ray at '{self.pool.address}' does not answer within {_PATIENCE} s.")

    @contextmanager
    def _process(self, items: Mapping[int, Item], alone: bool) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
        """The process, and a call for the last line that it wrote to standard error."""
        request = {
            "job": self.job.as_dict(),
            "pool": dataclasses.asdict(self.pool),
            "alone": alone,
            "items": [[number, item.as_list()] for number, item in items.items()],
        }
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if self.pool.verbose else said,
                text=True,
                start_new_session=True,  # Ctrl-C reaches the command alone, which ends this one in good order
            )
            assert process.stdin is not None and process.stdout is not None  # as asked for

            def last_words() -> str:
                process.wait()
                said.seek(0)
                lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
                return f" ({printable(lines[-1], 200)})" if lines else ""

            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(request) + "\n")
                    process.stdin.flush()
                yield process, last_words
            finally:
                with suppress(BrokenPipeError):
                    process.stdin.close()
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                process.stdout.close()


def main() -> None:
    """The process itself."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no outcome

    def tell(state: str, **content: object) -> None:
        channel.write(json.dumps({"state": state, **content}) + "\n")
        channel.flush()

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    pool = Pool(**request["pool"])
    try:
        with _cluster(pool, lambda text: tell("note", text=text)):
            tell("joined")
            began = time.perf_counter()
            items = {number: Item.of_list(item) for number, item in request["items"]}
            for number, outcome in _outcomes(items, ScaleJob.of_dict(request["job"]), pool, request["alone"]):
                tell("outcome", number=number, outcome=outcome)
            seconds = time.perf_counter() - began
        tell("end", seconds=seconds)
    except FeatherflowError as error:
        tell("refused", kind=type(error).__name__, text=str(error))
    except KeyboardInterrupt:
        pass
    except Exception as error:  # Ray has errors of many kinds
        tell("refused", kind="", text=f"Ray cannot go on: {type(error).__name__}: {_first_line(error)}.")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that could be interrupted


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not `sys.stdin.read`, whose lock would stand in the way of the end of the process
        pass
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def _cluster(pool: Pool, note: Callable[[str], None]) -> Iterator[None]:
    """Ray for the time of the block.

    Raises:
        FeatherflowError: for a cluster that does not answer. InputError: for workers that this machine has no room for.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    ray = import_module("ray")  # an extra that is not among those for development
    local = pool.address == "local"
    alone = {"num_cpus": pool.cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE} if local else {}
    level = logging.INFO if pool.verbose else logging.ERROR
    try:
        ray.init(address=pool.address, logging_level=level, log_to_driver=pool.verbose, **alone)
    except Exception as error:
        hint = "" if local else "; one with a token wants that, and RAY_AUTH_MODE=token in the environment"
        raise FeatherflowError(f"Ray at '{pool.address}' does not answer: {_first_line(error)}{hint}.") from error
    try:
        _check_room(pool, [node["Resources"] for node in ray.nodes() if node["Alive"]], note)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = pool.verbose
        context.max_errored_blocks = -1  # a block that kills its workers is left out; its items are tried again one by one
        yield
    finally:
        ray.shutdown()


def _check_room(pool: Pool, machines: Sequence[Mapping[str, float]], note: Callable[[str], None]) -> None:
    """Ray would wait without end for a worker that fits nowhere; to a cluster, machines may still come."""
    cpus, gpus = pool.cpus_per_worker, pool.gpus_per_worker
    if not any(machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus for machine in machines):
        wanted = f"{cpus:g} CPU and {gpus:g} GPU for a worker" if gpus else f"{cpus:g} CPU for a worker"
        if pool.address == "local":
            has = f"{machines[0].get('CPU', 0):g} CPU and {machines[0].get('GPU', 0):g} GPU"
            raise InputError(f"There is no room on this machine: {wanted} are asked for, and it has {has}.")
        note(f"No machine of the cluster has {wanted} yet; Ray waits for one.")
    elif pool.address == "local" and (room := int(machines[0].get("CPU", 0) / cpus)) < pool.workers[0]:
        raise InputError(f"There is room for {counted(room, 'worker')} on this machine, and {pool.workers[0]} are asked for.")


def _outcomes(items: Mapping[int, Item], job: ScaleJob, pool: Pool, alone: bool) -> Iterator[tuple[int, Mapping]]:
    ray = import_module("ray")
    pairs = all(item.is_pair(job.verb) for item in items.values())
    size = max(1, min(_LARGEST_BLOCK, len(items) // _BLOCKS) if pairs else math.ceil(len(items) / _MOST_BLOCKS))
    size = 1 if alone else size
    ahead = 2 if pairs and not alone else 1  # a clip takes long, and should wait for the first worker that is free
    blocks = math.ceil(len(items) / size)
    rows = [{"number": number, "item": json.dumps(item.as_list())} for number, item in items.items()]
    fewest, most = pool.workers
    data = ray.data.from_items(rows, override_num_blocks=blocks)
    with warnings.catch_warnings():
        # Ray 2.60 announces that this keyword goes with 2.64, without another; pyproject.toml ends before.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        data = data.map_batches(
            _Actor,
            fn_constructor_args=(job.as_dict(), pool.run, max(int(pool.cpus_per_worker), 1)),
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(
                min_size=min(fewest, blocks), max_size=most and min(most, blocks), max_tasks_in_flight_per_actor=ahead
            ),
            num_cpus=pool.cpus_per_worker,
            num_gpus=pool.gpus_per_worker or None,
            max_task_retries=_MORE_DEATHS,
        )
    for row in data.iter_rows():
        yield int(row["number"]), json.loads(row["outcome"])


class _Actor:
    """`Worker` as Ray Data calls it, with batches of rows."""

    def __init__(self, job: dict, run: str, threads: int):
        import torch

        keep_freed_memory()
        torch.set_num_threads(threads)
        try:
            import cv2

            cv2.setNumThreads(threads)
        except ImportError:
            pass
        self.worker = Worker(ScaleJob.of_dict(job), run)

    def __call__(self, batch: Mapping) -> dict[str, list]:
        outcomes = [self.worker(Item.of_list(json.loads(str(text)))) for text in batch["item"]]
        return {"number": batch["number"], "outcome": [json.dumps(dataclasses.asdict(outcome)) for outcome in outcomes]}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0], 300).rstrip(".") if lines else type(error).__name__


if __name__ == "__main__":
    main()
