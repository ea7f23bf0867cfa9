"""Entry points of `torch.hub`: every network, and the default one as `featherflow`.

    network = torch.hub.load("/path/to/this/repository", "liteflownet_tied", source="local")

Names are those of `featherflow models` with underscores. A network comes with its weights; `pretrained=False` leaves them out.
"""

import sys as _sys
from functools import partial as _partial
from pathlib import Path as _Path

_sys.path.insert(0, str(_Path(__file__).resolve().parent / "src"))  # a clone that is not installed

import featherflow as _featherflow
from featherflow import networks as _networks

dependencies = ["torch", "numpy", "PIL", "safetensors", "filelock"]


def _load(name, pretrained=True, weights=None, device=None):
    """A network in evaluation mode: takes two batches `(B, 3, H, W)` RGB in [0, 1] and gives their flow `(B, 2, H, W)` [px].

    Args:
        pretrained: with the weights of this name that are there; False: untrained.
        weights: a safetensors file to take instead.
        device: where to put it, e.g. "cuda".
    """
    network = _featherflow.load(name, weights) if pretrained or weights else _networks.build(name)
    return network if device is None else network.to(device)


def featherflow(weights=None, device=None):
    """The network for those who do not want to choose, with its weights."""
    return _load(_featherflow.weights.default_model(), True, weights, device)


for _name in _networks.names():
    _entry = _partial(_load, _name)
    _entry.__doc__ = f"{_networks.get(_name).summary} ({_networks.get(_name).paper}).\n\n{_load.__doc__}"
    globals()[_name.replace("-", "_")] = _entry
