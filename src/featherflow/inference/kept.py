"""What `estimate` and `stream` keep from one call to the next: few things, known by what is in a weight file."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import torch

from .. import weights
from ..networks import FlowNetwork, as_network
from ..ops import channels_last
from ..weights import catalogue


@dataclass(frozen=True)
class WeightFile:
    """A weight file, and a hash of what is in it."""

    path: Path
    digest: str


def weight_file(model: str, given: str | os.PathLike[str] | None) -> WeightFile:
    """The file that weights of a name come from now.

    Raises:
        InputError, FileError, WeightsError: as `featherflow.load`.
    """
    path = Path(catalogue.find(model) if given is None else given)
    try:
        found = path.stat()
        return WeightFile(path, _digest(path, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino))
    except OSError:
        return WeightFile(path, "")  # `load` says what is wrong with it


@lru_cache(maxsize=64)
def _digest(path: Path, *state: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_NETWORKS: WeakValueDictionary[tuple[str, str, str], FlowNetwork] = WeakValueDictionary()
_LOCK = threading.Lock()


def shared(model: str, file: WeightFile, device: torch.device) -> FlowNetwork:
    """The network with the weights of a file, one for all that want it now."""
    key = model, file.digest, str(device)
    with _LOCK:
        network = _NETWORKS.get(key) if file.digest else None
        if network is None:
            network = _NETWORKS[key] = load(model, file.path, device)
        return network


def load(model: str, given: str | os.PathLike[str] | None, device: torch.device) -> FlowNetwork:
    """The network of a name with its weights, or those of a file, on a device."""
    network = as_network(weights.load(model, weights=given))
    return channels_last(network.to(device))
