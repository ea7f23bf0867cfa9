"""Does the dtype int8 keep the flow? The OpenVINO engine in 8 bits against its float32 and bfloat16.

    pip install "featherflow[int8]"
    python benchmarks/int8.py PAIRS [--model liteflownet-tied] [--rounds 5]

End-point errors [px], per_image, on a folder of real pairs in the layout of `featherflow.evaluation.samples`; times of one pair of
1024x436, in turn; the network alone, without refinement. The engines are built first, for each size, which takes minutes, and kept.
"""

from __future__ import annotations

import argparse
import statistics
import time

import featherflow
from featherflow.evaluation import Dataset
from featherflow.flow import FlowMetrics
from featherflow.frames import as_batch

SIZE = (436, 1024)
DTYPES = ("float32", "bfloat16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--model", default="liteflownet-tied")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    errors: dict[str, dict[str, FlowMetrics]] = {dtype: {} for dtype in DTYPES}
    times: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
    for pair in Dataset.parse(f"samples={options.pairs}").pairs():
        example = pair.read()
        frames = as_batch(example.frame1), as_batch(example.frame2)
        if example.frame1.shape[:2] == SIZE:
            timed = frames
        for dtype in DTYPES:
            flow = featherflow.estimate(*frames, options.model, engine="openvino", dtype=dtype, refine=0)
            errors[dtype].setdefault(pair.group, FlowMetrics()).update(flow, example.flow, example.valid)
    for _ in range(options.rounds):
        for dtype in DTYPES:
            started = time.perf_counter()
            featherflow.estimate(*timed, options.model, engine="openvino", dtype=dtype, refine=0)
            times[dtype].append(1000 * (time.perf_counter() - started))
    groups = list(errors["float32"])
    print(f"| {options.model} | {' | '.join(groups)} | median ms | fastest ms |\n| --- |{' ---: |' * (len(groups) + 2)}")
    for dtype in DTYPES:
        found = [errors[dtype][group].result().per_image.epe for group in groups]
        base = [errors["float32"][group].result().per_image.epe for group in groups]
        cells = [f"{epe:.3f} ({100 * (epe / whole - 1):+.1f} %)" for epe, whole in zip(found, base, strict=True)]
        print(f"| {dtype} | {' | '.join(cells)} | {statistics.median(times[dtype]):.0f} | {min(times[dtype]):.0f} |")


if __name__ == "__main__":
    main()
