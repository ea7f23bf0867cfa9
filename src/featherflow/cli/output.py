"""What commands print: progress on standard error, results on standard output, as text or JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import InputError, printable

_LONGEST = 8000  # characters of a line


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


def say(text: str, to_error: bool = False) -> None:
    """Print one line, safe on any terminal: it may hold names of files, and what files say of themselves."""
    print(printable(text, _LONGEST), file=sys.stderr if to_error else sys.stdout)


class _Notes(logging.Handler):
    """What the package says about its choices, on standard error as it is then."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        say(text if text.startswith("note: ") else f"featherflow: {text}", to_error=True)


_NOTES = _Notes()


def show_log(level: int = logging.INFO) -> None:
    """Let what the package says be seen, on standard error, from a level on."""
    logger = logging.getLogger("featherflow")  # not the root: other packages say much
    if _NOTES not in logger.handlers:
        logger.addHandler(_NOTES)
    logger.setLevel(level)


def print_json(value: object) -> None:
    """Plain JSON, one document, nothing else on standard output. Bytes of names that are no text are written as \\xff."""
    print(json.dumps(_valid(value), indent=2))


def _valid(value: object) -> object:
    """The same without lone surrogates, which stand for such bytes and which JSON cannot hold."""
    if isinstance(value, dict):
        return {_valid(key): _valid(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_valid(part) for part in value]
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", _escaped, value)
    return value


def _escaped(match: re.Match) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code < 0xDD00 else f"\\u{code:04x}"


def keep_descriptors() -> None:
    """Open the null device where standard input, output or error is closed.

    Otherwise the next file that is opened gets its number, and what libraries print goes into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stderr is None:  # what is printed to None goes to standard output
        sys.stderr = open(os.devnull, "w")


def hold_every_name() -> None:
    """Let standard output and error take what their encoding lacks as an escape (\\u2192), not as an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a caller put something else in its place
            stream.reconfigure(errors="backslashreplace")


def parse_range(text: str | None, what: str = "range", example: str = "0,4095") -> tuple[float, float] | None:
    """LOW,HIGH as two numbers; `what` they are and an `example`, for the error.

    Raises:
        InputError: for another form.
    """
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"A {what} is written as LOW,HIGH, for instance {example}; got '{text}'.") from None
    return low, high


def print_table(header: list[str], rows: list[list[str]], title: str = "") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, overflow="fold", no_wrap=number == 0)  # names come first and are copied from here
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def show_results(results: list, as_json: bool, to_error: bool = False) -> None:
    """Results of whole jobs, each with its `sentence`; on standard error where standard output holds what was made."""
    if to_error:
        for result in results:
            say(json.dumps(_valid(dataclasses.asdict(result))) if as_json else result.sentence(), to_error=True)
        return
    if as_json:
        documents = [dataclasses.asdict(result) for result in results]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    for result in results:
        say(result.sentence())


def show_job(job, as_json: bool) -> None:
    """What was done for pairs of files; leaves with exit code 1 where some failed."""
    if as_json:
        documents = [dataclasses.asdict(result) for result in job.results]
        print_json(documents[0] if len(documents) == 1 and not job.many else documents)
    else:
        for result in job.results:
            say(result.sentence(), to_error=result in job.failures)
    if job.many:
        say(job.summary(), to_error=True)
    if job.failures:
        sys.exit(1)
