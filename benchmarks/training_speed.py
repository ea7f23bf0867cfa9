"""How many flows a second does each network learn from, and how much of the time goes to making them?

    python benchmarks/training_speed.py --networks liteflownet2-slim liteflownet2 --seconds 20

Modern recipes, forward and backward pass and update, pairs rendered on the same device; the same crop and batch for all. A pair
that is used both ways counts as two samples. Seconds of all cores together, the median of the steps, tell more than the clock on a
machine that does other things too. The share of data is the time from asking for a part of a batch to having it, over all the time
of that part.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from featherflow.data import TextureBank
from featherflow.training import RECIPES
from featherflow.training.loop import Trainer


def main() -> None:
    networks = [name.removeprefix("modern/") for name in RECIPES if name.startswith("modern/")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=networks, choices=networks, metavar="NAME")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--size", nargs=2, type=int, default=(192, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    textures = TextureBank.procedural(48, 256, torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else f"{threads} threads"
    height, width = arguments.size
    print(f"{arguments.device} ({where}), torch {torch.__version__}, batch {arguments.batch} of {width}x{height} px\n")
    print("| network | precision | samples/s | core seconds per sample | share of data |\n| --- | --- | ---: | ---: | ---: |")
    for name in arguments.networks:
        for precision in arguments.precisions:
            recipe = replace(
                RECIPES[f"modern/{name}"],
                precision=precision,
                batch=arguments.batch,
                height=height,
                width=width,
            )
            with tempfile.TemporaryDirectory() as folder:
                backend = "inductor" if arguments.compile else None
                run = Trainer(recipe, Path(folder), textures, device=arguments.device, compile=backend)
                run.train_step()
                begun, started, steps, cores = run.samples, time.monotonic(), [], []
                while time.monotonic() - started < arguments.seconds or len(steps) < 3:
                    worked = time.process_time()
                    steps.append(run.train_step())
                    cores.append((time.process_time() - worked) / recipe.batch)
                seconds = time.monotonic() - started
            share = sum(step["data_seconds"] for step in steps) / sum(step["seconds"] for step in steps)
            pace = (run.samples - begun) / seconds
            print(f"| {name} | {precision} | {pace:.1f} | {statistics.median(cores):.3f} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
