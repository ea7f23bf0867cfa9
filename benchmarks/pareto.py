"""Speed and accuracy of many methods in one picture: milliseconds of one pair against the error on real pairs.

    python benchmarks/pareto.py liteflownet2-slim liteflownet2-slim+1 liteflownet2 dis --data PAIRS -o pareto.png --json pareto.json
    python benchmarks/pareto.py --from pareto.json -o pareto.png

Times are those of `featherflow bench` (medians of rounds in which each method runs once, networks as they run by default), errors
those of `featherflow evaluate`: EPE [px] per_image in each group, mean of the groups. `NAME+N` has N steps of refinement. Networks
without weights, and peers, given as `--against "LABEL=COMMAND"` (see benchmarks/ptlflow_peer.py), have a time only and stand as a
line. Names are bold of methods than which none is both faster and more accurate. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

from featherflow.errors import InputError
from featherflow.evaluation import speed
from featherflow.evaluation.benchmark import Dataset, evaluate, method_named
from featherflow.pixels import parse_size

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        help="as `featherflow evaluate` takes it: FOLDER of pairs, or NAME=ROOT of a benchmark",
    )
    parser.add_argument("--against", action="append", default=[], metavar="LABEL=COMMAND")
    parser.add_argument("--size", default="1024x436")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--from", dest="found", type=Path, help="draw what was measured before")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    found = json.loads(arguments.found.read_text()) if arguments.found else measured(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    draw(found, arguments.output)


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times of all, errors of those that have weights."""
    datasets = [Dataset.parse(text) if "=" in text else Dataset("samples", Path(text)) for text in arguments.data]
    labels = dict(reversed(text.split("=", 1)) for text in arguments.against)
    chosen = [
        *speed.candidates(arguments.models, dtypes=[arguments.dtype]),
        *(speed.Candidate(label, command=command) for command, label in labels.items()),
    ]
    size = parse_size(arguments.size)
    if size is None:
        raise InputError(f"The size must be WIDTHxHEIGHT, got {arguments.size}.")
    times = speed.bench(chosen, size, arguments.rounds, arguments.threads, memory=False)
    names = [timing.model for timing in times.timings if timing.trained and timing.model not in labels.values()]
    errors = evaluate({name: method_named(name, dtype=arguments.dtype) for name in names}, datasets) if datasets else None
    rows = []
    for timing in times.timings:
        groups = (
            {} if errors is None else {r.group: r.figures["per_image"]["epe"] for r in errors.results if r.model == timing.model}
        )
        mean = statistics.mean(groups.values()) if groups else None
        rows.append({"method": timing.model, "ms": timing.ms, "fastest_ms": timing.fastest_ms, "epe": mean, "groups": groups})
    plain = times.as_dict()
    return {key: plain[key] for key in ("width", "height", "runs", "threads", "machine", "date", "failures")} | {"rows": rows}


def front(rows: list[dict[str, Any]]) -> set[str]:
    """Names of the methods than which none is both faster and more accurate."""
    scored = [row for row in rows if row["epe"] is not None]
    return {
        row["method"]
        for row in scored
        if not any(other["ms"] < row["ms"] and other["epe"] < row["epe"] for other in scored if other is not row)
    }


def table(found: dict[str, Any]) -> str:
    """The figures in Markdown, fastest first."""
    best = front(found["rows"])
    groups = list(dict.fromkeys(group for row in found["rows"] for group in row["groups"]))
    lines = [f"| method | ms | EPE, mean of groups | {' | '.join(groups)} |", f"| --- |{' ---: |' * (2 + len(groups))}"]
    for row in sorted(found["rows"], key=lambda row: row["ms"]):
        name = f"**{row['method']}**" if row["method"] in best else row["method"]
        cells = ["" if x is None else f"{x:.2f}" for x in (row["epe"], *(row["groups"].get(group) for group in groups))]
        lines.append(f"| {name} | {row['ms']:.0f} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", conditions(found), *(f"{name}: {reason}" for name, reason in found["failures"].items())])


def conditions(found: dict[str, Any]) -> str:
    return (
        f"{found['width']}x{found['height']} px, medians of {found['runs']} rounds, {found['threads']} threads, "
        f"{found['machine']}, {found['date']}"
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """The picture: time on a logarithmic axis, error upwards, a line through the front."""
    best = front(found["rows"])
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    scored = sorted((row for row in found["rows"] if row["epe"] is not None), key=lambda row: row["ms"])
    ahead = [row for row in scored if row["method"] in best]
    axes.plot([row["ms"] for row in ahead], [row["epe"] for row in ahead], color="0.7", zorder=1)
    for row in scored:
        leads = row["method"] in best
        axes.scatter(row["ms"], row["epe"], color="tab:blue" if leads else "0.5", zorder=2)
        # Labels of the front above, every second one on the other side, all others below: neighbours are close.
        turned = leads and ahead.index(row) % 2 == 1
        place = {"xytext": (-5, -12) if turned else (5, 5 if leads else -12), "ha": "right" if turned else "left"}
        weight = "bold" if leads else "normal"
        axes.annotate(row["method"], (row["ms"], row["epe"]), textcoords="offset points", size=8, weight=weight, **place)
    before = 0.0
    for row in sorted((row for row in found["rows"] if row["epe"] is None), key=lambda row: row["ms"]):
        close, before = row["ms"] < 1.15 * before, row["ms"]  # then on the other side of its line
        axes.axvline(row["ms"], color="tab:orange", linestyle=":", zorder=0)
        place = {"rotation": 90, "size": 8, "ha": "left" if close else "right", "va": "top"}
        axes.annotate(row["method"], (row["ms"], 0.98), xycoords=("data", "axes fraction"), **place)
    axes.set_xscale("log")
    axes.set_xlabel("time of one pair [ms]")
    axes.set_ylabel("EPE [px], per_image, mean of groups")
    axes.margins(x=0.12, y=0.12)
    axes.grid(alpha=0.3, which="both")
    axes.set_title(conditions(found), size=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
