"""`featherflow bench`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import WAYS, Ways


def bench(
    *models: str,
    ways: Ways = WAYS,
    size: str = "1024x436",
    runs: int = 5,
    against: list[str] | None = None,
    all: Annotated[bool, Parameter(negative="")] = False,
    memory: bool = True,
    stream: Annotated[bool, Parameter(negative="")] = False,
    threads: int | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Time models in turn: milliseconds, operations, memory, and what the machine could do in the same run.

    Example: featherflow bench liteflownet2 --engine torch --engine openvino --dtype float32 --dtype bfloat16 --against opencv

    Example: featherflow bench --all --runs 1

    Example: featherflow bench --stream --size 512x218 --runs 20

    Parameters
    ----------
    models
        Networks, paths of .safetensors files or classical methods, NAME+N with N steps of refinement; by default the default
        network. The first is what the others are compared with.
    size
        Width and height of the frames.
    runs
        Rounds, after one to warm up.
    against
        Peers: opencv for its usual methods, or a command that answers as benchmarks/ptlflow_peer.py does; may be given several
        times.
    all
        Every registered network.
    memory
        Also measure the most memory held, in a process for each candidate.
    stream
        Time the next pair of a stream of frames, where what is known of a frame is used again; not for peers.
    threads
        Threads of PyTorch and the engines; by default all cores.
    json
        Print the figures as JSON.
    """
    from .. import networks
    from ..errors import InputError
    from ..evaluation import speed
    from ..pixels import parse_size
    from ..weights import default_model
    from .output import print_json, show_progress

    chosen_size = parse_size(size)
    if chosen_size is None:
        raise InputError(f"The size must be WIDTHxHEIGHT in pixels, e.g. 1024x436, got '{size}'.")
    names = networks.names() if all else list(models) or [default_model()]
    chosen = speed.candidates(names, ways.engine or ["torch"], ways.dtype or ["float32"], against or [], ways.octaves)
    with show_progress("estimates", quiet=json) as progress:
        result = speed.bench(chosen, chosen_size, runs, threads, memory, progress, stream)
    if json:
        print_json(result.as_dict())
    else:
        print(result.markdown())
