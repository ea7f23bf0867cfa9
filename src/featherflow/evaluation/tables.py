"""The papers' tables with our figures beside the printed ones, for whatever data and weights are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .. import networks
from ..errors import InputError
from ..weights import available
from .benchmark import Dataset, Evaluation, evaluate, group_sizes, method_named
from .published import TABLES, Column, Table, counterpart

#: Size that the papers time at: (height, width).
TIMED_SIZE = (436, 1024)


@dataclass(frozen=True)
class OurCell:
    """One figure of ours. `state`: "" where there is a value, else why there is none."""

    value: float | None
    published: float | None = None
    state: str = ""
    decimals: int = 2

    @property
    def difference(self) -> float | None:
        """Ours minus the printed figure."""
        return None if self.value is None or self.published is None else self.value - self.published


@dataclass(frozen=True)
class FilledTable:
    """A printed table and our rows in it: model to (the printed row that stands for it or None, one cell per column)."""

    table: Table
    ours: dict[str, tuple[str | None, tuple[OurCell, ...]]]
    #: Pairs at hand, by group.
    pairs: dict[str, int]
    #: What data was given, e.g. "flyingchairs:validation".
    data: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """Ready for JSON."""
        columns = self.table.columns
        return {
            "table": self.table.number,
            "title": self.table.title,
            "data": list(self.data),
            "columns": [
                {
                    "label": c.label,
                    "unit": c.unit,
                    "aggregator": c.aggregator if c.figure else None,
                    "pairs": self.pairs.get(c.group, 0) if c.group else None,
                    "pairs_of_full_set": c.pairs,
                }
                for c in columns
            ],
            "published": {
                row: [None if cell is None else {"value": cell.value, "seen": cell.seen, "note": cell.note} for cell in cells]
                for row, cells in self.table.rows.items()
            },
            "ours": {
                model: {
                    "row": row,
                    "cells": [{"value": cell.value, "difference": cell.difference, "state": cell.state} for cell in cells],
                }
                for model, (row, cells) in self.ours.items()
            },
        }

    def markdown(self) -> str:
        """The table as text: each row of ours below the printed one, the difference to it in brackets."""
        header = [f"Table {self.table.number}", *(_heading(column, self.pairs) for column in self.table.columns)]
        lines = [header, ["---"] + ["---:"] * len(self.table.columns)]
        notes: list[str] = []
        for row, cells in self.table.rows.items():
            lines.append([row, *(_printed(cell, notes) for cell in cells)])
            lines += [_our_line(model, cells) for model, (of, cells) in self.ours.items() if of == row]
        lines += [_our_line(model, cells) for model, (of, cells) in self.ours.items() if of is None]
        text = [f"Table {self.table.number}: {self.table.title}", "", *("| " + " | ".join(line) + " |" for line in lines), ""]
        text.append(
            "Ours are the rows with an arrow; [difference] is ours minus the printed figure. (In parentheses): taken on data "
            "that the weights had been trained on. Our AEE is per_image, our Fl pooled, over the pairs that the heading counts."
        )
        if self.data:
            text.append(f"Data given: {', '.join(self.data)}.")
        missing = sorted({column.group for column in self.table.columns if column.group and column.group not in self.pairs})
        if missing:
            text.append(f"No data was given for: {', '.join(missing)}.")
        if any(column.group is None and column.measured is None for column in self.table.columns):
            text.append("The truth of the test columns is secret; `featherflow evaluate --submit` writes what the servers take.")
        text += notes
        return "\n".join(text)


def _heading(column: Column, pairs: dict[str, int]) -> str:
    unit = f" [{column.unit}]" if column.unit else ""
    if column.group is None or column.group not in pairs:
        return f"{column.label}{unit}"
    of = "" if column.pairs is None else f" of {column.pairs}"
    return f"{column.label}{unit}, {column.aggregator}, {pairs[column.group]}{of} pairs"


def _printed(cell, notes: list[str]) -> str:
    if cell is None:
        return "-"
    if not cell.note:
        return cell.text
    notes.append(f"{len(notes) + 1}) {cell.note}")
    return f"{cell.text} {len(notes)})"


def _our_line(model: str, cells: Sequence[OurCell]) -> list[str]:
    texts = []
    for cell in cells:
        if cell.value is None:
            texts.append(cell.state)
        elif cell.difference is None:
            texts.append(f"{cell.value:.{cell.decimals}f}")
        else:
            texts.append(f"{cell.value:.{cell.decimals}f} [{cell.difference:+.{cell.decimals}f}]")
    return [f"-> {model}", *texts]


def default_models(number: int) -> list[str]:
    """What a table compares when nothing is named: all weights that are there; in table 5 the networks printed there, and ours."""
    if number == 5:
        return [name for name in networks.names() if counterpart(5, name) or name.startswith("liteflownet")]
    return [info.name for info in available()]


def fill(
    number: int,
    models: Sequence[str],
    datasets: Sequence[Dataset] = (),
    limit: int | None = None,
    runs: int = 3,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FilledTable:
    """A printed table with rows of ours.

    Args:
        number: 3 to 7.
        models: each `NAME`, or `NAME=ROW` with the printed row it stands for; NAME as `method_named` takes it. In table 5
            NAME may be a network without weights.
        limit: take only the first so many pairs of each group.
        runs: timed runs where the table has times; 0 for none.
        device: as `featherflow.estimate`.

    Raises:
        InputError: for a table, model or row that there is not; FileError and WeightsError as `evaluate` does.
    """
    if number not in TABLES:
        raise InputError(f"There is no table {number} here; there are {', '.join(map(str, TABLES))}.")
    table = TABLES[number]
    rows = dict(_named_row(table, text) for text in models)
    wanted = [column.group for column in table.columns if column.group]
    pairs = {group: count for group, count in group_sizes(datasets, limit).items() if group in wanted}
    evaluation = None
    if pairs and rows:
        methods = {model: method_named(model, device) for model in rows}
        evaluation = evaluate(methods, datasets, limit, progress, groups=wanted)
    ours = {
        model: (
            row,
            tuple(
                _cell(column, model, None if row is None else table.rows[row][index], evaluation, runs, device)
                for index, column in enumerate(table.columns)
            ),
        )
        for model, row in rows.items()
    }
    return FilledTable(table, ours, pairs, tuple(f"{dataset.name}:{dataset.part}" for dataset in datasets))


def _named_row(table: Table, text: str) -> tuple[str, str | None]:
    model, equals, row = text.partition("=")
    if not equals:
        return model, counterpart(table.number, model)
    if row not in table.rows:
        raise InputError(f"Table {table.number} has no row '{row}'; it has {', '.join(table.rows)}.")
    return model, row


def _cell(column: Column, model: str, published, evaluation: Evaluation | None, runs: int, device: str | None) -> OurCell:
    value, state = None, ""
    if column.measured:
        value, state = _measured(column.measured, model, runs, device)
    elif column.group is None or column.figure is None:
        state = "secret"
    elif evaluation is None or column.group not in evaluation.groups:
        state = "no data"
    else:
        value = evaluation.result(model, column.group).figures[column.aggregator][column.figure]
        state = "" if value is not None else "no data"
    return OurCell(value, None if published is None else published.value, state, 0 if column.measured == "layers" else 2)


def _measured(what: str, model: str, runs: int, device: str | None) -> tuple[float | None, str]:
    architecture = model.partition("+")[0].partition(":")[0]
    if architecture not in networks.names():
        return None, "no network"
    with torch.device("meta"):  # counts need no numbers
        network = networks.build(architecture)
    if what == "layers":
        # The papers count the enlargement of sparse cost volumes as a layer, though its kernel is fixed.
        named = network.named_modules()
        return float(sum(1 for name, m in named if list(m.parameters(recurse=False)) or name.endswith(".upcost"))), ""
    if what == "parameters":
        return sum(parameter.numel() for parameter in network.parameters()) / 1e6, ""
    if runs < 1:
        return None, "not timed"
    milliseconds = _time(architecture, runs, device)
    return (milliseconds if what == "runtime" else 1000 / milliseconds), ""


_TIMES: dict[tuple[str, int, str | None], float] = {}


def _time(architecture: str, runs: int, device: str | None) -> float:
    """Median of `runs` after one to warm up [ms], frames in and flow out; weights do not change it, so they are untrained."""
    from ..inference import Estimator
    from ..inference.defaults import device_named

    key = (architecture, runs, device)
    if key not in _TIMES:
        method = Estimator(networks.untrained(architecture).to(device_named(device)))
        frames = torch.rand(2, 1, 3, *TIMED_SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        times = []
        for _ in range(runs + 1):
            started = time.perf_counter()
            method(frames[0], frames[1])
            times.append(1000 * (time.perf_counter() - started))
        _TIMES[key] = sorted(times[1:])[runs // 2]
    return _TIMES[key]
