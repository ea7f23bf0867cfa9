"""Where weights come from: bundled with the package, imported from a file, or fetched from a published archive.

    network = load("liteflownet2")                       # the bundled default
    network = load("liteflownet:official")               # imported or fetched before
    network = load("liteflownet2", weights="mine.safetensors")

Importing this room is cheap; PyTorch is imported with the first call.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .info import WeightsInfo

if TYPE_CHECKING:
    import torch

    from ..networks import FlowNetwork
    from .archive import fetch
    from .importer import import_weights, import_weights_to
    from .store import read_weights, save_weights

#: The network for those who do not want to choose.
DEFAULT_MODEL = "liteflownet-tied"

_LAZY = {
    "import_weights": "importer",
    "import_weights_to": "importer",
    "read_weights": "store",
    "save_weights": "store",
    "fetch": "archive",
}

__all__ = [
    "DEFAULT_MODEL",
    "WeightsInfo",
    "available",
    "default_model",
    "describe",
    "fetch",
    "import_weights",
    "import_weights_to",
    "load",
    "read_weights",
    "save_weights",
]


def __getattr__(name: str):
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def load(
    name: str = DEFAULT_MODEL, weights: str | os.PathLike[str] | None = None, device: str | torch.device | None = None
) -> FlowNetwork:
    """A network with its weights, in evaluation mode; its attribute `weights_info` says where they come from.

    Args:
        name: `architecture`, or `architecture:tag` for particular weights, e.g. "liteflownet2:procedural"; or `hf://user/repo`, a
            repository of the Hugging Face Hub (needs the extra `hub`), see `featherflow.weights.hub`; or the path of a .safetensors
            file that was trained or imported.
        weights: a safetensors file to take instead of bundled or imported ones.
        device: where to put the network, e.g. "cuda". Default: the CPU.

    Raises:
        InputError: for an unknown network or device.
        FileError: for a file that is missing or damaged.
        WeightsError: for weights that are not there or do not fit the network.
    """
    import torch

    from ..errors import InputError, WeightsError
    from . import catalogue, store

    architecture, tag = ("", "") if catalogue.says_where(name) else catalogue.checked_name(name)
    path = catalogue.find(name) if weights is None else weights
    state, info = store.read_weights(path)
    if architecture and info.architecture != architecture:
        raise WeightsError(f"{path} holds weights of {info.architecture}, not of {architecture}.")
    if tag and info.tag != tag:
        raise WeightsError(f"{path} holds '{info.name}', not '{name}'.")
    network = store.with_weights(state, info)
    if device is None:
        return network
    try:
        return network.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device '{device}' cannot be used: {str(error).splitlines()[0]}") from error


def available() -> list[WeightsInfo]:
    """Weights that `load` finds by name: the bundled ones, then the user's."""
    from . import catalogue

    return [entry.info for entry in catalogue.entries()]


def default_model() -> str:
    """Name of the network for those who do not want to choose; without a tag, so `load` takes the default one."""
    return DEFAULT_MODEL


def describe(file_or_name: str | os.PathLike[str]) -> dict[str, object]:
    """All that is known about weights, given as a safetensors file or a name, as plain values.

    Raises:
        InputError, FileError, WeightsError: as `load` does.
    """
    from pathlib import Path

    from . import catalogue, store

    text = os.fspath(file_or_name)
    is_file = not isinstance(file_or_name, str) or text.endswith(catalogue.SUFFIX) or Path(text).is_file()
    return store.describe_file(text if is_file else catalogue.find(text))
