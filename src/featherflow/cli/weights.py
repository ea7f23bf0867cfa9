"""featherflow weights: import, list, show and fetch weight files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from .numbers import PARAMETERS

app = App(
    name="weights",
    help="Import, list, show and fetch weights. Example: featherflow weights list",
    group_arguments=PARAMETERS,
    group_parameters=PARAMETERS,
)

JsonFlag = Annotated[bool, Parameter(negative=())]


@app.command(name="import")
def import_(
    file: Path,
    /,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    part: str | None = None,
    output: Annotated[str | None, Parameter(name=("--output", "-o"))] = None,
) -> None:
    """Make weights of another release ours.

    Takes official .caffemodel files (also .tar.gz, .gz, .xz), .pytorch files of pytorch-liteflownet, checkpoints of
    ptlflow and mmflow, and official checkpoints from FlowNet to FlowFormer; of SPyNet's six .t7 files, name one.

    Example: featherflow weights import liteflownet.caffemodel.tar.gz --as liteflownet:official

    Example: featherflow weights import raft-things.pth --as raft:things

    Parameters
    ----------
    file
        The file to read.
    as_
        Network and tag that the weights get, NAME or NAME:TAG.
    part
        Of a checkpoint that holds several networks (a student and its teacher, weights and their average), the key of
        the one to take.
    output
        Safetensors file to write; without it, the weights are kept under their name for all other commands.
    """
    from ..outputs import check_outputs
    from ..weights import import_weights_to

    check_outputs([("the weights", output)], [file], overwrite=None)
    path, imported = import_weights_to(file, as_, output, part)
    _report(path, imported)


@app.command(name="list")
def list_(*, json: JsonFlag = False) -> None:
    """List the weights that are there.

    Example: featherflow weights list

    Parameters
    ----------
    json
        Print JSON instead of a table.
    """
    from ..weights import available
    from .output import print_json, print_table

    infos = available()
    if json:
        print_json([info.as_dict() for info in infos])
    elif not infos:
        print("There are no weights yet; `featherflow weights import` and `featherflow weights fetch` get some.")
    else:
        rows = [  # of a recipe its name; `weights show` gives its numbers
            [
                info.name,
                info.recipe.partition(":")[0],
                f"{info.samples_seen:,}" if info.samples_seen else "",
                info.licence_weights or "not stated",
            ]
            for info in infos
        ]
        print_table(["name", "recipe", "pairs seen", "licence"], rows)


@app.command
def show(weights: str, /, *, json: JsonFlag = False) -> None:
    """Show all that is known about weights.

    Example: featherflow weights show liteflownet2

    Parameters
    ----------
    weights
        NAME, NAME:TAG or a safetensors file.
    json
        Print JSON instead of lines.
    """
    from ..weights import describe
    from .output import print_json, say

    facts = describe(weights)
    if json:
        print_json(facts)
    else:
        width = max(map(len, facts))
        for key, value in facts.items():
            say(f"{key:{width}}  {_text(value)}")


@app.command
def fetch(name: str, /, *, agree: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Fetch published official weights: liteflownet, liteflownet-ft-sintel, liteflownet-ft-kitti.

    Their terms are shown first and have to be agreed to.

    Example: featherflow weights fetch liteflownet --agree

    Parameters
    ----------
    name
        One of the names above.
    agree
        Say yes to the terms without being asked.
    """
    from ..weights import fetch as fetch_archive
    from .output import show_progress

    def ask(terms: str) -> bool:
        print(terms, file=sys.stderr)
        if agree:
            return True
        if sys.stdin is None or not sys.stdin.isatty():
            return False
        print("Do you agree? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    with show_progress("bytes", quiet=not sys.stderr.isatty()) as progress:
        path, imported = fetch_archive(name, ask, progress=progress)
    _report(path, imported)


def _report(path: Path, imported) -> None:
    from .output import say

    for remark in imported.remarks:
        say(f"note: {remark}", to_error=True)
    if imported.info.approximate:
        say(f"note: approximate, for {imported.info.approximate}.", to_error=True)
    say(f"{imported.info.name} -> {path}")


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
