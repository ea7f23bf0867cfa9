"""`featherflow scale`."""

from __future__ import annotations

import json as json_module
import sys
from typing import Annotated

from cyclopts import App, Parameter

from .numbers import PARAMETERS
from .options import ESTIMATION, Estimation

_SHOWN = 50  # failures in the table

app = App(
    name="scale",
    help="Work on archives, on the cores of one machine or a cluster. Example: featherflow scale run --help",
    group_arguments=PARAMETERS,
    group_parameters=PARAMETERS,
)


@app.command
def run(
    source: str,
    *,
    output: Annotated[str, Parameter(alias="-o")],
    verb: str = "flow",
    set: list[str] | None = None,
    span: int | None = None,
    address: str | None = None,
    cpus: int | None = None,
    workers: str = "1:",
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    retries: int = 1,
    summary: str | None = None,
    estimation: Estimation = ESTIMATION,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Do a verb to many pairs or clips by Ray Data. Run it again: what is there and intact is left, the rest is done.

    Example: featherflow scale run pairs.csv -o flows/ --set format=npz --workers 2

    Example: featherflow scale run "s3://archive/*.mp4" -o s3://results/tracks --verb tracks --address auto --workers 8:64

    Parameters
    ----------
    source
        A list .csv of pairs (columns frame1, frame2 and, if wanted, output) or of clips (source and, if wanted, output); or a
        folder of frames, a clip, or a quoted glob of frames, folders or clips. Paths, or URIs that fsspec knows.
    output
        Folder to write into, a path or a URI; with several machines one that all of them see. Names follow from the sources.
    verb
        flow (flow files), video (the flow as a video), interpolate, magnify or tracks.
    set
        NAME=VALUE: an option of the verb, as its own command has it with _ for -; may be given several times: format=npz,
        backward=true, factor=4.
    span
        Of the verb flow: cut videos into spans of about so many seconds, which several workers share, each with a folder
        of its own. By default a clip is one item.
    address
        Of a Ray cluster to join, from one of its machines: host:6379, or auto. By default that of RAY_ADDRESS, else this machine
        alone.
    cpus
        Of this machine alone: how many CPUs are used. By default all.
    workers
        FEWEST:MOST workers, between which Ray chooses, or one number. By default 1 to as many as there is room for.
    cpus_per_worker
        CPUs set aside for each worker, which computes with as many threads; a fraction counts as one.
    gpus_per_worker
        GPUs set aside for each worker; 0.25 puts four on one. Without it, workers use no GPU.
    retries
        How often items that failed are tried again, after all others.
    summary
        JSON file to write: numbers, seconds, core-hours, and what failed.
    json
        Print that JSON in place of a table.
    """
    from ..files import atomic_write
    from ..outputs import check_outputs
    from ..scale import run as run_on_ray
    from .output import print_json, print_table, say, show_progress

    check_outputs([("the summary", summary)], [source], overwrite=None)
    with show_progress("items", quiet=json or estimation.verbose) as progress:
        result = run_on_ray(
            source,
            output,
            verb=verb,
            settings=estimation.plain(),
            options=dict(_option(text) for text in set or ()),
            span=span,
            address=address,
            cpus=cpus,
            workers=_bounds(workers),
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            retries=retries,
            verbose=estimation.verbose,
            progress=progress,
        )
    if json:
        print_json(result.as_dict())
    else:
        if result.failures:
            shown = result.failures[:_SHOWN]
            print_table(["item", "why it failed", "attempts"], [[one.name, one.error, str(one.attempts)] for one in shown])
            if len(shown) < len(result.failures):
                say(f"and {len(result.failures) - len(shown)} more; --summary and --json name all.")
        print_table(*result.table())
    if summary is not None:  # after the table, which is there if this fails
        with atomic_write(summary) as file:
            file.write((json_module.dumps(result.as_dict(), indent=1) + "\n").encode())
    say(result.sentence(), to_error=True)
    if result.failures:
        sys.exit(1)


def _bounds(text: str) -> tuple[int, int | None]:
    from ..errors import InputError

    fewest, colon, most = text.partition(":")
    try:
        return int(fewest), (int(most) if most else None) if colon else int(fewest)
    except ValueError:
        raise InputError(f"The number of workers is written as FEWEST:MOST or as one number, got '{text}'.") from None


def _option(text: str) -> tuple[str, object]:
    from ..errors import InputError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"An option of the verb is written as NAME=VALUE, got '{text}'.")
    try:
        return name, json_module.loads(value)
    except ValueError:
        return name, value
