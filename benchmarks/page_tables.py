"""Tables of README.md and of the manual, filled from the figures of the runs that made them, so that two pages cannot differ.

    python benchmarks/page_tables.py                              # fill the blocks of all pages
    featherflow evaluate PAIRS --model ... --json > run.json
    python benchmarks/page_tables.py --take run.json refinement   # the figures of a new run, then fill

A block begins with `<!-- table: NAME -->` and ends with `<!-- end of table -->`. The figures lie in benchmarks/results, as
`featherflow evaluate --json` prints them, without those of each pair. A test asks that the pages are what this makes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
PAGES = ("README.md", "docs/evaluation.md")
GROUPS = ("middlebury", "sintel-clean", "sintel-final", "kitti2012-noc", "kitti2015", "flyingchairs", "piv")
BLOCK = re.compile(r"(?<=<!-- table: )([\w-]+)( -->\n\n).*?(?=\n\n<!-- end of table -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", nargs=2, metavar=("RUN", "NAME"), help="JSON of a run, and what its figures are called")
    arguments = parser.parse_args()
    if arguments.take:
        run, name = Path(arguments.take[0]), RESULTS / f"{arguments.take[1]}.json"
        name.write_text(json.dumps(taken(json.loads(run.read_text()), json.loads(name.read_text())), indent=1) + "\n")
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text()))


def taken(run: Mapping, known: Mapping) -> dict:
    """The figures of a run, in place of those that are known; what is not measured by `evaluate` stays."""
    results = [{name: value for name, value in entry.items() if name != "each"} for entry in run["results"]]
    kept = {name: value for name, value in known.items() if name in ("command", "milliseconds")}
    return kept | {name: value for name, value in run.items() if name not in ("results", "cost")} | {"results": results}


def filled(page: str) -> str:
    """A page with its blocks made anew."""
    return BLOCK.sub(lambda match: match[1] + match[2] + "\n".join(TABLES[match[1]]()), page)


def all_groups(results: str, rows: Sequence[tuple[str, str]], digits: int) -> list[str]:
    """A row for each of (what it is called, name of the model), a column for each group of pairs."""
    found = errors(figures(results))
    counts = {entry["group"]: entry["pairs"] for entry in figures(results)["results"]}
    lines = [f"| EPE [px], per_image | {' | '.join(f'{group} ({counts[group]})' for group in GROUPS)} |"]
    lines.append(f"| --- |{' ---: |' * len(GROUPS)}")
    return lines + [f"| {label} | {' | '.join(f'{found[model, group]:.{digits}f}' for group in GROUPS)} |" for label, model in rows]


def in_short() -> list[str]:
    """README's: three groups in one column, with parameters and times."""
    known = figures("refinement")
    found, groups = errors(known), ("middlebury", "sintel-clean", "kitti2015")
    counts = {entry["group"]: entry["pairs"] for entry in known["results"]}
    titles = " / ".join(f"{group} ({counts[group]})" for group in groups)
    lines = [f"| network | parameters | EPE [px], per_image: {titles} | ms, 1024x436 |", "| --- | ---: | --- | ---: |"]
    rows = (
        ("`liteflownet-tied`, the default", "liteflownet-tied+1", parameters("liteflownet-tied")),
        ("`liteflownet2`", "liteflownet2+1", parameters("liteflownet2")),
        ("`liteflownet2-slim`", "liteflownet2-slim+1", parameters("liteflownet2-slim")),
        ("`liteflownet`", "liteflownet+1", parameters("liteflownet")),
        ("`liteflownetx`", "liteflownetx+1", parameters("liteflownetx")),
        ("DIS (medium), OpenCV", "dis", ""),
        ("DeepFlow, OpenCV", "deepflow", ""),
    )
    for label, model, size in rows:
        cells = [label, size, " / ".join(f"{found[model, group]:.2f}" for group in groups)]
        cells.append(str(known["milliseconds"].get(model, "")))
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return lines


def parameters(model: str) -> str:
    """How many numbers the weights that come with the package hold, in millions."""
    from featherflow import load

    return f"{sum(parameter.numel() for parameter in load(model).parameters()) / 1e6:.2f} M"


def errors(known: Mapping) -> dict[tuple[str, str], float]:
    """EPE, per_image [px], by model and group."""
    return {(entry["model"], entry["group"]): entry["per_image"]["epe"] for entry in known["results"]}


def figures(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


OURS = ("liteflownet-tied", "liteflownet2", "liteflownet2-slim", "liteflownet", "liteflownetx")
OTHERS = ("farneback", "dis-ultrafast", "dis-fast", "dis", "pcaflow", "tvl1", "deepflow", "rlof", "sparse-to-dense")
TABLES: dict[str, Callable[[], list[str]]] = {
    "accuracy-in-short": in_short,
    "accuracy": lambda: all_groups(
        "accuracy",
        (
            *((f"**{model}**", model) for model in (*OURS[:2], "liteflownet2-kitti", *OURS[2:])),
            *((model, model) for model in OTHERS),
        ),
        digits=2,
    ),
    "refinement": lambda: all_groups(
        "refinement",
        (
            ("liteflownet-tied", "liteflownet-tied"),
            ("**with 1 step**", "liteflownet-tied+1"),
            ("with 3 steps", "liteflownet-tied+3"),
            *((label, model) for ours in OURS[1:] for label, model in ((ours, ours), ("**with 1 step**", f"{ours}+1"))),
            ("dis", "dis"),
            ("with 1 step", "dis+1"),
            ("with 3 steps", "dis+3"),
            ("deepflow", "deepflow"),
            ("with 1 step", "deepflow+1"),
        ),
        digits=3,
    ),
}

if __name__ == "__main__":
    main()
