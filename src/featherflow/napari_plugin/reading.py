"""Flow files opened in napari, as vectors over colours; KITTI's .png is left to napari, for which it is a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from ..flow import read_flow
from .layers import Collected, LayerData, Place, Wanted

SUFFIXES = (".flo", ".flo5", ".pfm", ".npz")


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """What reads a file, or several that are opened as one stack; None where one of them is no flow by its name."""
    return read if all(Path(one).suffix.lower() in SUFFIXES for one in _paths(path)) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Layers of a flow file; of several, in the order given, with an axis of time.

    Raises:
        InputError: for flows of several sizes; others as `featherflow.read_flow`.
    """
    paths = _paths(path)
    flows = [read_flow(one) for one in paths]
    height, width = flows[0].shape[:2]
    for one, flow in zip(paths, flows, strict=True):
        if flow.shape != flows[0].shape:
            other = f"{flow.shape[1]}x{flow.shape[0]}"
            raise InputError(f"Flows of a stack must have one size, but '{paths[0]}' is {width}x{height} and '{one}' {other}.")
    wanted = Wanted(outputs=("colour", "vectors"), spacing=min(16, height, width))
    collected = Collected(Path(paths[0]).stem, Place(), len(paths) > 1, wanted)
    for flow in flows:
        collected.add(flow)
    return collected.layers()


def _paths(path: str | Sequence[str]) -> list[str]:
    return [path] if isinstance(path, str) else list(path)
