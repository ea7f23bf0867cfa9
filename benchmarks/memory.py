"""Most memory held beyond the imports, at 436p, 1080p, 4K and 8K; and the time that imports take.

    python benchmarks/memory.py [--model liteflownet2-slim] [--dtype float32] [--engine torch]

Each size runs in a process of its own, frames `(H, W, 3)` uint8 in, flow `(H, W, 2)` float32 out; frames and flow are counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from featherflow.evaluation.speed import Candidate, peak_memory

SIZES = {"436p": (436, 1024), "1080p": (1080, 1920), "4K": (2160, 3840), "8K": (4320, 7680)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=SIZES)
    options = parser.parse_args()
    models = options.model or ["liteflownet2-slim"]
    print(f"| peak beyond the imports [MiB] | {' | '.join(options.sizes)} |\n| --- |{' ---: |' * len(options.sizes)}")
    for model in models:
        print(f"| {model}, {options.engine}, {options.dtype} |", end="", flush=True)
        for name in options.sizes:
            peak = peak_memory(Candidate(model, options.engine, options.dtype), SIZES[name])
            print(f" {'failed' if peak is None else f'{peak:.0f}'} |", end="", flush=True)
        print()
    for module in ("featherflow", "torch", "featherflow.inference.estimator"):
        times = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            times.append(time.perf_counter() - started)
        print(f"import {module}: {min(times):.2f} s with the interpreter's start")


if __name__ == "__main__":
    main()
