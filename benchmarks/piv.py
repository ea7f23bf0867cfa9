"""Velocities of particle images: `featherflow piv` beside OpenPIV's window correlation in several passes, in one run.

    pip install openpiv            # GPL: beside featherflow, not part of it
    python benchmarks/piv.py PAIRS [--model liteflownet2-slim+2 --model liteflownetx+2 ...] [--spacing 8]

PAIRS is a folder of folders with a pair each, `NAME_img1.tif`, `NAME_img2.tif` and the true flow `NAME_flow.flo`. A model may be
followed by a number of steps of refinement.

Every method gives vectors on a grid. They are interpolated linearly to all pixels of the area that every grid covers, and compared
there with the true flow: the mean end-point error [px], and the mean error of the gradient, the Frobenius norm of the difference
of the four derivatives [px/px], taken on the grid by central differences and interpolated likewise. "dense" is featherflow's flow
at every pixel, with derivatives from pixel to pixel. Means are over pairs of each pair's mean. Times are medians over the pairs,
each method run once before on the first, images in memory, on as many threads as PyTorch uses.

OpenPIV: windows of 64, 32 and 16 px, each overlapping by half (vectors 8 px apart) or, in the last pass, by three quarters (4 px),
Gaussian sub-pixel peaks, its usual validation and replacement. It deforms either both images by half, its default, whose vectors
stand midway between the frames, or the second alone, whose vectors stand on the first frame as the truth does.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.interpolate import RegularGridInterpolator

import featherflow
from featherflow.images import read_image
from featherflow.transport.fluids import Calibration, Validation, from_flow

PIXELS = Calibration(y_up=False)

#: Columns x, rows y, and displacements (ny, nx, 2) [px].
Grid = tuple[np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--spacing", type=int, action="append")
    arguments = parser.parse_args()
    pairs = {path.name: load(path) for path in sorted(arguments.pairs.iterdir()) if path.is_dir()}
    methods: dict[str, Callable[[np.ndarray, np.ndarray], Grid]] = {}
    for model in arguments.model or ["liteflownet2-slim+3", "liteflownetx+3", "liteflownetx+10"]:
        methods[f"{model}, dense"] = functools.partial(ours, model, 1, None)
        for spacing in arguments.spacing or [8, 4]:
            methods[f"{model}, {spacing} px"] = functools.partial(ours, model, spacing, 2.0)
    for deformation in ("symmetric", "second image"):
        for overlap, spacing in ((8, 8), (12, 4)):
            methods[f"openpiv, {deformation}, {spacing} px"] = functools.partial(openpiv_multipass, deformation, overlap)
    margin = 8  # what every grid covers: OpenPIV's begin half a window from the border
    print("| method | " + " | ".join(pairs) + " | EPE [px] | gradient error | s |\n| --- |" + " ---: |" * (len(pairs) + 3))
    for name, method in methods.items():
        first = next(iter(pairs.values()))
        method(*first[:2])
        epes, gradients, seconds = [], [], []
        for frame1, frame2, truth in pairs.values():
            started = time.perf_counter()
            grid = method(frame1, frame2)
            seconds.append(time.perf_counter() - started)
            epe, gradient = errors(grid, truth, margin)
            epes.append(epe)
            gradients.append(gradient)
        figures = [f"{epe:.3f}" for epe in [*epes, statistics.mean(epes)]]
        print(
            f"| {name} | {' | '.join(figures)} | {statistics.mean(gradients):.4f} | {statistics.median(seconds):.2f} |", flush=True
        )


def load(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frames = [read_image(folder / f"{folder.name}_img{number}.tif") for number in (1, 2)]
    return *frames, featherflow.read_flow(folder / f"{folder.name}_flow.flo").astype(np.float64)


def ours(model: str, spacing: int, threshold: float | None, frame1: np.ndarray, frame2: np.ndarray) -> Grid:
    name, _, steps = model.partition("+")
    flow = featherflow.estimate(frame1, frame2, model=name, refine=int(steps or 0))
    field = from_flow(flow, calibration=PIXELS, spacing=spacing, validation=Validation(outlier_threshold=threshold))
    return field.x, field.y, np.stack((field.u, field.v), axis=-1)


def openpiv_multipass(deformation: str, overlap: int, frame1: np.ndarray, frame2: np.ndarray) -> Grid:
    from openpiv import windef

    settings = windef.PIVSettings()
    settings.windowsizes, settings.overlap, settings.num_iterations = (64, 32, 16), (32, 16, overlap), 3
    settings.deformation_method = deformation
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, y, u, v, _ = windef.simple_multipass(frame1[..., 0].astype(np.float64), frame2[..., 0].astype(np.float64), settings)
    # Its y points up, and it counts from the corner of the first pixel; here y points down, from the pixel's centre.
    x, y = x[0] - 0.5, y[::-1, 0] - 0.5
    return x, y, np.stack((np.asarray(u), -np.asarray(v)), axis=-1)


def errors(grid: Grid, truth: np.ndarray, margin: int) -> tuple[float, float]:
    x, y, vectors = grid
    height, width = truth.shape[:2]
    inner = (slice(margin, height - margin), slice(margin, width - margin))
    places = np.stack(np.meshgrid(np.arange(height)[inner[0]], np.arange(width)[inner[1]], indexing="ij"), axis=-1)

    def everywhere(values: np.ndarray) -> np.ndarray:
        return RegularGridInterpolator((y, x), values, bounds_error=True)(places)

    epe = np.linalg.norm(everywhere(vectors) - truth[inner], axis=-1).mean()
    found = np.concatenate(np.gradient(vectors, y, x, axis=(0, 1)), axis=-1)
    true = np.concatenate(np.gradient(truth, axis=(0, 1)), axis=-1)
    return float(epe), float(np.linalg.norm(everywhere(found) - true[inner], axis=-1).mean())


if __name__ == "__main__":
    main()
