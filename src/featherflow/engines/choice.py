"""Which engine runs a network on frames of one size."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import EngineError, InputError, MissingExtraError
from ..estimation import run_network
from . import ENGINES, builds
from .graphs import Portable, fingerprint

log = logging.getLogger("featherflow")

Runner = Callable[[Tensor, Tensor], Tensor]

#: Engines that are built and kept, and the package each needs.
_BUILT = {"openvino": "openvino", "onnx": "onnxruntime"}
#: Most that a float32 engine may differ from PyTorch [px].
TOLERANCE = 1e-3
#: Networks whose end-point errors on real pairs were measured to move by less than 1 % in bfloat16 (docs/speed.md).
BFLOAT16_MEASURED = frozenset({"liteflownet2-slim"})
_CHECK_RUNS = 3


def usual_dtype(network: nn.Module, device: torch.device) -> str:
    """What `dtype="auto"` stands for: bfloat16 where the CPU computes in it and its cost in accuracy was measured, else float32."""
    info = getattr(network, "weights_info", None)
    if device.type == "cpu" and info is not None and info.architecture in BFLOAT16_MEASURED and cpu_has_bfloat16():
        return "bfloat16"
    return "float32"


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX512-BF16 or AMX) and PyTorch uses it; others only imitate it, slowly."""
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.backends.mkldnn.is_available() and any(check() for check in checks if check is not None)


def choose(engine: str, network: nn.Module, shape: tuple[int, ...], device: torch.device, dtype: str,
           iterations: int | None = None, enlarge: float = 1.0) -> Runner:
    """A function of two batches of frames `(B, 3, H, W)` of one shape giving their flow `(B, 2, H, W)`, as `run_network`.

    "auto" takes the fastest engine that has been built for this network, shape and dtype on this machine, was found equal to
    PyTorch to `TOLERANCE` and faster than it; without one, PyTorch. Naming an engine builds it.

    Args:
        shape: of the batches. dtype: "float32", "bfloat16" or "float16".

    Raises:
        InputError: for an unknown engine, or one that does not do what is asked.
        MissingExtraError: for one that is not installed. EngineError: for one that cannot run the network.
    """
    if engine not in ENGINES:
        raise InputError(f"The engine must be one of {', '.join(ENGINES)}, got '{engine}'.")
    if device.type == "cpu":
        _respect_container()
    if engine in _BUILT:
        if device.type != "cpu":
            raise InputError(f"The engine {engine} runs on the CPU here, not on '{device}'; leave it out or take device='cpu'.")
        if dtype not in import_module(f"{__package__}.{engine}").DTYPES:
            raise InputError(f"The engine {engine} does not compute in {dtype}; {_others(engine)}.")
        runner = _built(engine, network, shape, dtype, iterations, enlarge)
    elif engine == "auto":
        engine, runner = _fastest(network, shape, device, dtype, iterations, enlarge)
    else:
        runner = None
    _say(getattr(getattr(network, "weights_info", None), "name", type(network).__name__), engine, dtype, shape, str(device))
    if runner is not None:
        return runner
    ready = _compiled(network) if engine == "compile" else network
    return lambda first, second: run_network(ready, first, second, device, dtype, iterations, enlarge)


def _others(engine: str) -> str:
    return f"it does in {' and '.join(import_module(f'{__package__}.{engine}').DTYPES)}"


@lru_cache(maxsize=64)
def _say(name: str, engine: str, dtype: str, shape: tuple[int, ...], device: str) -> None:
    log.info("%s runs by the engine %s in %s on %s, frames of %dx%d px", name, engine, dtype, device, shape[-1], shape[-2])


def _fastest(network, shape, device, dtype, iterations, enlarge) -> tuple[str, Runner | None]:
    if device.type != "cpu" or not builds.folder().is_dir():
        return "torch", None
    best, name = 1.0, "torch"
    for engine, package in _BUILT.items():
        if find_spec(package) is None or dtype not in import_module(f"{__package__}.{engine}").DTYPES:
            continue
        place = builds.find(_key(engine, network, shape, iterations, enlarge))
        verdict = builds.read(place)["checks"].get(_conditions(dtype)) if place is not None else None
        if verdict is not None and verdict["ms"] / verdict["torch_ms"] < best:
            best, name = verdict["ms"] / verdict["torch_ms"], engine
    return name, None if name == "torch" else _built(name, network, shape, dtype, iterations, enlarge)


def _conditions(dtype: str) -> str:
    return f"{dtype}, {torch.get_num_threads()} threads"


def _key(engine: str, network: nn.Module, shape: tuple[int, ...], iterations: int | None, enlarge: float) -> str:
    return builds.key(
        engine=engine, version=import_module(f"{__package__}.{engine}").version(), torch=torch.__version__,
        network=fingerprint(network), shape=list(shape), iterations=iterations, enlarge=enlarge,
    )


def _built(engine: str, network: nn.Module, shape: tuple[int, ...], dtype: str, iterations: int | None, enlarge: float) -> Runner:
    kind = import_module(f"{__package__}.{engine}")
    module = Portable(network, tuple(shape[-2:]), iterations, enlarge)

    def make(folder: Path) -> dict:
        log.info("building the engine %s for frames of %dx%d px; this is done once", engine, shape[-1], shape[-2])
        try:
            kind.write(module, module.example(shape[0]), folder)
        except (MissingExtraError, MemoryError, OSError):
            raise
        except Exception as error:  # exporters raise whatever they stumble over
            raise EngineError(f"The engine {engine} cannot run {type(network).__name__} ({_first_line(error)}).") from error
        return {"engine": engine, "version": kind.version(), "torch": torch.__version__, "shape": list(shape), "checks": {}}

    place = builds.build(_key(engine, network, shape, iterations, enlarge), make)
    runner = _loaded(engine, str(place), dtype, torch.get_num_threads())
    if _conditions(dtype) not in builds.read(place)["checks"]:
        builds.record_check(place, _conditions(dtype), _check(engine, runner, network, module, shape, dtype, iterations, enlarge))
    return runner


@lru_cache(maxsize=4)
def _loaded(engine: str, place: str, dtype: str, threads: int) -> Runner:
    return import_module(f"{__package__}.{engine}").load(Path(place), dtype, threads)


def _check(engine, runner, network, module, shape, dtype, iterations, enlarge) -> dict:
    """Compare with PyTorch in the same dtype, in turn: difference and times.

    Raises:
        EngineError: for a float32 engine that differs by more than `TOLERANCE`.
    """
    frames = module.example(shape[0])
    runners = {"torch_ms": lambda *x: run_network(network, *x, "cpu", dtype, iterations, enlarge), "ms": runner}
    flows = {name: run(*frames) for name, run in runners.items()}
    difference = float((flows["ms"] - flows["torch_ms"]).abs().max())
    if dtype == "float32" and not difference <= TOLERANCE:
        raise EngineError(f"The engine {engine} differs from PyTorch by {difference:.2g} px, more than {TOLERANCE} px; not used.")
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(_CHECK_RUNS):
        for name, run in runners.items():
            started = time.perf_counter()
            run(*frames)
            times[name].append(1000 * (time.perf_counter() - started))
    return {"max_difference_px": difference, **{name: statistics.median(values) for name, values in times.items()}}


def _compiled(network: nn.Module) -> Callable:
    """`network` with its forward compiled. Attributes, which say how frames are fitted, are those of the network."""
    if "compiled_forward" not in network.__dict__:
        network.__dict__["compiled_forward"] = torch.compile(network, dynamic=False, fullgraph=True)
    return network.__dict__["compiled_forward"]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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
