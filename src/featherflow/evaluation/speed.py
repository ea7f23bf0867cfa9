"""How fast: models, engines and arithmetics timed in turn, with what they compute and the memory they take.

Times depend on the machine and on what else it does; ratios inside one run depend on them less. So every candidate runs once
in each round, and what is compared was measured side by side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FeatherflowError, InputError, WeightsError
from ..images import write_image
from .benchmark import parse_refined
from .memory import PeakMemory

#: (height, width) at which papers time.
USUAL_SIZE = (436, 1024)


@dataclass(frozen=True)
class Candidate:
    """What is timed: a network by an engine in a dtype, a classical method (neither), or a peer (a command)."""

    model: str
    engine: str = ""
    dtype: str = ""
    command: str = ""
    #: Of the LiteFlowNet family; None: as the weights ask for, and the size of the frames.
    octaves: int | None = None
    #: Steps of variational refinement that follow.
    refine: int = 0

    @property
    def title(self) -> str:
        """The model, `+N` with refinement."""
        return f"{self.model}+{self.refine}" if self.refine else self.model

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(part for part in (self.title, self.engine, self.dtype) if part)


@dataclass(frozen=True)
class Timing:
    """One candidate. Times are of one pair, frames `(H, W, 3)` uint8 in, flow `(H, W, 2)` float32 out; along a stream, of one more
    frame."""

    model: str
    engine: str
    dtype: str
    #: Median, fastest and slowest round [ms].
    ms: float
    fastest_ms: float
    slowest_ms: float
    #: How many times the first candidate's median this one's is contained in it: above 1 is faster.
    times_faster: float
    #: Multiplications and additions of one pair [GFLOP], whole also where a stream saves some; None for what is no network here.
    gflop: float | None
    #: Most memory held, beyond that after the imports [MiB], in a process of its own.
    peak_mib: float | None
    #: Whether weights came from the package or a file; else they are random, which changes no time.
    trained: bool

    @property
    def gflop_per_second(self) -> float | None:
        """Achieved rate, from the median."""
        return None if self.gflop is None else 1000 * self.gflop / self.ms


@dataclass(frozen=True)
class Rates:
    """What this machine reached in the same run: the best of a few 3x3 convolutions of 128 channels, and a copy of 64 MiB."""

    convolution_float32: float  # GFLOP/s
    convolution_bfloat16: float
    copy: float  # GB/s, read and written


@dataclass(frozen=True)
class Speed:
    """What `bench` found."""

    width: int
    height: int
    runs: int
    threads: int
    #: Whether each pair was the next of a stream of frames, see `featherflow.stream`, or a pair by itself.
    stream: bool
    machine: str
    date: str
    rates: Rates
    timings: tuple[Timing, ...]
    #: Candidates that could not run, with the reason.
    failures: dict[str, str]

    def as_dict(self) -> dict:
        """Plain values, ready for JSON."""
        values = dataclasses.asdict(self)
        for plain, timing in zip(values["timings"], self.timings, strict=True):
            plain["gflop_per_second"] = timing.gflop_per_second
        return values

    def markdown(self) -> str:
        """A table, and the conditions under it."""
        lines = [
            "| model | engine | dtype | ms | fastest | slowest | times faster | GFLOP | GFLOP/s | peak MiB |",
            "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for t in self.timings:
            cells = [t.model + ("" if t.trained else " *"), t.engine, t.dtype]
            cells += [f"{ms:.0f}" for ms in (t.ms, t.fastest_ms, t.slowest_ms)] + [f"{t.times_faster:.2f}"]
            cells += ["" if x is None else f"{x:.0f}" for x in (t.gflop, t.gflop_per_second, t.peak_mib)]
            lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            f"{self.width}x{self.height} px{', along a stream' if self.stream else ''}, medians of {self.runs} rounds in turn, "
            f"{self.threads} threads, {self.machine}, "
            f"{self.date}. In the same run: {self.rates.convolution_float32:.0f} GFLOP/s in float32 and "
            f"{self.rates.convolution_bfloat16:.0f} in bfloat16 convolutions, {self.rates.copy:.0f} GB/s copied.",
        ]
        if not all(t.trained for t in self.timings):
            lines.append("*: untrained weights, which take the same time.")
        lines += [f"{name}: {reason}" for name, reason in self.failures.items()]
        return "\n".join(lines)


def candidates(
    models: Iterable[str],
    engines: Sequence[str] = ("torch",),
    dtypes: Sequence[str] = ("float32",),
    against: Iterable[str] = (),
    octaves: int | None = None,
) -> list[Candidate]:
    """Every network by every engine in every dtype, classical methods once, then the peers.

    Args:
        models: names of networks, perhaps with a tag, or of classical methods; NAME+N with N steps of refinement.
        against: "opencv" for its usual methods, or commands of peers, see `Peer`.
        octaves: of every network, where not as its weights ask for.

    Raises:
        InputError: for unknown names.
    """
    from .. import classical
    from ..inference import DTYPES, ENGINES
    from ..inference.defaults import check_model

    for name, values, known in (("engine", engines, ENGINES), ("dtype", dtypes, DTYPES)):
        for value in values:
            if value not in known:
                raise InputError(f"There is no {name} '{value}'; known are {', '.join(known)}.")
    found: list[Candidate] = []
    for text in models:
        model, steps = parse_refined(text)
        if model in classical.METHODS:
            found.append(Candidate(model, refine=steps))
            continue
        check_model(model)
        found += [Candidate(model, engine, dtype, octaves=octaves, refine=steps) for engine in engines for dtype in dtypes]
    for peer in against:
        if peer == "opencv":
            found += [Candidate(name) for name in ("dis-ultrafast", "dis-fast", "dis", "farneback")]
        else:
            found.append(Candidate(shlex.split(peer)[-1], command=peer))
    return list(dict.fromkeys(found))


def bench(
    chosen: Sequence[Candidate],
    size: tuple[int, int] = USUAL_SIZE,
    runs: int = 5,
    threads: int | None = None,
    memory: bool = True,
    progress: Callable[[int, int], None] | None = None,
    stream: bool = False,
) -> Speed:
    """Time candidates in turn.

    Args:
        size: (height, width) of the frames [px]. runs: rounds, after one to warm up.
        threads: of PyTorch and the engines. Default: as they are.
        memory: also measure the peak, in a process for each candidate.
        progress: called with (estimates done, estimates in all).
        stream: time the next pair of a stream of frames, where what is known of a frame is used again; not for peers.

    Raises:
        InputError: for no candidate, fewer than one round, frames that are too small, a peer along a stream, or where no
            candidate can run. What makes one of several fail is a failure in the result.
    """
    import torch

    if not chosen or runs < 1 or min(size) < 16 or (threads is not None and threads < 1):
        raise InputError("Timing needs a candidate, at least 1 round, 1 thread, and frames of at least 16x16 px.")
    if stream and any(candidate.command for candidate in chosen):
        raise InputError("Peers are given pairs: they cannot be timed along a stream.")
    if threads is not None:
        torch.set_num_threads(threads)
    frames = moving_texture(size)
    total, done = len(chosen) * (runs + 1), 0
    failures: dict[str, str] = {}
    calls: dict[Candidate, Callable[[], float]] = {}
    trained: dict[Candidate, bool] = {}
    peers: list[Peer] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"frame{index}.png" for index in (1, 2)]
        for path, frame in zip(paths, frames, strict=True):
            write_image(path, frame)
        try:
            for candidate in chosen:
                try:
                    if candidate.command:
                        peers.append(Peer(candidate.command, *paths))
                        calls[candidate], trained[candidate] = peers[-1].milliseconds, True
                    else:
                        calls[candidate], trained[candidate] = _call(candidate, frames, stream)
                    calls[candidate]()
                except FeatherflowError as error:
                    failures[candidate.name] = str(error)
                    calls.pop(candidate, None)
                done += 1
                if progress:
                    progress(done, total)
            if not calls:
                raise InputError(f"Nothing to time: {'; '.join(f'{name}: {reason}' for name, reason in failures.items())}")
            rates = machine_rates()
            times: dict[Candidate, list[float]] = {candidate: [] for candidate in calls}
            for _ in range(runs):
                for candidate, call in calls.items():
                    times[candidate].append(call())
                    done += 1
                    if progress:
                        progress(done, total)
        finally:
            for peer in peers:
                peer.close()
    if progress:
        progress(total, total)
    calls.clear()
    timings = []
    for candidate, values in times.items():
        network = bool(candidate.engine)
        ms = statistics.median(values)
        timings.append(
            Timing(
                candidate.title,
                candidate.engine,
                candidate.dtype,
                ms,
                min(values),
                max(values),
                statistics.median(next(iter(times.values()))) / ms,
                operations(candidate.model, size, candidate.octaves) if network else None,
                peak_memory(candidate, size, stream) if memory and not candidate.command else None,
                trained[candidate],
            )
        )
    today = date.today().isoformat()
    return Speed(size[1], size[0], runs, torch.get_num_threads(), stream, machine(), today, rates, tuple(timings), failures)


def _call(candidate: Candidate, frames: Sequence[np.ndarray], stream: bool) -> tuple[Callable[[], float], bool]:
    """A function that estimates one pair, or the next of a stream, and gives its milliseconds; whether the weights are trained."""
    from .. import classical
    from ..inference import EstimationSettings, Estimator

    trained = True
    if candidate.model in classical.METHODS:
        estimator = Estimator(candidate.model, refine=candidate.refine)
    else:
        network, trained = _network(candidate.model)
        chosen = {"engine": candidate.engine, "dtype": candidate.dtype, "octaves": candidate.octaves}
        settings = EstimationSettings(model=candidate.model, enlarge=1.0, refine=candidate.refine, **chosen)
        estimator = Estimator.of(settings, network)
    if stream:
        work = estimator.stream(itertools.cycle(frames)).__next__
        work()
    else:
        work = partial(estimator, *frames)

    def call() -> float:
        started = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - started)

    return call, trained


def _network(name: str):
    """The network with its weights if there are any, else with random ones and, as in weights that come with featherflow, one mean
    for both frames; and whether there are any."""

    from .. import networks
    from ..inference.defaults import device_named
    from ..ops import channels_last
    from ..weights import load

    try:
        network, trained = load(name), True
    except WeightsError:
        if ":" in name:
            raise
        network, trained = networks.untrained(name), False
        if networks.shares_features(network):
            network.mean2.copy_(network.mean1)
    return channels_last(network.to(device_named(None))), trained


def moving_texture(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two frames `(H, W, 3)` uint8: a smooth random texture, and itself moved by (3, 2) px."""
    from PIL import Image

    height, width = size
    noise = np.random.default_rng(0).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
    texture = np.asarray(Image.fromarray(noise).resize((width + 3, height + 2), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(texture[2:, 3:]), np.ascontiguousarray(texture[:height, :width])


def operations(model: str, size: tuple[int, int], octaves: int | None = None, convolutions_only: bool = False) -> float:
    """Multiplications and additions of one pair [GFLOP], counted on the network's grid for frames of (height, width).

    Nothing is computed: tensors have shapes only. Where there are weights of that name, it is the network as they ask for it, with
    other `octaves` where these are given.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from .. import networks
    from ..inference.defaults import usual_octaves
    from ..inference.fitting import Fitting
    from ..weights import describe

    described: dict[str, Any] = {"architecture": model.partition(":")[0], "options": {}}
    with contextlib.suppress(WeightsError):
        described = describe(model)
    with FakeTensorMode(), torch.no_grad():
        network = networks.build(described["architecture"], **described["options"]).requires_grad_(False)
        frame = torch.zeros(1, 3, *Fitting.of(network.traits, size).grid)
        run = networks.RunOptions(octaves=usual_octaves(network.traits, size) if octaves is None else octaves)
        with FlopCounterMode(display=False) as counter:
            network(frame, frame, **run.keywords(network))
    if convolutions_only:
        return sum(count for kind, count in counter.get_flop_counts()["Global"].items() if "conv" in str(kind)) / 1e9
    return counter.get_total_flops() / 1e9


def machine_rates() -> Rates:
    """What this machine reaches now, see `Rates`."""
    import torch

    from ..ops import channels_last

    def fastest(work: Callable[[], object]) -> float:
        times = []
        for _ in range(6):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times[1:])

    reached = []
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            layer = channels_last(torch.nn.Conv2d(128, 128, 3, padding=1).to(dtype))
            x = torch.rand(1, 128, 56, 128).to(dtype).contiguous(memory_format=torch.channels_last)
            reached.append(2 * layer.weight.numel() * 56 * 128 / fastest(lambda layer=layer, x=x: layer(x)) / 1e9)
        source = torch.zeros(16 * 2**20)
        target = torch.empty_like(source)
        copied = 2 * 64 * 2**20 / fastest(lambda: target.copy_(source)) / 1e9
    float32, bfloat16 = reached
    return Rates(float32, bfloat16, copied)


def peak_memory(candidate: Candidate, size: tuple[int, int], stream: bool = False) -> float | None:
    """Most memory that a process of its own holds while it estimates one pair (along a stream, two), less what it holds after the
    imports [MiB]."""
    code = "from featherflow.evaluation.speed import _print_peak; _print_peak()"
    arguments = [sys.executable, "-c", code, json.dumps([dataclasses.asdict(candidate), size, stream])]
    done = subprocess.run(arguments, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 and done.stdout else None


def _print_peak() -> None:
    import torch

    from .. import classical, frames, inference, networks, weights
    from ..inference import estimator

    del classical, estimator, frames, inference, networks, weights
    chosen, size, stream = json.loads(sys.argv[1])
    torch.zeros(1).add_(1)
    memory = PeakMemory()
    memory.start()
    before = memory.mib()
    _call(Candidate(**chosen), moving_texture(tuple(size)), stream)[0]()
    after = memory.mib()
    print(None if before is None or after is None else round(after - before, 1))


def machine() -> str:
    """Processor and cores, as the system names them."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags")).split()
        known = (("avx512f", "AVX-512"), ("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX"))
        name += "".join(f", {text}" for flag, text in known if flag in flags)
    except (OSError, StopIteration):
        pass
    return name


class Peer:
    """Another program, timed in turn with ours: a command that is started once and stays.

    The command gets the paths of two PNG frames as its last arguments, loads what it needs, estimates once to warm up and prints
    a line "ready". For each line on its standard input it then estimates once more and prints the milliseconds it took.
    `benchmarks/ptlflow_peer.py` is one.
    """

    def __init__(self, command: str, frame1: Path, frame2: Path):
        arguments = [*shlex.split(command), str(frame1), str(frame2)]
        try:
            self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise InputError(f"The peer '{command}' cannot be started: {error.strerror}.") from None
        assert self.process.stdin is not None and self.process.stdout is not None  # pipes were asked for
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        self.command = command
        self._answer("ready")

    def milliseconds(self) -> float:
        """One more estimate.

        Raises:
            InputError: if the peer ends or says something else.
        """
        try:
            self._stdin.write("\n")
            self._stdin.flush()
        except OSError:
            pass  # it has ended: there will be no answer
        return float(self._answer())

    def close(self) -> None:
        """End the program."""
        self.process.kill()
        self.process.communicate()

    def _answer(self, wanted: str | None = None) -> str:
        line = self._stdout.readline().strip()
        good = line == wanted if wanted else line.replace(".", "", 1).isdecimal()
        if not good:
            self.close()
            raise InputError(f"The peer '{self.command}' must print {wanted or 'milliseconds'} on a line of its own, got '{line}'.")
        return line
