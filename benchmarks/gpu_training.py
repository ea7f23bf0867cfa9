"""A piece of training on one GPU, as long as the clock says: how weights of the package were made on an H200.

    python benchmarks/gpu_training.py modern/liteflownet-tied --run runs/tied --textures textures.st --state-shards state/ \
        --minutes 16 --set batch=32 --set height=384 --set width=576 --sweeps 1,1,1,2 --compile

It is the trainer of the package with four things changed, so that the GPU never waits: a step's gradient is one CUDA graph, its
largest pieces are compiled beforehand (a minute or two), a thread renders the pairs of many steps at a time, and nothing is read
back but every 50 steps. The rate follows the clock and not the samples: constant, then falling evenly to a hundredth at the end.
With crops of 384x576, 390 samples/s (86 million pixels) of liteflownet-tied in batches of 32, 230 of liteflownet2 in batches of 16.

The weights of each minute lie in `RUN/weights.safetensors`, the state in `RUN/checkpoint.pt`; without a GPU it runs too, slowly.
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featherflow.data import PairBatch, TextureBank
from featherflow.data.procedural import render_pairs
from featherflow.data.streams import RenderedPairs
from featherflow.ops import lengths
from featherflow.training.command import _begin_with, changed_recipe
from featherflow.training.loop import Trainer, trained
from featherflow.training.shards import write_shards

COMPILED_FROM = 5
"""The coarsest level of liteflownet-tied that is compiled: those above take little time."""
REPORT_EVERY, SAVE_EVERY = 50, 60.0  # steps, s

Gradients = tuple[Tensor, list[Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--textures", type=Path, required=True, help="packed texture file")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--start", help="weights to begin a new run with")
    parser.add_argument("--state-shards", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a number of the recipe")
    parser.add_argument("--rate", type=float, default=1.2e-3, help="peak of the learning rate")
    parser.add_argument("--constant", type=float, default=0.3, help="share of the time before the rate falls")
    parser.add_argument("--sweeps", default="", help="of liteflownet-tied, step by step in turn")
    parser.add_argument("--steps-ahead", type=int, default=16, help="steps whose pairs are rendered together")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()

    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    always = ("chunks=1", "samples=100000000", "occluded_from=0", "occluded_until=1e-9", "precision=bfloat16")
    recipe, start = changed_recipe(options.recipe, [*always, *options.set]), None
    if options.start:
        start, recipe = _begin_with(options.start, (), recipe)
    bank = TextureBank.load(options.textures)
    trainer = Trainer(recipe, options.run, bank, device=options.device, start=start, shards=options.state_shards)
    sweeps = [int(number) for number in options.sweeps.split(",")] if options.sweeps else [None]
    if options.compile:
        compile_pieces(trainer.narrow)
    step = Step(trainer, rendered(trainer, recipe.batch // 2, seed=0), sweeps)
    pairs = ahead(trainer, options.steps_ahead)

    def rate(done: float) -> float:
        falling = (1.0 - done) / (1.0 - options.constant)
        return options.rate * min(1.0, max(done, 1e-3) / 0.01, max(0.01, falling))

    begun = saved = reported = time.monotonic()
    window = []
    with (options.run / "log.jsonl").open("a") as log:
        for batch in pairs:
            done = (time.monotonic() - begun) / (60 * options.minutes)
            if done >= 1.0:
                break
            window.append(step(batch, rate(done)))
            if len(window) == REPORT_EVERY:
                loss, error, norm, skipped = torch.stack(window).nan_to_num().mean(0).tolist()  # waits for the GPU
                now = time.monotonic()
                line = {"step": trainer.step, "samples": trainer.samples, "loss": loss, "epe": error, "norm": norm}
                line |= {"rate": rate(done), "samples_per_s": len(window) * recipe.batch / (now - reported)}
                line["skipped"] = round(skipped * len(window))
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(line, flush=True)
                window, reported = [], now
            if time.monotonic() - saved > SAVE_EVERY:
                save(trainer)
                saved = time.monotonic()
    save(trainer)
    if options.state_shards:
        write_shards(options.state_shards, trainer.state())


def save(trainer: Trainer) -> None:
    trainer.save()
    trainer.export(trainer.folder / "weights.safetensors")


def compile_pieces(network: Any) -> None:
    """Compile what takes the time of liteflownet-tied, for the sizes that come."""
    torch._dynamo.config.recompile_limit = 64
    decoder = network.decoder.forward
    quick = torch.compile(decoder, dynamic=False)
    network.decoder.forward = lambda level, *rest: (quick if level <= COMPILED_FROM else decoder)(level, *rest)
    for part in (network.finest, network.upsampling, network.encoder):
        part.forward = torch.compile(part.forward, dynamic=False)


def rendered(trainer: Trainer, pairs: int, seed: int) -> PairBatch:
    """Pairs with both ways of each, on the trainer's device."""
    source, generator = trainer.source, torch.Generator(trainer.device).manual_seed(seed)
    assert isinstance(source, RenderedPairs)
    return render_pairs(pairs, source.scene, source.textures, generator, trainer.device, backward=True)


def ahead(trainer: Trainer, steps: int) -> Iterator[PairBatch]:
    """Batches without end, rendered by a thread on a stream of its own, `steps` of them at a time."""
    groups: queue.Queue[PairBatch | BaseException] = queue.Queue(maxsize=1)
    each, seeds = trainer.recipe.batch // 2, itertools.count(trainer.recipe.seed * 1_000_003 + trainer.step * 1000)

    def render() -> None:
        stream = torch.cuda.Stream() if trainer.device.type == "cuda" else None
        try:
            for seed in seeds:
                with torch.cuda.stream(stream) if stream else nullcontext():
                    group = rendered(trainer, each * steps, seed)
                    if stream:
                        stream.synchronize()
                groups.put(group)
        except BaseException as error:
            groups.put(error)

    threading.Thread(target=render, daemon=True).start()
    while True:
        group = groups.get()
        if isinstance(group, BaseException):
            raise group
        for tensor in vars(group).values():
            if tensor.is_cuda:  # its memory is not to be given away before this stream has read it
                tensor.record_stream(torch.cuda.current_stream())
        for index in range(steps):
            yield group.part(index * each, (index + 1) * each)


class Step:
    """One update, in which the gradient is a CUDA graph for each number of sweeps."""

    def __init__(self, trainer: Trainer, example: PairBatch, sweeps: Sequence[int | None]):
        self.trainer, self.sweeps = trainer, sweeps
        frame1, frame2, truth, valid = self._read(example)
        frames = [frame.clone(memory_format=torch.channels_last) for frame in (frame1, frame2)]
        self.inputs = [*frames, truth.clone(), valid.float()]
        trainer.network.train()
        trainer.narrow.train()
        self.gradients = {number: self._captured(number) for number in dict.fromkeys(sweeps)}

    @staticmethod
    def _read(pairs: PairBatch) -> tuple[Tensor, ...]:
        truth, valid, _ = pairs.labels()
        return pairs.frame1, pairs.frame2, truth, valid

    def __call__(self, pairs: PairBatch, rate: float) -> Tensor:
        """Loss, end-point error [px], norm of the gradient and whether the step was skipped, on the device."""
        trainer = self.trainer
        for held, new in zip(self.inputs, self._read(pairs), strict=True):
            held.copy_(new)
        trainer._bring_twins_up_to_date()
        figures, gradients = self.gradients[self.sweeps[trainer.step % len(self.sweeps)]]()
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        for parameter, gradient in zip(trained(trainer.network), gradients, strict=True):
            parameter.grad = gradient
        trainer.optimizer.step()
        trainer.step += 1
        trainer.samples += trainer.recipe.batch
        trainer._update_average()
        return figures.clone()

    def _captured(self, sweeps: int | None) -> Callable[[], Gradients]:
        if self.trainer.device.type != "cuda":
            return lambda: self._differentiate(sweeps)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._differentiate(sweeps)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = self._differentiate(sweeps)

        def replay() -> Gradients:
            graph.replay()
            return answer

        return replay

    def _differentiate(self, sweeps: int | None) -> Gradients:
        """Figures and clipped gradients in float32; these are 0 where one of them is not finite."""
        trainer, (frame1, frame2, truth, valid) = self.trainer, self.inputs
        network, options = trainer.narrow, {} if sweeps is None else {"iterations": sweeps}
        with torch.autocast(trainer.device.type, torch.bfloat16, cache_enabled=False):
            loss, flow = trainer.stage.loss(network, frame1, frame2, truth, valid, **options)
        narrow = torch.autograd.grad(loss, trained(network), materialize_grads=True)
        with torch.no_grad():
            gradients = [gradient.to(torch.float32, copy=True) for gradient in narrow]
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
            finite = norm.isfinite() & loss.isfinite()
            factor = torch.where(finite, (trainer.recipe.clip_norm / (norm + 1e-6)).clamp(max=1.0), torch.zeros_like(norm))
            gradients = [gradient.mul_(factor).nan_to_num_(0.0, 0.0, 0.0) for gradient in gradients]
            error = (lengths(flow - truth) * valid).sum() / valid.sum().clamp_min(1.0)
        return torch.stack((loss.detach().float(), error, norm, 1.0 - finite.float())), gradients


if __name__ == "__main__":
    main()
