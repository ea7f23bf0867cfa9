"""An evaluation as text, CSV and one self-contained page."""

from __future__ import annotations

import base64
import csv
import html
import io
import os
from collections.abc import Sequence

import numpy as np

from ..data.benchmarks import Example, Pair
from ..files import atomic_write
from ..flow import automatic_scale, error_map, flow_to_rgb
from ..pixels import eight_bits
from .benchmark import Evaluation, columns
from .figures import AGGREGATORS, FIGURES

_PICTURE_WIDTH = 480  # px


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 10 else f"{value:.2f}"


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def summary_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the comparison: EPE per_image of each method on each group, and what it costs."""
    header = ["EPE [px], per_image", *(f"{g} ({evaluation.result(evaluation.models[0], g).pairs})" for g in evaluation.groups)]
    rows = []
    for model in evaluation.models:
        results = [evaluation.result(model, group) for group in evaluation.groups]
        times = sorted(result.ms for result in results)
        span = f"{times[0]:.0f}" if round(times[0]) == round(times[-1]) else f"{times[0]:.0f}-{times[-1]:.0f}"
        figures = [_number(result.figures["per_image"]["epe"]) for result in results]
        rows.append([model, *figures, span, _mib(evaluation.costs[model].peak_rss_mib)])
    return [*header, "ms/pair", "peak MiB"], rows


def group_rows(evaluation: Evaluation, group: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one group's table: each method under both aggregators."""
    keys = columns(evaluation, group)
    header = [group, "aggregator", *(f"{FIGURES[key].label} [{FIGURES[key].unit}]" for key in keys)]
    rows = []
    for name in AGGREGATORS:
        for model in evaluation.models:
            figures = evaluation.result(model, group).figures[name]
            rows.append([model, name, *(_number(figures[key]) for key in keys)])
    return [*header, "ms"], [[*row, f"{evaluation.result(row[0], group).ms:.0f}"] for row in rows]


def markdown(evaluation: Evaluation) -> str:
    """All tables, Markdown."""
    tables = [summary_rows(evaluation), *(group_rows(evaluation, group) for group in evaluation.groups)]
    return "\n\n".join(_markdown_table(header, rows) for header, rows in tables)


def _markdown_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_csv(path: str | os.PathLike[str], evaluation: Evaluation) -> None:
    """One figure per line: model, group, pairs, figure, unit, aggregator, value; and the cost.

    Raises:
        FileError: if the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "group", "pairs", "figure", "unit", "aggregator", "value"])
    for result in evaluation.results:
        for name, figures in result.figures.items():
            for key, value in figures.items():
                if value is not None:
                    line = [result.model, result.group, result.pairs, FIGURES[key].label, FIGURES[key].unit, name, repr(value)]
                    writer.writerow(line)
        writer.writerow([result.model, result.group, result.pairs, "time", "ms", "median", f"{result.ms:.3f}"])
    for model, cost in evaluation.costs.items():
        if cost.peak_rss_mib is not None:
            writer.writerow([model, "", "", "memory", "MiB", "peak", f"{cost.peak_rss_mib:.1f}"])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


class WorstPairs:
    """Gathers pictures of the pairs of each group on which the first method errs most; `watch` of `evaluate`.

    Nothing is kept but the small pictures of these few pairs, however large the benchmark.

    Args:
        count: pairs of each group.
    """

    def __init__(self, count: int = 2):
        self.count = count
        self._first: str | None = None
        self._groups: dict[str, list[_PairPictures]] = {}

    def __call__(self, model: str, pair: Pair, example: Example, flow: np.ndarray, error: float) -> None:
        if self._first is None:
            self._first = model
        kept = self._groups.setdefault(pair.group, [])
        if model == self._first and not np.isnan(error):
            kept.append(_PairPictures(pair.name, error))
            kept.sort(key=lambda pictures: (-pictures.error, pictures.name))
            del kept[self.count :]
        for pictures in kept:
            if pictures.name == pair.name:
                pictures.add(model, example, flow, error)

    def of(self, group: str) -> list[_PairPictures]:
        """The worst first."""
        return self._groups.get(group, [])


class _PairPictures:
    """Pictures of one pair: truth and frame, then flow and error of one method after another."""

    def __init__(self, name: str, error: float):
        self.name, self.error = name, error
        self.upper: list[str] = []
        self.lower: list[str] = []

    def add(self, model: str, example: Example, flow: np.ndarray, error: float) -> None:
        truth, valid = example.truth()
        scale = automatic_scale(truth)
        if not self.upper:
            height, width = flow.shape[:2]
            self.upper.append(_figure(flow_to_rgb(truth, scale), f"true flow; full colour is {scale:.1f} px"))
            self.lower.append(_figure(eight_bits(example.frame1), f"frame 1, {width}x{height} px"))
        self.upper.append(_figure(flow_to_rgb(flow, scale), f"{model}: EPE {_number(error)} px"))
        self.lower.append(_figure(error_map(flow, truth, valid), f"{model}: error"))

    def html(self) -> str:
        rows = "".join(f"<tr>{''.join(f'<td>{figure}</td>' for figure in row)}</tr>" for row in (self.upper, self.lower))
        return f"<section><h4>{html.escape(self.name)}</h4><div class=scroll><table class=pictures>{rows}</table></div></section>"


def write_html(path: str | os.PathLike[str], evaluation: Evaluation, worst: WorstPairs | None = None, note: str = "") -> None:
    """One page that needs nothing else: the tables, and the worst pairs of each group in pictures.

    Args:
        worst: what watched the evaluation.
        note: a line below the title, e.g. the command.

    Raises:
        FileError: if the file cannot be written.
    """
    parts = [
        "<h1>Optical flow: methods compared</h1>",
        f"<p class=note>{html.escape(note)}</p>" if note else "",
        "<p><b>per_image</b> is the mean over pairs of each pair's figure, <b>pooled</b> the figure over all pixels of all "
        "pairs. Lower is better in every column; the best of each column is marked. Times are medians, without reading; "
        "memory is the peak of the whole process.</p>",
        _html_table(*summary_rows(evaluation), best_of=[evaluation.models]),
    ]
    for group in evaluation.groups:
        parts.append(f"<h2>{html.escape(group)}</h2>")
        parts.append(_html_table(*group_rows(evaluation, group), best_of=[evaluation.models] * 2, skip=2))
        pictures = worst.of(group) if worst else []
        if pictures:
            parts.append(f"<h3>Worst pairs of {html.escape(evaluation.models[0])}</h3>")
        parts += [pair.html() for pair in pictures]
    parts.append(f"<h2>Colours</h2>{_LEGEND}")
    page = _PAGE.replace("@BODY@", "\n".join(parts)).encode()
    with atomic_write(path) as file:
        file.write(page)


def _html_table(header: list[str], rows: list[list[str]], best_of: list[Sequence[str]], skip: int = 1) -> str:
    """`best_of`: the rows come in so many blocks, in each of which the best of every column is marked."""
    size = len(rows) // len(best_of)
    lines = ["<div class=scroll><table><thead><tr>", *(f"<th>{html.escape(cell)}</th>" for cell in header), "</tr></thead>"]
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        best = {}
        for column in range(skip, len(header)):
            values = [float(row[column]) for row in block if _is_number(row[column])]
            if len(values) > 1:
                best[column] = min(values)
        lines.append("<tbody>")
        for row in block:
            cells = [f"<th>{html.escape(row[0])}</th>"]
            for column, cell in enumerate(row[1:], 1):
                marked = _is_number(cell) and float(cell) == best.get(column)
                cells.append(f"<td class=best>{html.escape(cell)}</td>" if marked else f"<td>{html.escape(cell)}</td>")
            lines.append(f"<tr>{''.join(cells)}</tr>")
        lines.append("</tbody>")
    return "".join(lines) + "</table></div>"


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _figure(picture: np.ndarray, caption: str) -> str:
    from PIL import Image

    image = Image.fromarray(picture)
    if image.width > _PICTURE_WIDTH:
        image = image.resize((_PICTURE_WIDTH, round(image.height * _PICTURE_WIDTH / image.width)), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=88)
    data = base64.b64encode(file.getvalue()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'


_LEGEND = """<p>Flow: hue is the direction (right red, down yellow, left blue-green, up violet), saturation the length;
black is unknown. Error, in multiples of KITTI's outlier threshold (3 px, or 5 % of the true length if that is more):
blues up to 1 (inlier), yellow to dark red above (outlier); black is unknown.</p>"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Optical flow: methods compared</title><style>
:root { --ground: #fff; --ink: #1c2024; --faint: #667; --line: #d9dde2; --best: #dff2e1; --head: #f4f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --ink: #e4e7ea; --faint: #9aa3ad; --line: #343a41; --best: #1d4427; --head: #1e2328 } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem;
  max-width: 1500px }
h1 { font-size: 1.6rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) } h4 { margin: 1rem 0 .3rem }
.note, figcaption { color: var(--faint); font-size: .85rem } .note { font-family: ui-monospace, monospace }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, tbody th { text-align: left } thead th { background: var(--head) }
tbody + tbody { border-top: 3px double var(--line) }
.best { background: var(--best); font-weight: 600 }
.pictures td { border: 0; padding: .2rem; text-align: left; vertical-align: top; white-space: normal }
figure { margin: 0; width: 340px } img { width: 100%; display: block; border-radius: 3px }
</style></head><body>
@BODY@
</body></html>
"""
