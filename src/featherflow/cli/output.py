"""What commands print: progress on standard error, results on standard output, as text or JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def show_progress(unit: str, quiet: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error with speed and time left, shown for more than one item; gives a function of (done, total or None)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(TextColumn):
        def render(self, task: Task):
            return Text(f"{task.speed:.2f} {unit}/s" if task.speed else "")

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        Speed(""),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    )
    task = None

    def update(done: int, total: int | None) -> None:
        nonlocal task
        if (total is None or total > 1) and task is None:
            bar.start()
            task = bar.add_task(unit, total=total)
        if task is not None:
            bar.update(task, completed=done)

    try:
        yield update
    finally:
        if task is not None:
            bar.stop()


def show_log() -> None:
    """What the package says about its choices, on standard error."""
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("featherflow: %(message)s"))
    logger = logging.getLogger("featherflow")  # not the root: other packages say much
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def print_json(value: object) -> None:
    """Plain JSON, one document, nothing else on standard output."""
    print(json.dumps(value, indent=2))


def print_table(header: list[str], rows: list[list[str]], title: str = "") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, overflow="fold", no_wrap=number == 0)  # names come first and are copied from here
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def show_results(results: list, as_json: bool) -> None:
    """Results of whole jobs, each with its `sentence`."""
    if as_json:
        documents = [dataclasses.asdict(result) for result in results]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    for result in results:
        print(result.sentence())
