"""Does the dtype int8 keep the flow? The OpenVINO engine in 8 bits against its float32 and bfloat16.

    pip install "featherflow[int8]"
    python benchmarks/int8.py PAIRS [--model liteflownet-tied] [--rounds 5] [--imitate]

End-point errors [px], per_image, on a folder of real pairs in the layout of `featherflow.evaluation.samples`; times of one pair of
1024x436, in turn; the network alone, without refinement. The engines are built first, for each size, which takes minutes, and kept.

A CPU without bfloat16 computes in float32 where this is asked for. With --imitate numbers are rounded to 8 bits and multiplied in
float32, which gives on any CPU the errors of one that multiplies in 8 bits; nothing is timed, and bfloat16 is left out.
"""

from __future__ import annotations

import argparse
import statistics
import time

import openvino

import featherflow
from featherflow.evaluation import Dataset
from featherflow.flow import FlowMetrics
from featherflow.frames import as_batch

SIZE = (436, 1024)
DTYPES = ("float32", "bfloat16", "int8")


def imitate() -> None:
    """Have OpenVINO compute what is quantised as the model says it: rounded, and in float32."""
    compile_model = openvino.Core.compile_model

    def as_written(core, model, device_name, config):
        return compile_model(core, model, device_name, {**config, "LP_TRANSFORMS_MODE": False})

    openvino.Core.compile_model = as_written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--model", default="liteflownet-tied")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imitate", action="store_true", help="multiply what is rounded to 8 bits in float32")
    options = parser.parse_args()
    dtypes = ("float32", "int8") if options.imitate else DTYPES
    if options.imitate:
        imitate()
    errors: dict[str, dict[str, FlowMetrics]] = {dtype: {} for dtype in dtypes}
    times: dict[str, list[float]] = {dtype: [] for dtype in dtypes}
    for pair in Dataset.parse(f"samples={options.pairs}").pairs():
        example = pair.read()
        frames = as_batch(example.frame1), as_batch(example.frame2)
        if example.frame1.shape[:2] == SIZE:
            clocked = frames
        for dtype in dtypes:
            flow = featherflow.estimate(*frames, options.model, engine="openvino", dtype=dtype, refine=0)
            errors[dtype].setdefault(pair.group, FlowMetrics()).update(flow, example.flow, example.valid)
    for _ in range(0 if options.imitate else options.rounds):
        for dtype in dtypes:
            started = time.perf_counter()
            featherflow.estimate(*clocked, options.model, engine="openvino", dtype=dtype, refine=0)
            times[dtype].append(1000 * (time.perf_counter() - started))
    groups = list(errors["float32"])
    print(f"| {options.model} | {' | '.join(groups)} | median ms | fastest ms |\n| --- |{' ---: |' * (len(groups) + 2)}")
    for dtype in dtypes:
        found = [errors[dtype][group].result().per_image.epe for group in groups]
        base = [errors["float32"][group].result().per_image.epe for group in groups]
        cells = [f"{epe:.3f} ({100 * (epe / whole - 1):+.1f} %)" for epe, whole in zip(found, base, strict=True)]
        timed = [f"{of(times[dtype]):.0f}" if times[dtype] else "" for of in (statistics.median, min)]
        print(f"| {dtype} | {' | '.join([*cells, *timed])} |")


if __name__ == "__main__":
    main()
