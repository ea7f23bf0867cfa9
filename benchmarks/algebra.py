"""Flow algebra beside oflibpytorch, on flows whose answers are known by formulas.

    pip install oflibpytorch
    python benchmarks/algebra.py [--size 240x320] [--runs 5]

For each operation and flow: the mean and the largest distance from the truth [px] over the pixels that both call valid, the share
of pixels that each calls valid, and the median time [ms]. oflibpytorch is measured both ways that it has: in PyTorch alone (its
default), and with SciPy's scattered interpolation, without gradients; composition, resampling and fits are the same in both. The
smooth flow is x + a sin(k x + ...), whose inverse is found by iterating the formula itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import oflibpytorch
import torch

from featherflow.flow.algebra import compose, invert, resample, switch_frame
from featherflow.flow.transforms import to_affine, to_homography

Motion = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="240x320", help="height x width")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    size = tuple(int(side) for side in arguments.size.split("x"))
    print("| operation | flow | by | mean [px] | largest [px] | valid | ms |\n| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for name, motion in {"affine": affine(matrix(size)), "smooth": smooth(size)}.items():
        measure_moves(name, motion, size, arguments.runs)
    measure_fits(size, arguments.runs)


def measure_moves(name: str, motion: Motion, size: tuple[int, int], runs: int) -> None:
    start = grid(size)
    once = np.stack(motion(start[..., 0], start[..., 1]), axis=-1)
    twice = np.stack(motion(once[..., 0], once[..., 1]), axis=-1)
    back = start.copy()
    for _ in range(200):
        back += start - np.stack(motion(back[..., 0], back[..., 1]), axis=-1)
    flow = tensor(once - start)
    half = tuple(side // 2 for side in size)
    coarse = grid(half)
    fine = 2 * coarse + 0.5  # where the centres of pixels twice as large lie
    small = (np.stack(motion(fine[..., 0], fine[..., 1]), axis=-1) - fine) / 2

    def theirs(operation: Callable) -> Callable:
        def run():
            result = operation(oflibpytorch.Flow(flow, "s"))
            return result.vecs, result.mask[:, None]

        return run

    jobs = {
        "compose": (twice - start, lambda: compose(flow, flow), lambda f: f.combine_with(f, 3)),
        "invert": (back - start, lambda: invert(flow), lambda f: f.invert("s")),
        "switch frame": (start - back, lambda: switch_frame(flow), lambda f: f.switch_ref()),
        "resample to half": (small, lambda: resample(flow, half), lambda f: f.resize(0.5)),
    }
    for job, (truth, ours, other) in jobs.items():
        answers = {"featherflow": timed(ours, runs)}
        modes = (
            {"oflibpytorch": True, "oflibpytorch, SciPy": False} if job in ("invert", "switch frame") else {"oflibpytorch": True}
        )
        for label, pure in modes.items():
            oflibpytorch.set_pure_pytorch() if pure else oflibpytorch.unset_pure_pytorch()
            answers[label] = timed(theirs(other), runs if pure else 1)
        oflibpytorch.set_pure_pytorch()
        both = torch.stack([valid.bool().expand(1, 1, *truth.shape[:2]) for (_, valid), _ in answers.values()]).all(dim=0)
        for label, ((found, valid), milliseconds) in answers.items():
            error = (found - tensor(truth)).norm(dim=1, keepdim=True)[both]
            row(job, name, label, error, float(valid.float().mean()), milliseconds)


def measure_fits(size: tuple[int, int], runs: int) -> None:
    """Maps from flows of which 40 % move otherwise, and the rest has noise of 0.1 px; the distance is that of the maps."""
    random = np.random.default_rng(0)
    start = grid(size)
    bent = np.vstack((matrix(size), [1e-4, -5e-5, 1]))
    cases = {
        "affine": (affine(matrix(size)), lambda flow: to_affine(flow), 6),
        "homography": (projective(bent), lambda flow: to_homography(flow), 8),
    }
    for name, (motion, ours, freedom) in cases.items():
        truth = np.stack(motion(start[..., 0], start[..., 1]), axis=-1)
        field = truth - start + random.normal(0, 0.1, start.shape)
        wrong = random.random(size) < 0.4
        field[wrong] += random.uniform(3, 30, (wrong.sum(), 2))
        flow = tensor(field)
        fits = {
            "featherflow": timed(lambda ours=ours, flow=flow: ours(flow), runs),
            "oflibpytorch": timed(lambda flow=flow, n=freedom: (oflibpytorch.Flow(flow, "s").matrix(n, "ransac"), None), runs),
        }
        for label, ((found, _), milliseconds) in fits.items():
            array = found[0].numpy().astype(np.float64)
            array = array if len(array) == 3 else np.vstack((array, [0, 0, 1]))
            goal = np.stack(projective(array)(start[..., 0], start[..., 1]), axis=-1)
            row("fit a map", name, label, torch.from_numpy(np.linalg.norm(goal - truth, axis=-1)), 1.0, milliseconds)


def row(job: str, flow: str, label: str, error: torch.Tensor, valid: float, milliseconds: float) -> None:
    print(
        f"| {job} | {flow} | {label} | {float(error.mean()):.2g} | {float(error.max()):.2g} | {100 * valid:.1f} % "
        f"| {milliseconds:.1f} |",
        flush=True,
    )


def timed(work: Callable, runs: int):
    result, seconds = None, []
    for _ in range(runs):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return result, 1000 * statistics.median(seconds)


def grid(size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return np.stack((x, y), axis=-1)


def tensor(field: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(field, -1, 0).astype(np.float32).copy())[None]


def matrix(size: tuple[int, int]) -> np.ndarray:
    """A turn by 8 degrees about the centre, 5 % larger, and a shift."""
    angle, growth, centre = np.deg2rad(8), 1.05, np.array([size[1] / 2, size[0] / 2])
    turn = growth * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack((turn, centre - turn @ centre + [4.3, -2.6]))


def affine(numbers: np.ndarray) -> Motion:
    return projective(np.vstack((numbers, [0, 0, 1])))


def projective(numbers: np.ndarray) -> Motion:
    def motion(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, c = (row[0] * x + row[1] * y + row[2] for row in numbers)
        return a / c, b / c

    return motion


def smooth(size: tuple[int, int]) -> Motion:
    k = 2 * np.pi / min(size)

    def motion(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x + 6 * np.sin(2 * k * x + k * y), y + 5 * np.cos(k * x - 2 * k * y)

    return motion


if __name__ == "__main__":
    main()
