"""The training loop: resumable at any step, safe against interruption and NaN, measured in samples.

A run lives in a folder: `checkpoint.pt` (everything to go on from), `log.jsonl` (one line per report) and, at the end of
each piece, `weights.safetensors` (the averaged weights, ready to use).
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from .. import networks
from ..data import PairBatch, SceneConfig, TextureBank, render_pairs
from ..errors import TrainingError
from ..files import atomic_write
from ..networks.liteflownet import LiteFlowNet
from .initialization import initialize
from .optimizers import make_optimizer
from .recipes import Recipe

REPORT_EVERY = 20  # steps
CHECKPOINT_EVERY = 120.0  # s
MOST_BAD_STEPS = 20  # in a row

Validation = Callable[[torch.nn.Module], dict[str, float]]


class Trainer:
    """State of a run and the means to advance it.

    Args:
        recipe: all numbers of the run.
        folder: where the run lives; created if missing. A checkpoint found there is continued.
        textures: photos and procedural textures the pairs are made of.
        scene: the scenes to render, before the recipe's own changes; height and width come from the recipe.
        start: weights to begin with instead of random ones; only for a new run.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        textures: TextureBank | None,
        scene: SceneConfig | None = None,
        device: str = "cpu",
        start: dict[str, Tensor] | None = None,
    ):
        self.recipe, self.folder, self.device = recipe, Path(folder), torch.device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.textures = textures
        self.scene = dataclasses.replace(
            scene or SceneConfig(), height=recipe.height, width=recipe.width, **recipe.scene
        )
        torch.manual_seed(recipe.seed)
        self.network = networks.build(recipe.network, **recipe.options)
        if start is None:
            initialize(self.network, torch.Generator().manual_seed(recipe.seed))
        else:
            self.network.load_state_dict(start)
        if isinstance(self.network, LiteFlowNet):
            self.network.mean2.copy_(self.network.mean1)  # one mean for both frames: features can serve as either
        self.network.to(self.device, memory_format=torch.channels_last)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizer = make_optimizer(self.network, recipe)
        self.autocast = bfloat16_pays(self.device)
        self.workers = _workers(self.device, recipe.chunks)
        self.step = self.samples = self.skipped = 0
        if self.checkpoint.exists():
            self.resume()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write everything that the next piece of the run needs; an interrupted write leaves the old file."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "samples": self.samples,
            "skipped": self.skipped,
            "recipe": dataclasses.asdict(self.recipe),
        }
        with atomic_write(self.checkpoint) as file:
            torch.save(state, file)

    def resume(self) -> None:
        """Go on from the folder's checkpoint; recipe numbers given now win over those it was started with."""
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average = state["average"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.samples, self.skipped = state["step"], state["samples"], state["skipped"]
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TrainingError(f"The checkpoint '{self.checkpoint}' does not fit this run: {reason}") from error

    def chunk(self, step: int, index: int) -> PairBatch:
        """The pairs of one chunk of a step: a function of seed, step and index alone, so that a resumed run sees what it
        would have seen, on any number of workers."""
        number = (self.recipe.seed * 1_000_003 + step) * self.recipe.chunks + index
        generator = torch.Generator(self.device).manual_seed(number)
        size = self.recipe.batch // self.recipe.chunks
        return render_pairs(size, self.scene, self.textures, generator, str(self.device), backward=False)

    def train_step(self) -> dict[str, float]:
        """One update of the weights, or none where loss or gradient is not finite.

        Chunks of the batch are rendered and differentiated independently, by as many workers as there are; their
        gradients are added in order, so that the number of workers changes nothing but the time.
        """
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.samples) * group["rate_factor"]
        self.network.train()
        parts = list(self.workers.map(self._differentiate, range(recipe.chunks)))
        parameters = list(self.network.parameters())
        for position, parameter in enumerate(parameters):
            gradients = [gradients[position] for gradients, _ in parts]
            parameter.grad = gradients[0] if len(gradients) == 1 else torch.stack(gradients).mean(dim=0)
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        figures = {key: sum(f[key] for _, f in parts) / len(parts) for key in ("loss", "epe", "data_seconds", "seconds")}
        figures["norm"] = norm.item()
        self.step += 1
        self.samples += recipe.batch
        if math.isfinite(figures["loss"]) and math.isfinite(figures["norm"]):
            self.optimizer.step()
            self._update_average()
        else:
            self.skipped += 1
            figures["skipped"] = 1.0
        return figures

    def _differentiate(self, index: int) -> tuple[tuple[Tensor, ...], dict[str, float]]:
        """Gradients and figures of one chunk of the current step."""
        started = time.monotonic()
        recipe, network = self.recipe, self.network
        pairs = self.chunk(self.step, index)
        rendered = time.monotonic()
        frames = (frame.contiguous(memory_format=torch.channels_last) for frame in (pairs.frame1, pairs.frame2))
        weight = pairs.valid.float() * (1.0 - (1.0 - recipe.occluded_weight(self.samples)) * pairs.occluded.float())
        # Without its cache: that is shared by all threads, and which of them filled it would show in the last digits.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast, cache_enabled=False):
            loss, flow = recipe.loss(network, *frames, pairs.flow, weight)
        gradients = torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)
        return gradients, {
            "loss": loss.item(),
            "epe": _end_point_error(flow.detach(), pairs),
            "data_seconds": rendered - started,
            "seconds": time.monotonic() - started,
        }

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        state = self.network.state_dict()
        floating = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floating], [state[n] for n in floating], 1.0 - keep)

    def averaged_network(self) -> torch.nn.Module:
        """A copy of the network with the averaged weights, in evaluation mode."""
        network = networks.build(self.recipe.network, **self.recipe.options)
        network.load_state_dict(self.average)
        return network.to(self.device)

    def export(self, path: Path, scores: dict[str, float] | None = None, **details: str) -> None:
        """Write the averaged weights with their metadata."""
        from ..weights.store import WeightsInfo, save_weights

        info = WeightsInfo(
            architecture=self.recipe.network,
            options=dict(self.recipe.options),
            recipe=self.recipe.name,
            samples_seen=self.samples,
            scores={"epe_px_per_image": scores} if scores else {},
            **details,
        )
        save_weights(path, self.average, info, dtype=torch.float16)

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
        started = saved = validated = time.monotonic()
        target = min(self.recipe.samples, self.samples + samples if samples else self.recipe.samples)
        window, bad = [], 0
        window_started = started
        with _StopSignals() as stop, (self.folder / "log.jsonl").open("a") as log:

            def write(line: dict[str, float]) -> None:
                log.write(json.dumps(line) + "\n")
                log.flush()
                if report:
                    report(line)

            while self.samples < target and not stop.asked:
                now = time.monotonic()
                if minutes is not None and now - started > minutes * 60:
                    break
                figures = self.train_step()
                bad = bad + 1 if "skipped" in figures else 0
                if bad > MOST_BAD_STEPS:
                    raise TrainingError(f"No finite gradient in {bad} steps in a row; stopped at step {self.step}.")
                window.append(figures)
                if len(window) == REPORT_EVERY:
                    now = time.monotonic()
                    write(self._summary(window, now - window_started))
                    window, window_started = [], now
                if time.monotonic() - saved > CHECKPOINT_EVERY:
                    self.save()
                    saved = time.monotonic()
                if validate and time.monotonic() - validated > validate_every:
                    write({"step": self.step, "samples": self.samples, "validation": validate(self.averaged_network())})
                    validated = time.monotonic()
                    window, window_started = [], validated
            self.save()
            scores = validate(self.averaged_network()) if validate else None
            if scores is not None:
                write({"step": self.step, "samples": self.samples, "validation": scores})
        self.export(self.folder / "weights.safetensors", scores)

    def _summary(self, window: list[dict[str, float]], seconds: float) -> dict[str, float]:
        """A line of the log: means over the steps of the window."""
        means = {key: sum(figures[key] for figures in window) / len(window) for key in ("loss", "norm", "epe")}
        return {
            "step": self.step,
            "samples": self.samples,
            **means,
            "rate": self.recipe.rate(self.samples),
            "samples_per_s": len(window) * self.recipe.batch / seconds,
            "data_share": sum(f["data_seconds"] for f in window) / sum(f["seconds"] for f in window),
            "skipped": self.skipped,
        }


def _workers(device: torch.device, chunks: int) -> ThreadPoolExecutor:
    """Threads that work on chunks side by side. On a CPU one core each: many small operations gain little from being
    split over cores themselves."""
    if device.type != "cpu":
        return ThreadPoolExecutor(1)
    count = min(chunks, torch.get_num_threads())
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    return ThreadPoolExecutor(count)


def bfloat16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _end_point_error(flow: Tensor, pairs: PairBatch) -> float:
    error = (flow - pairs.flow).norm(dim=1, keepdim=True)
    return (error * pairs.valid).sum().item() / max(pairs.valid.sum().item(), 1)


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
