"""The training loop: resumable at any step, safe against interruption and NaN, measured in samples.

A run lives in a folder: `checkpoint.pt` (everything to go on from), `log.jsonl` (one line per report) and, at the end of
each piece, `weights.safetensors` (the averaged weights, ready to use); of each stage that is over, `stage-N.safetensors`.

Everything that a step does is a function of the state and of the recipe: a run that was killed at any moment goes on from its last
checkpoint as if nothing had happened, bit for bit on a CPU with as many threads.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from .. import networks
from ..data import PairBatch, SceneConfig, TextureBank
from ..data.streams import ReadPairs, RenderedPairs, find_pools
from ..errors import InputError, TrainingError
from ..files import atomic_write
from ..networks import Traits
from ..networks.liteflownet import LiteFlowNet
from ..ops import laid_out, lengths
from .initialization import carry_over, initialize, msra
from .optimizers import make_optimizer, trained
from .processes import Processes
from .recipe import Recipe
from .shards import INDEX, read_shards, write_shards

# In place and on many tensors at once. PyTorch documents none of them, its types have none, and its own optimisers live by them.
_FOREACH: Any = torch
_foreach_add, _foreach_div, _foreach_lerp = _FOREACH._foreach_add_, _FOREACH._foreach_div_, _FOREACH._foreach_lerp_

if TYPE_CHECKING:
    from ..weights.info import WeightsInfo

REPORT_EVERY = 20  # steps
CHECKPOINT_EVERY = 120.0  # s
MOST_BAD_STEPS = 20  # in a row

_FIGURES: tuple[str, ...] = ("loss", "epe", "data_seconds", "seconds")  # of a chunk

T = TypeVar("T")
Validation = Callable[[torch.nn.Module], dict[str, float]]


class Trainer:
    """State of a run and the means to advance it.

    Args:
        recipe: all numbers of the run.
        folder: where the run lives; created when it begins. A checkpoint found there is continued.
        textures: photos and procedural textures the pairs are made of.
        scene: the scenes to render, before the recipe's own changes; height and width come from the recipe.
        start: weights to begin with instead of random ones; only for a new run.
        data: folders by benchmark, to read pairs from instead of rendering them, see `featherflow.data.streams.find_pools`.
        shards: folder that the state is also kept in, see `training.shards`; a new run begins with what is there.
        compile: backend of `torch.compile` for the network and its loss, e.g. "inductor"; None runs them as they are.
        threads: how many decode pairs that are read.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        textures: TextureBank | None = None,
        scene: SceneConfig | None = None,
        device: str = "cpu",
        start: Mapping[str, Tensor] | None = None,
        data: Mapping[str, str | os.PathLike[str]] | None = None,
        shards: Path | None = None,
        compile: str | None = None,
        threads: int = 4,
    ):
        self.recipe, self.folder, self.shards = recipe, Path(folder), shards and Path(shards)
        self.processes = Processes(device)
        self.device = self.processes.device
        if recipe.batch % recipe.chunks or recipe.chunks % self.processes.count:
            raise InputError(
                f"A batch of {recipe.batch} pairs in {recipe.chunks} chunks on {self.processes.count} processes does not come out "
                "even: batch must be a multiple of chunks, and chunks of the number of processes."
            )
        size = (recipe.height, recipe.width)
        if recipe.both_ways and not data and recipe.batch // recipe.chunks % 2:
            raise InputError(
                f"A pair used both ways counts as two samples, so each of the {recipe.chunks} chunks of a batch must hold an even "
                f"number of them; a batch of {recipe.batch} makes it {recipe.batch // recipe.chunks}. Change the batch, or set "
                "both_ways=false."
            )
        if data:
            self.source = ReadPairs(find_pools(data, recipe.data), size, recipe.augmentation, recipe.seed, self.device, threads)
        else:
            scene = dataclasses.replace(scene or SceneConfig(), height=size[0], width=size[1], **recipe.scene)
            self.source = RenderedPairs(scene, textures, recipe.seed, self.device, recipe.both_ways)
        self.dtype = autocast_dtype(recipe.precision, self.device)
        self.order = order_of_maps(self.dtype, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.compile = compile
        self.stages = recipe.schedule()
        self.step = self.samples = self.skipped = self.stage_begun = 0
        torch.manual_seed(recipe.seed)
        own_parts = range(self.processes.rank, recipe.chunks, self.processes.count)
        self.parts, self.workers = own_parts, _workers(self.device, len(own_parts))
        state = self._found_state()
        self._enter(state["stage"] if state else 0, None if state else start)
        if state:
            self._restore(state)

    @property
    def stage(self) -> Recipe:
        """The stage that the run is in: a recipe without stages."""
        return self.stages[self.stage_number]

    @property
    def stage_name(self) -> str:
        """Its name; "" where the recipe has no stages."""
        return self.recipe.stages[self.stage_number].name if self.recipe.stages else ""

    @property
    def in_stage(self) -> int:
        """Samples seen in this stage."""
        return self.samples - self.stage_begun

    @property
    def length(self) -> int:
        """Samples of the whole run, by what it has seen and what is left."""
        return self.stage_begun + sum(stage.samples for stage in self.stages[self.stage_number :])

    def _enter(self, number: int, start: Mapping[str, Tensor] | None) -> None:
        """Build the network, its average and its optimiser for a stage; with `start`, from these weights."""
        self.stage_number, self.stage_begun = number, self.samples
        recipe = self.stage
        self.network = networks.build(recipe.network, **recipe.options)
        _check_size(recipe, self.network.traits)
        generator = torch.Generator().manual_seed(recipe.seed + number)
        {"identity": initialize, "msra": msra}[recipe.initialization](self.network, generator)
        if start is not None:
            carry_over(self.network, {name: value.cpu() for name, value in start.items()}, generator)
        if isinstance(self.network, LiteFlowNet) and recipe.shared_mean:
            self.network.mean2.copy_(self.network.mean1)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not any(fnmatch(name, pattern) for pattern in recipe.frozen))
        laid_out(self.network.to(self.device), self.order)
        self.narrow, self.twins = narrowed(self.network, self.dtype)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizer = make_optimizer(self.network, recipe)
        self.objective = torch.compile(recipe.loss.__call__, backend=self.compile) if self.compile else recipe.loss

    def _advance(self) -> None:
        """Go to the next stage with the averaged weights of this one."""
        if self.processes.writes:
            self.export(self.folder / f"stage-{self.stage_number + 1}.safetensors")
        self._enter(self.stage_number + 1, self.average)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def state(self) -> dict:
        """Everything that the next piece of the run needs."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "samples": self.samples,
            "skipped": self.skipped,
            "stage": self.stage_number,
            "stage_begun": self.stage_begun,
            "recipe": dataclasses.asdict(self.recipe),
        }
        return state | ({"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {})

    def save(self) -> None:
        """Write the state; an interrupted write leaves the old file."""
        if self.processes.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.checkpoint, durable=True) as file:
                torch.save(self.state(), file)

    def _found_state(self) -> dict | None:
        """The state in the run's folder, or else in its shards. Older ones know no stages."""
        if self.checkpoint.exists():
            try:
                state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            except Exception as error:  # what PyTorch says of damage is long, and of its own making
                raise TrainingError(
                    f"The checkpoint '{self.checkpoint}' is damaged or cut short, or none of ours; without it the run begins anew."
                ) from error
        elif self.shards is not None and (self.shards / INDEX).exists():
            state = read_shards(self.shards)
        else:
            return None
        try:
            state = {"stage": 0, "stage_begun": 0, **state}
            if not 0 <= state["stage"] < len(self.stages):
                raise ValueError(f"it is in stage {state['stage'] + 1} of a recipe with {len(self.stages)}")
        except (TypeError, ValueError) as error:
            raise self._misfit(error) from error
        return state

    def _restore(self, state: dict) -> None:
        """Go on from a state; recipe numbers given now win over those it was started with."""
        try:
            if (other := state.get("recipe", {}).get("network", self.recipe.network)) != self.recipe.network:
                raise ValueError(f"it is of a network {other}, not {self.recipe.network}")
            self.network.load_state_dict(state["network"])
            self.average = {name: value.to(self.device) for name, value in state["average"].items()}
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.samples, self.skipped = (int(state[name]) for name in ("step", "samples", "skipped"))
            self.stage_begun = state["stage_begun"]
            if self.scaler.is_enabled() and "scaler" in state:
                self.scaler.load_state_dict(state["scaler"])
        except Exception as error:
            raise self._misfit(error) from error
        if self.processes.writes:
            self._forget_lines_after(self.step)

    def _misfit(self, error: Exception) -> TrainingError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return TrainingError(f"The checkpoint '{self.checkpoint}' does not fit this run: {reason}")

    def _forget_lines_after(self, step: int) -> None:
        """Drop lines of the log that a killed run wrote after its last checkpoint: those steps are taken again."""
        path = self.folder / "log.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            with atomic_write(path) as file:
                file.write("".join(line + "\n" for line in kept).encode())

    def chunk(self, step: int, index: int) -> PairBatch:
        """The pairs of one chunk of a step: a function of seed, step and index, so that a resumed run sees what it would have seen,
        on any number of workers."""
        recipe = self.recipe
        seen = self.in_stage - (self.step - step) * recipe.batch
        return self.source.part(step, index, recipe.chunks, recipe.batch, int(recipe.iteration(seen)))

    def train_step(self) -> dict[str, float]:
        """One update of the weights, or none where loss or gradient is not finite.

        Chunks of the batch are made and differentiated independently, by as many workers as there are; their gradients are
        added in order, so that the number of workers changes nothing but the time.
        """
        recipe = self.stage
        rate = recipe.rate(self.in_stage)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        self.network.train()
        self.narrow.train()
        skipped = self.skipped
        self._by_a_worker(self._bring_twins_up_to_date)
        sums, totals = self._by_a_worker(_sum, self.workers.map(self._differentiate, self.parts), self.device)
        self.processes.add([totals])
        self.processes.add(sums)
        figures: dict[str, float] = dict(zip(_FIGURES, (totals / recipe.chunks).tolist(), strict=True))
        figures["norm"] = self._by_a_worker(self._update, sums, figures["loss"])
        figures["rate"] = rate
        if self.skipped > skipped:
            figures["skipped"] = 1.0
        return figures

    def _by_a_worker(self, function: Callable[..., T], *arguments: Any) -> T:
        """On a CPU the weights are too small for several threads: these would wait for each other more than they work."""
        return self.workers.submit(function, *arguments).result()

    @torch.no_grad()
    def _bring_twins_up_to_date(self) -> None:
        for parameter, twin in self.twins.items():
            twin.copy_(parameter)

    def _update(self, gradients: list[Tensor], loss: float) -> float:
        """One update of the weights by the gradients of all chunks, added up; its norm."""
        recipe, parameters = self.stage, trained(self.network)
        _foreach_div(gradients, recipe.chunks)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm or math.inf).item()
        self.step += 1
        self.samples += recipe.batch
        if math.isfinite(loss) and math.isfinite(norm):
            self.scaler.step(self.optimizer)
            self._update_average()
        else:
            self.skipped += 1
        if self.scaler.is_enabled():
            self.scaler.update()
        return norm

    def _differentiate(self, index: int) -> tuple[tuple[Tensor, ...], dict[str, float]]:
        """Gradients and figures of one chunk of the current step."""
        started = time.monotonic()
        recipe, network = self.stage, self.narrow
        pairs = self.chunk(self.step, index)
        rendered = time.monotonic()
        frame1, frame2 = (frame.contiguous(memory_format=self.order) for frame in (pairs.frame1, pairs.frame2))
        truth, valid, occluded = pairs.labels()
        weight = valid.float() * (1.0 - (1.0 - recipe.occluded_weight(self.in_stage)) * occluded.float())
        # Without its cache: that is shared by all threads, and which of them filled it would show in the last digits.
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None, cache_enabled=False):
            sweeps = {"iterations": recipe.sweeps[self.step % len(recipe.sweeps)]} if recipe.sweeps else {}
            loss, flow = self.objective(network, frame1, frame2, truth, weight, **sweeps)
        gradients = torch.autograd.grad(self.scaler.scale(loss), trained(network), materialize_grads=True)
        return gradients, {
            "loss": loss.item(),
            "epe": _end_point_error(flow, truth, valid),
            "data_seconds": rendered - started,
            "seconds": time.monotonic() - started,
        }

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        state = self.network.state_dict()
        floating = [name for name, value in state.items() if value.is_floating_point()]
        _foreach_lerp([self.average[n] for n in floating], [state[n] for n in floating], 1.0 - keep)

    def averaged_network(self) -> torch.nn.Module:
        """A copy of the network with the averaged weights, in evaluation mode, with the attribute `weights_info`."""
        from ..weights.store import with_weights

        return with_weights(self.average, self.info()).to(self.device)

    def info(self, scores: dict[str, float] | None = None, **details: str) -> WeightsInfo:
        """What is known about the averaged weights."""
        from ..weights.info import WeightsInfo

        return WeightsInfo(
            architecture=self.stage.network,
            options=dict(self.stage.options),
            recipe=self.recipe.name,
            samples_seen=self.samples,
            enlarge_below=self.recipe.enlarge_below,
            scores={"epe_px_per_image": scores} if scores else {},
            **details,
        )

    def export(self, path: Path, scores: dict[str, float] | None = None, **details: str) -> None:
        """Write the averaged weights with their metadata."""
        from ..weights.store import save_weights

        save_weights(path, self.average, self.info(scores, **details), dtype=torch.float16)

    def run(
        self,
        minutes: float | None = None,
        samples: int | None = None,
        validate: Validation | None = None,
        validate_every: float = 600.0,
        report: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        """Train until the schedule, `minutes` or `samples` of this piece are over, or SIGINT or SIGTERM asks to stop.

        Args:
            validate: figures of the averaged network on held-out data, logged every `validate_every` seconds and at the end.
            report: called with each line that goes to the log.

        Raises:
            TrainingError: after many steps in a row without a finite gradient; the last checkpoint is kept.
        """
        started = saved = validated = window_started = time.monotonic()
        target = min(self.length, self.length if samples is None else self.samples + samples)
        window, bad = [], 0
        self.folder.mkdir(parents=True, exist_ok=True)
        with _StopSignals() as stop, _Log(self.folder / "log.jsonl", report, self.processes.writes) as log:

            def judge() -> dict[str, float] | None:
                """Validation, logged, by the process that writes."""
                nonlocal validated, window, window_started
                if validate is None or not self.processes.writes:
                    return None
                stage = {"stage": self.stage_name} if self.stage_name else {}
                scores = validate(self.averaged_network())
                log.write({"step": self.step, "samples": self.samples, **stage, "validation": scores})
                validated = window_started = time.monotonic()
                window = []
                return scores

            while self.samples < target:
                now = time.monotonic()
                if self.processes.any(stop.asked or (minutes is not None and now - started > minutes * 60)):
                    break
                if self.in_stage >= self.stage.samples:
                    judge()
                    self._advance()
                figures = self.train_step()
                bad = bad + 1 if "skipped" in figures else 0
                if bad > MOST_BAD_STEPS:
                    path = self._save_bad_batch()
                    raise TrainingError(
                        f"No finite gradient in {bad} steps in a row; stopped at step {self.step}, whose batch is in '{path}'."
                    )
                window.append(figures)
                if len(window) == REPORT_EVERY:
                    now = time.monotonic()
                    log.write(self._summary(window, now - window_started))
                    window, window_started = [], now
                if time.monotonic() - saved > CHECKPOINT_EVERY:
                    self.save()
                    saved = time.monotonic()
                if time.monotonic() - validated > validate_every:
                    judge()
            if window:
                log.write(self._summary(window, time.monotonic() - window_started))
            self.save()
            if self.shards is not None and self.processes.writes:
                write_shards(self.shards, self.state())
            scores = judge()
        if self.processes.writes:
            self.export(self.folder / "weights.safetensors", scores)
        self.processes.wait()

    def _save_bad_batch(self) -> Path:
        """Write the batch of the last step, as `torch.load` reads it: one dictionary of tensors per chunk of this process."""
        parts = [vars(self.chunk(self.step - 1, index)) for index in self.parts]
        path = self.folder / f"bad-batch-{self.processes.rank}.pt"
        with atomic_write(path) as file:
            torch.save({"step": self.step, "parts": parts}, file)
        return path

    def _summary(self, window: list[dict[str, float]], seconds: float) -> dict[str, float | str]:
        """A line of the log: means over the steps of the window."""
        means = {key: sum(figures[key] for figures in window) / len(window) for key in ("loss", "norm", "epe")}
        stage = {"stage": self.stage_name} if self.stage_name else {}
        return {
            "step": self.step,
            "samples": self.samples,
            **stage,
            **means,
            "rate": window[-1]["rate"],
            "samples_per_s": len(window) * self.recipe.batch / seconds,
            "data_share": sum(f["data_seconds"] for f in window) / sum(f["seconds"] for f in window),
            "skipped": self.skipped,
        }


class _Log:
    """Lines of JSON in a file, each also handed to `report`; silent where another process writes."""

    def __init__(self, path: Path, report: Callable[[dict], None] | None, writes: bool):
        self.path, self.report, self.writes = path, report, writes

    def __enter__(self):
        self.file = self.path.open("a") if self.writes else None
        return self

    def write(self, line: dict) -> None:
        if self.file is None:
            return
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.report:
            self.report(line)

    def __exit__(self, *_):
        if self.file is not None:
            self.file.close()


def _step_of(line: str) -> float:
    """The step of a line of the log; infinite for one that a killed run left unfinished, or that is damaged."""
    try:
        step = json.loads(line).get("step", 0)
        return step if isinstance(step, int | float) and step >= 0 else math.inf
    except (ValueError, AttributeError, RecursionError):
        return math.inf


def _sum(chunks: Iterable[tuple[tuple[Tensor, ...], dict[str, float]]], device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Gradients and figures of all chunks, added in order."""
    sums: list[Tensor] = []
    totals = torch.zeros(len(_FIGURES), dtype=torch.float64)
    for gradients, figures in chunks:
        if not sums:
            sums = [gradient.to(torch.float32, copy=True) for gradient in gradients]
        else:
            _foreach_add(sums, [gradient.float() for gradient in gradients])
        totals += torch.tensor([figures[key] for key in _FIGURES], dtype=torch.float64)
    return sums, totals.to(device)


def _check_size(recipe: Recipe, traits: Traits) -> None:
    multiple, least = traits.size_multiple, traits.smallest_size
    if recipe.height % multiple or recipe.width % multiple or min(recipe.height, recipe.width) < least:
        raise InputError(
            f"'{recipe.network}' takes pairs whose height and width are multiples of {multiple} and at least {least} px, got "
            f"{recipe.width}x{recipe.height}; change the fields 'height' and 'width'."
        )


def narrowed(network: torch.nn.Module, dtype: torch.dtype | None) -> tuple[torch.nn.Module, dict[torch.nn.Parameter, Tensor]]:
    """A twin of a network whose convolutions hold their weights in a narrow type, so that autocast need not cast them at each use.

    Everything else it shares with the network, buffers too.

    Returns:
        The twin, and the parameters it holds copies of, to be brought up to date after each update. Without a narrow type the
        network itself, and none.
    """
    if dtype is None:
        return network, {}
    layers = [module for module in network.modules() if type(module) in (torch.nn.Conv2d, torch.nn.ConvTranspose2d)]
    twins: dict[torch.nn.Parameter, Tensor] = {
        parameter: torch.nn.Parameter(parameter.detach().to(dtype), requires_grad=parameter.requires_grad)
        for layer in layers
        for parameter in layer.parameters(recurse=False)
    }
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return deepcopy(network, shared | {id(parameter): twin for parameter, twin in twins.items()}), twins


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The narrow type of a recipe's `precision` on a device; None for float32."""
    if precision == "auto":
        return torch.bfloat16 if bfloat16_pays(device) else None
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def order_of_maps(dtype: torch.dtype | None, device: torch.device) -> torch.memory_format:
    """How maps lie in memory while a network learns: channels-last, but channel by channel in float32 on a CPU with AVX2 alone,
    where oneDNN takes up to six times as long over gradients of weights of channels-last maps, the longer the wider they are."""
    slow = dtype is None and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return torch.contiguous_format if slow else torch.channels_last


def _workers(device: torch.device, chunks: int) -> ThreadPoolExecutor:
    """Threads that work on chunks side by side. On a CPU one core each: many small operations gain little from being
    split over cores themselves."""
    if device.type != "cpu":
        return ThreadPoolExecutor(1)
    count = min(chunks, torch.get_num_threads())
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(max(1, torch.get_num_threads() // count),))


def bfloat16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.no_grad()
def _end_point_error(flow: Tensor, truth: Tensor, valid: Tensor) -> float:
    error = lengths(flow - truth)
    return (error * valid).sum().item() / max(valid.sum().item(), 1)


class _StopSignals:
    """Turns SIGINT and SIGTERM into a wish to stop after the step that is running; a second one acts at once."""

    def __init__(self):
        self.asked = False

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self):
        self.previous = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._ask)
        except ValueError:  # not in the main thread: whoever runs us handles signals
            pass
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)
