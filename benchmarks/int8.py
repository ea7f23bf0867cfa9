"""Does 8-bit quantisation after training keep the flow? Convolutions of the OpenVINO engine in int8 against float32 and bfloat16.

    pip install nncf
    python benchmarks/int8.py PAIRS [--model liteflownet2-slim] [--calibration 8]

Calibrated on procedural pairs; end-point errors [px], per_image, on the 1024x436 pairs of a folder of real pairs in the layout of
`featherflow.evaluation.samples`; times of one pair, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

import featherflow
from featherflow.data import SceneConfig, TextureBank, render_pairs
from featherflow.engines import Portable, openvino
from featherflow.evaluation import Dataset
from featherflow.flow import FlowMetrics
from featherflow.frames import as_batch

SIZE = (436, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--model", default="liteflownet2-slim")
    parser.add_argument("--calibration", type=int, default=8, help="procedural pairs")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    import nncf

    module = Portable(featherflow.load(options.model), SIZE)
    model = openvino.graph(module, module.example())
    textures = TextureBank.procedural(24, 512, torch.Generator().manual_seed(1))
    scenes = SceneConfig(height=SIZE[0], width=SIZE[1], effects=None)
    pairs = [render_pairs(1, scenes, textures, torch.Generator().manual_seed(seed), backward=False)
             for seed in range(options.calibration)]
    calibration = nncf.Dataset([[pair.frame1.numpy(), pair.frame2.numpy()] for pair in pairs])
    kept = ["MatMul", "Add", "Multiply", "Subtract", "Divide", "ReduceMean", "ReduceSum", "Power", "GridSample", "Softmax",
            "Concat", "Interpolate", "GroupConvolutionBackpropData"]
    everything_else = nncf.IgnoredScope(types=kept, validate=False)
    quantized = nncf.quantize(model, calibration, preset=nncf.QuantizationPreset.MIXED, subset_size=options.calibration,
                              ignored_scope=everything_else)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"float32": Path(folder) / "whole.xml", "int8": Path(folder) / "int8.xml"}
        openvino.save(model, paths["float32"])
        openvino.save(quantized, paths["int8"])
        threads = torch.get_num_threads()
        runs = {
            "float32": openvino.load(paths["float32"], "float32", threads),
            "bfloat16": openvino.load(paths["float32"], "bfloat16", threads),
            "int8 convolutions": openvino.load(paths["int8"], "float32", threads),
        }
    errors: dict[str, dict[str, FlowMetrics]] = {}
    for pair in Dataset.parse(f"samples={options.pairs}").pairs():
        example = pair.read()
        if example.frame1.shape[:2] != SIZE:
            continue
        for name, run in runs.items():
            metrics = errors.setdefault(name, {}).setdefault(pair.group, FlowMetrics())
            metrics.update(run(as_batch(example.frame1), as_batch(example.frame2)), example.flow, example.valid)
    times: dict[str, list[float]] = {name: [] for name in runs}
    frames = module.example()
    for _ in range(options.rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run(*frames)
            times[name].append(1000 * (time.perf_counter() - started))
    groups = list(errors["float32"])
    print(f"| {options.model} | {' | '.join(groups)} | median ms | fastest ms |\n| --- |{' ---: |' * (len(groups) + 2)}")
    for name in runs:
        found = [errors[name][group].result().per_image.epe for group in groups]
        base = [errors["float32"][group].result().per_image.epe for group in groups]
        cells = [f"{epe:.3f} ({100 * (epe / whole - 1):+.1f} %)" for epe, whole in zip(found, base, strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {statistics.median(times[name]):.0f} | {min(times[name]):.0f} |")


if __name__ == "__main__":
    main()
