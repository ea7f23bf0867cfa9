"""Loss, error in training and validation against samples, from the logs of runs that followed each other.

    python benchmarks/training_curves.py "first=runs/first@0" "large crops=runs/second@52000" -o training-curves.png

NAME=RUN@BEFORE is a run's name in the picture, its folder, and how many samples its weights had seen before it. Needs matplotlib.
Validation comes from the logs, or, where logs are gone, from the tables of a page (first column "12.3 k", then EPE by group).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SMOOTHED = 15  # reports that one point of a curve is the mean of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN@BEFORE")
    parser.add_argument("--table", type=Path, help="page whose tables of validation are drawn in place of those of the logs")
    parser.add_argument("--section", action="append", help="heading of the page that tables are taken from; all of them by default")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()

    figure, axes = plt.subplots(3, 1, figsize=(8, 9), sharex=True, layout="constrained")
    curves: dict[str, list[tuple[float, float]]] = {}
    for run in arguments.runs:
        name, _, place = run.partition("=")
        folder, _, before = place.rpartition("@")
        lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
        reports = [line for line in lines if "loss" in line]
        samples = smoothed([(int(before) + line["samples"]) / 1000 for line in reports])
        for axis, key in zip(axes, ("loss", "epe"), strict=False):
            axis.plot(samples, smoothed([line[key] for line in reports]), label=name)
        for line in lines:
            for group, epe in line.get("validation", {}).items():
                curves.setdefault(group, []).append(((int(before) + line["samples"]) / 1000, epe))
    for group, points in (table_curves(arguments.table, arguments.section) if arguments.table else curves).items():
        axes[2].plot(*zip(*points, strict=True), marker=".", label=group)
    axes[0].set_ylabel("loss")
    axes[1].set_ylabel("error in training [px]")
    axes[2].set_ylabel("EPE [px], per_image")
    axes[2].set_xlabel("thousands of samples")
    axes[2].set_yscale("log")
    axes[2].yaxis.set_major_formatter("{x:g}")
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axis in axes[:2]:
        axis.set_ylim(bottom=0)
    figure.savefig(arguments.output, dpi=90)


def smoothed(values: list[float]) -> np.ndarray:
    """Means of `SMOOTHED` neighbours, of fewer in a short run."""
    count = min(SMOOTHED, max(len(values) // 5, 1))
    return np.convolve(values, np.full(count, 1 / count), mode="valid")


def table_curves(page: Path, sections: list[str] | None) -> dict[str, list[tuple[float, float]]]:
    """Points by group from the tables of a page, or of some sections of it, whose first column is "samples" in thousands."""
    curves: dict[str, list[tuple[float, float]]] = {}
    groups: list[str] = []
    section = ""
    for line in page.read_text().splitlines():
        section = line.lstrip("# ") if line.startswith("#") else section
        if sections and section not in sections:
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "samples":
            groups = cells[1:] if "middlebury" in cells else []
        elif groups and (count := re.match(r"([\d.]+) k\b", cells[0])):
            for group, epe in zip(groups, cells[1:], strict=True):
                if epe:
                    curves.setdefault(group, []).append((float(count[1]), float(epe)))
    return {group: sorted(points) for group, points in curves.items()}


if __name__ == "__main__":
    main()
