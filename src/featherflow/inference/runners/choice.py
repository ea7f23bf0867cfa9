"""Which engine runs a network on frames of one shape, ready to be run."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ...errors import EngineError, FeatherflowError, FileError, InputError
from ...files import full_disk_told
from ...networks import FlowNetwork
from ..few import Few
from ..timing import making_ready
from . import builds, compiled, int8, pytorch
from .graphs import ExportWrapper, deepest
from .identity import identity
from .pytorch import InferenceSpec
from .threads import usable_threads

log = logging.getLogger("featherflow")

Runner = Callable[[Tensor, Tensor], Tensor]

#: Engines that are built and kept, and the package each needs.
_BUILT = {"openvino": "openvino", "onnx": "onnxruntime"}
#: Most that a float32 engine may differ from PyTorch [px].
TOLERANCE = 1e-3
_CHECK_RUNS = 3


class Task:
    """A network, and how it is to be run on frames of one shape. Made for one call: it holds what the network is at that time.

    Args:
        known: the network's identity, where it cannot have changed since it was found out.
        along_stream: PyTorch would know the first frame already, as no other engine does.
    """

    def __init__(self, network: FlowNetwork, spec: InferenceSpec, known: str | None = None, along_stream: bool = False):
        self.network, self.spec, self.along_stream = network, spec, along_stream
        if known is not None:
            self.identity = known

    @cached_property
    def identity(self) -> str:
        return identity(self.network)

    def key(self, engine: str) -> str:
        """Name of the build by an engine."""
        return builds.key(
            engine=engine,
            version=_kind(engine).version(self.spec.dtype),
            torch=torch.__version__,
            network=self.identity,
            shape=list(self.spec.shape),
            traits=repr(self.spec.traits),
            options=repr(self.spec.options),
            enlarge=self.spec.enlarge,
        )

    @property
    def name(self) -> str:
        """Of the network, for people."""
        info = self.network.weights_info
        return type(self.network).__name__ if info is None else info.name


def choose(engine: str, task: Task) -> str:
    """The engine that a name stands for.

    "auto" stands for the fastest engine that has been built for this task on this machine, was found equal to PyTorch to
    `TOLERANCE` and faster than it; without one, for PyTorch.

    Raises:
        InputError: for an engine that does not do what is asked.
    """
    spec = task.spec
    if engine in _BUILT:
        if spec.device.type != "cpu":
            raise InputError(f"The engine {engine} runs on the CPU, not on '{spec.device}'; leave it out or take device='cpu'.")
        known = _kind(engine).DTYPES
        if spec.dtype not in known:
            raise InputError(f"The engine {engine} does not compute in {spec.dtype}; it does in {', '.join(known)}.")
    elif spec.dtype == "int8":
        raise InputError("Only the engine openvino computes in int8; name it (engine='openvino', --engine openvino).")
    chosen = _fastest(task) if engine == "auto" else engine
    _say(task.name, chosen, spec)
    return chosen


def runner(engine: str, task: Task) -> Runner:
    """A function of two batches `(B, 3, H, W)` giving their flow `(B, 2, H, W)` [px]; builds the engine if need be.

    Args:
        engine: as `choose` gives it, other than "torch", for which there is `pytorch.run`.

    Raises:
        MissingExtraError: for one that is not installed. EngineError: for one that cannot run the network.
    """
    with making_ready():
        if engine in _BUILT:
            return _built(engine, task)
        compiled.prepare(task.network, task.spec)
        return partial(compiled.run, task.network, task.spec)


def _kind(engine: str):
    return import_module(f"{__package__}.{engine}")


@lru_cache(maxsize=64)
def _say(name: str, engine: str, spec: InferenceSpec) -> None:
    height, width = spec.shape[-2:]
    log.info("%s runs by the engine %s in %s on %s, frames of %dx%d px", name, engine, spec.dtype, spec.device, width, height)


def _fastest(task: Task) -> str:
    if task.spec.device.type != "cpu" or not builds.folder().is_dir():
        return "torch"
    best, name = 1.0, "torch"
    for engine, package in _BUILT.items():
        if find_spec(package) is None or task.spec.dtype not in _kind(engine).DTYPES:
            continue
        with making_ready():  # its package is imported when it is asked for its version
            key = task.key(engine)
        place = builds.find(key)
        verdict = builds.read(place).get("checks", {}).get(_conditions(task.spec.dtype)) if place is not None else None
        if verdict is None:
            continue
        share = verdict["ms"] / (verdict.get("torch_stream_ms", verdict["torch_ms"]) if task.along_stream else verdict["torch_ms"])
        if share < best:
            best, name = share, engine
    return name


def _conditions(dtype: str) -> str:
    return f"{dtype}, {usable_threads()} threads"


_LOADED: Few[Runner] = Few(8)


def _built(engine: str, task: Task) -> Runner:
    key, threads = task.key(engine), usable_threads()
    return _LOADED.get((key, str(builds.folder()), task.spec.dtype, threads), lambda: _made(engine, task, threads))


def build(engine: str, task: Task) -> Path:
    """The folder of the build by an engine, made if it is not there.

    Raises:
        EngineError, MissingExtraError: as `runner`.
    """
    kind, spec, key = _kind(engine), task.spec, task.key(engine)
    height, width = spec.shape[-2:]

    def make(folder: Path) -> dict:
        log.info("building the engine %s for frames of %dx%d px; this is done once", engine, width, height)
        module = _module(task)
        try:
            with full_disk_told(folder):
                kind.write(module, module.example(spec.shape[0]), folder, spec.dtype)
        except (FeatherflowError, MemoryError, OSError):
            raise
        except Exception as error:  # exporters raise whatever they stumble over
            raise EngineError(f"The engine {engine} cannot run {type(task.network).__name__} ({deepest(error)}).") from error
        version = kind.version(spec.dtype)
        return {"engine": engine, "version": version, "torch": torch.__version__, "shape": list(spec.shape), "checks": {}}

    return builds.build(key, make)


def _module(task: Task) -> ExportWrapper:
    height, width = task.spec.shape[-2:]
    return ExportWrapper(task.network, (height, width), task.spec.options, task.spec.enlarge)


def _made(engine: str, task: Task, threads: int) -> Runner:
    """A build loaded, built before if need be, and compared with PyTorch if it has not been under these conditions."""
    kind, spec = _kind(engine), task.spec
    place = build(engine, task)
    run = kind.load(place, spec.dtype, threads)
    if _conditions(spec.dtype) not in builds.read(place).get("checks", {}):
        check = _check(engine, run, task, _module(task).example(spec.shape[0]))
        try:
            builds.record_check(place, _conditions(spec.dtype), check)
        except FileError as error:  # a cache that others fill, say: the engine is right all the same
            log.warning("the engine %s is compared with PyTorch anew in each process: %s", engine, error)
    return run


def _check(engine: str, run: Runner, task: Task, frames: tuple[Tensor, Tensor]) -> dict:
    """Compare with PyTorch in the same dtype (int8: in float32), in turn: difference and times, also of PyTorch where it knows the
    first frame.

    Raises:
        EngineError: for a float32 engine that differs by more than `TOLERANCE`, or an int8 one by more than `int8.LIMIT`.
    """
    network, spec = pytorch.made_ready(task.network, task.spec.dtype), task.spec
    methods: dict[str, Runner] = {"torch_ms": partial(pytorch.run, network, spec), "ms": run}
    flows = {name: method(*frames) for name, method in methods.items()}
    difference = float((flows["ms"] - flows["torch_ms"]).abs().max())
    if spec.dtype == "float32" and not difference <= TOLERANCE:
        raise EngineError(f"The engine {engine} differs from PyTorch by {difference:.2g} px, more than {TOLERANCE} px; not used.")
    if spec.dtype == "int8":
        int8.check(flows["ms"], flows["torch_ms"])
    if spec.traits.shares_features and pytorch.has_one_mean(network):
        known = pytorch.encode(network, spec, frames[0], 0)
        methods["torch_stream_ms"] = lambda _, frame: pytorch.decode(network, spec, known, pytorch.encode(network, spec, frame, 0))
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(_CHECK_RUNS):
        for name, method in methods.items():
            started = time.perf_counter()
            method(*frames)
            times[name].append(1000 * (time.perf_counter() - started))
    return {"max_difference_px": difference, **{name: statistics.median(values) for name, values in times.items()}}
