"""`featherflow tables`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def tables(
    number: int,
    *,
    data: list[str] | None = None,
    model: list[str] | None = None,
    limit: int | None = None,
    runs: int = 3,
    device: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Print a table of the LiteFlowNet2 paper with our figures beside the published ones, for the data that is there.

    Example: featherflow tables 4 --data sintel=MPI-Sintel --data kitti2015=KITTI --model liteflownet2

    Example: featherflow tables 5

    Parameters
    ----------
    number
        3 (FlyingChairs), 4 (Sintel and KITTI), 5 (size and speed), 6 (parts of the network) or 7 (cost volume).
    data
        Benchmark in its own layout, as NAME=ROOT or NAME:SPLIT=ROOT, see `featherflow evaluate --help`.
    model
        Network or method of ours, or NAME=ROW with the published row that it is to be compared with; may be given several
        times. Default: all weights that are there; for table 5 all networks.
    limit
        Take only the first so many pairs of each benchmark.
    runs
        Timed runs where the table has times; 0 for none.
    device
        cpu, cuda, ...; by default a GPU if there is one.
    json
        Print the table as JSON.
    """
    from .. import networks
    from ..evaluation import Dataset
    from ..evaluation.tables import fill
    from ..weights import available
    from .output import print_json, show_progress

    models = model or (networks.names() if number == 5 else [info.name for info in available()])
    with show_progress("pairs", quiet=json) as progress:
        table = fill(number, models, [Dataset.parse(text) for text in data or []], limit, runs, device, progress)
    if json:
        print_json(table.as_dict())
    else:
        print(table.markdown())
