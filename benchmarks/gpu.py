"""What the Triton kernels, half precision and CUDA graphs gain on a GPU, and what they cost.

    python benchmarks/gpu.py [--rounds 20]

Times of one pair of 1024x436 px (the frames of the demonstration, enlarged), uint8 frames in, float32 flow out, every way in turn;
and how far each flow is from PyTorch's in float32 without the kernels [px]: mean and largest. liteflownet2 has random weights, so
read its differences beside the mean length of its flow. What is logged on standard error is part of the answer: a kernel that did
not agree with PyTorch is named there and was not used.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import numpy as np
import torch
from PIL import Image

import featherflow
from featherflow import demo, networks
from featherflow.training.initialization import initialize

SIZE = (1024, 436)
DTYPES = ("float32", "bfloat16", "float16")
WAYS = {"torch": ("torch", "0"), "torch, Triton kernels": ("torch", "1"), "compile": ("compile", "1")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This measures what a GPU gains, and PyTorch sees none on this machine.")
    pictures = [Image.open(path).convert("RGB") for path in (demo.FRAME1, demo.FRAME2)]
    frames = [np.asarray(picture.resize(SIZE, Image.Resampling.BICUBIC)) for picture in pictures]
    untrained = networks.build("liteflownet2")
    initialize(untrained, torch.Generator().manual_seed(0))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.rounds} rounds in turn\n")
    print("| network | engine | dtype | median ms | fastest ms | mean px | largest px |\n| --- | --- | --- |" + " ---: |" * 4)
    for name, model in (("liteflownet2", untrained), ("liteflownet2-slim", "liteflownet2-slim")):
        compare(name, model, frames, options.rounds)


def compare(name: str, model, frames: list[np.ndarray], rounds: int) -> None:
    candidates = [(way, dtype) for dtype in DTYPES for way in WAYS]

    def estimate(way: str, dtype: str) -> np.ndarray:
        engine, os.environ["FEATHERFLOW_TRITON"] = WAYS[way]
        return featherflow.estimate(*frames, model, engine=engine, dtype=dtype, device="cuda", enlarge=1.0)

    flows = {candidate: [estimate(*candidate) for _ in range(5)][-1] for candidate in candidates}  # compiled and recorded by then
    times: dict[tuple[str, str], list[float]] = {candidate: [] for candidate in candidates}
    for _ in range(rounds):
        for candidate in candidates:
            started = time.perf_counter()
            estimate(*candidate)
            times[candidate].append(1000 * (time.perf_counter() - started))
    base = flows["torch", "float32"]
    for way, dtype in candidates:
        apart, taken = np.linalg.norm(flows[way, dtype] - base, axis=-1), times[way, dtype]
        figures = f"{statistics.median(taken):.1f} | {min(taken):.1f} | {apart.mean():.2g} | {apart.max():.2g}"
        print(f"| {name} | {way} | {dtype} | {figures} |", flush=True)
    print(f"| {name} | | mean length | | | {np.linalg.norm(base, axis=-1).mean():.2f} | |", flush=True)


if __name__ == "__main__":
    main()
