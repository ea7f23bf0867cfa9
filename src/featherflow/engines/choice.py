"""Which engine runs a network on frames of one size."""

from __future__ import annotations

import logging
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import EngineError, InputError, MissingExtraError
from ..estimation import run_network
from . import ENGINES, builds, int8
from .graphs import Portable, deepest, fingerprint

log = logging.getLogger("featherflow")

Runner = Callable[[Tensor, Tensor], Tensor]

#: Engines that are built and kept, and the package each needs.
_BUILT = {"openvino": "openvino", "onnx": "onnxruntime"}
#: Most that a float32 engine may differ from PyTorch [px].
TOLERANCE = 1e-3
#: Networks whose end-point errors on real pairs were measured to grow by less than 1 % in bfloat16 (docs/speed.md), with weights
#: of the modern recipes, which train in it.
BFLOAT16_MEASURED = frozenset({"liteflownet2-slim", "liteflownet2", "liteflownet", "liteflownetx"})
_CHECK_RUNS = 3


def usual_dtype(network: nn.Module, device: torch.device) -> str:
    """What `dtype="auto"` stands for: bfloat16 where the CPU computes in it and its cost in accuracy was measured, else float32."""
    info = getattr(network, "weights_info", None)
    measured = info is not None and info.architecture in BFLOAT16_MEASURED and info.recipe.startswith("modern/")
    return "bfloat16" if measured and device.type == "cpu" and cpu_has_bfloat16() else "float32"


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX512-BF16 or AMX) and PyTorch uses it; others only imitate it, slowly."""
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.backends.mkldnn.is_available() and any(check() for check in checks if check is not None)


@dataclass(frozen=True)
class Work:
    """What an engine is to do: a network on batches of frames of one shape `(B, 3, H, W)`, in one dtype, on one device."""

    network: nn.Module
    shape: tuple[int, ...]
    device: torch.device
    dtype: str
    iterations: int | None = None
    enlarge: float = 1.0

    def by_pytorch(self, first: Tensor, second: Tensor) -> Tensor:
        return run_network(self.network, first, second, self.device, self.dtype, self.iterations, self.enlarge)


def choose(engine: str, work: Work) -> str:
    """The engine that a name stands for, ready to be run.

    "auto" stands for the fastest engine that has been built for this work on this machine, was found equal to PyTorch to
    `TOLERANCE` and faster than it; without one, for PyTorch.

    Raises:
        InputError: for an unknown engine, or one that does not do what is asked.
    """
    if engine not in ENGINES:
        raise InputError(f"The engine must be one of {', '.join(ENGINES)}, got '{engine}'.")
    if work.device.type == "cpu":
        _respect_container()
    if engine in _BUILT:
        if work.device.type != "cpu":
            raise InputError(f"The engine {engine} runs on the CPU, not on '{work.device}'; leave it out or take device='cpu'.")
        known = _kind(engine).DTYPES
        if work.dtype not in known:
            raise InputError(f"The engine {engine} does not compute in {work.dtype}; it does in {', '.join(known)}.")
    elif work.dtype == "int8":
        raise InputError("Only the engine openvino computes in int8; name it (engine='openvino', --engine openvino).")
    chosen = _fastest(work) if engine == "auto" else engine
    name = getattr(getattr(work.network, "weights_info", None), "name", type(work.network).__name__)
    _say(name, chosen, work.dtype, work.shape, str(work.device))
    return chosen


def runner(engine: str, work: Work) -> Runner:
    """A function of two batches `(B, 3, H, W)` giving their flow `(B, 2, H, W)` [px] on the CPU; builds the engine if need be.

    Args:
        engine: as `choose` gives it.

    Raises:
        MissingExtraError: for one that is not installed. EngineError: for one that cannot run the network.
    """
    if engine in _BUILT:
        return _built(engine, work)
    if engine == "compile":
        return replace(work, network=_compiled(work.network, work.device)).by_pytorch
    return work.by_pytorch


def _kind(engine: str):
    return import_module(f"{__package__}.{engine}")


@lru_cache(maxsize=64)
def _say(name: str, engine: str, dtype: str, shape: tuple[int, ...], device: str) -> None:
    log.info("%s runs by the engine %s in %s on %s, frames of %dx%d px", name, engine, dtype, device, shape[-1], shape[-2])


def _fastest(work: Work) -> str:
    if work.device.type != "cpu" or not builds.folder().is_dir():
        return "torch"
    best, name = 1.0, "torch"
    for engine, package in _BUILT.items():
        if find_spec(package) is None or work.dtype not in _kind(engine).DTYPES:
            continue
        place = builds.find(_key(engine, work))
        verdict = builds.read(place)["checks"].get(_conditions(work.dtype)) if place is not None else None
        if verdict is not None and verdict["ms"] / verdict["torch_ms"] < best:
            best, name = verdict["ms"] / verdict["torch_ms"], engine
    return name


def _conditions(dtype: str) -> str:
    return f"{dtype}, {torch.get_num_threads()} threads"


def _key(engine: str, work: Work) -> str:
    return builds.key(
        engine=engine,
        version=_kind(engine).version(work.dtype),
        torch=torch.__version__,
        network=fingerprint(work.network),
        shape=list(work.shape),
        iterations=work.iterations,
        enlarge=work.enlarge,
    )


def _built(engine: str, work: Work) -> Runner:
    module = Portable(work.network, tuple(work.shape[-2:]), work.iterations, work.enlarge)

    def make(folder: Path) -> dict:
        log.info("building the engine %s for frames of %dx%d px; this is done once", engine, work.shape[-1], work.shape[-2])
        try:
            _kind(engine).write(module, module.example(work.shape[0]), folder, work.dtype)
        except (MissingExtraError, MemoryError, OSError):
            raise
        except Exception as error:  # exporters raise whatever they stumble over
            raise EngineError(f"The engine {engine} cannot run {type(work.network).__name__} ({deepest(error)}).") from error
        return {
            "engine": engine,
            "version": _kind(engine).version(work.dtype),
            "torch": torch.__version__,
            "shape": list(work.shape),
            "checks": {},
        }

    place = builds.build(_key(engine, work), make)
    run = _loaded(engine, str(place), work.dtype, torch.get_num_threads())
    if _conditions(work.dtype) not in builds.read(place)["checks"]:
        builds.record_check(place, _conditions(work.dtype), _check(engine, run, work, module.example(work.shape[0])))
    return run


@lru_cache(maxsize=8)
def _loaded(engine: str, place: str, dtype: str, threads: int) -> Runner:
    return _kind(engine).load(Path(place), dtype, threads)


def _check(engine: str, run: Runner, work: Work, frames: tuple[Tensor, Tensor]) -> dict:
    """Compare with PyTorch in the same dtype (int8: in float32), in turn: difference and times.

    Raises:
        EngineError: for a float32 engine that differs by more than `TOLERANCE`, or an int8 one by more than `int8.LIMIT`.
    """
    methods = {"torch_ms": work.by_pytorch, "ms": run}
    flows = {name: method(*frames) for name, method in methods.items()}
    difference = float((flows["ms"] - flows["torch_ms"]).abs().max())
    if work.dtype == "float32" and not difference <= TOLERANCE:
        raise EngineError(f"The engine {engine} differs from PyTorch by {difference:.2g} px, more than {TOLERANCE} px; not used.")
    if work.dtype == "int8":
        int8.check(flows["ms"], flows["torch_ms"])
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(_CHECK_RUNS):
        for name, method in methods.items():
            started = time.perf_counter()
            method(*frames)
            times[name].append(1000 * (time.perf_counter() - started))
    return {"max_difference_px": difference, **{name: statistics.median(values) for name, values in times.items()}}


def _compiled(network: nn.Module, device: torch.device) -> Callable:
    """`network` with its forward compiled. Attributes, which say how frames are fitted, are those of the network.

    On a GPU it runs as a CUDA graph. Its flow lies where the next run writes its own; `run_network` copies it to the CPU before.
    Other threads than the main one do without: before PyTorch 2.13 they cannot hold CUDA graphs.
    """
    graphed = device.type == "cuda" and threading.current_thread() is threading.main_thread()
    mode = "reduce-overhead" if graphed else "default"
    compiled = network.__dict__.get(f"compiled {mode}")
    if compiled is None or compiled._orig_mod is not network:  # a copy of a network brings along what was made for that
        compiled = torch.compile(network, dynamic=False, fullgraph=True, mode=mode)
        network.__dict__[f"compiled {mode}"] = compiled
    return compiled


@lru_cache(maxsize=1)
def _respect_container() -> None:
    threads = container_threads()
    if threads is not None and threads < torch.get_num_threads():
        torch.set_num_threads(threads)


def container_threads(groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """CPU time that a container may use, in whole threads; None without such a limit, or where OMP_NUM_THREADS decides.

    PyTorch counts the machine's cores. With more threads than the quota allows, all are paused in turn and wait for each other.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return None
    try:
        quota, period = (groups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max" or -1: no limit
    return max(1, round(int(quota) / int(period)))
