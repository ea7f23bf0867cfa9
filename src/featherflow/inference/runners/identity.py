"""What a network computes with, as one hash: what is built for one network serves any other that computes the same."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import is_dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ...networks import FlowNetwork

_LEFT_OUT = frozenset({"training", "weights_info"})  # they change no flow; a run in training is done in evaluation
_PLAIN = frozenset({bool, int, float, str, type(None)})
#: Network to (its numbers, a checksum of its weights, its identity), as they were when it was last asked for.
_KNOWN: WeakKeyDictionary[FlowNetwork, tuple[tuple, int, str]] = WeakKeyDictionary()


def identity(network: FlowNetwork) -> str:
    """Hash of the kinds of all modules, their numbers and all weights, as they are now.

    All of it is read each time, 2 ms for 7 MB of weights, because PyTorch does not tell of every change.
    """
    numbers, checksum = tuple(_numbers(network)), 0
    for tensor in _tensors(network):
        checksum = zlib.crc32(tensor, checksum)
    known = _KNOWN.get(network)
    if known is None or known[:2] != (numbers, checksum):
        digest = hashlib.sha256(repr(numbers).encode())
        for tensor in _tensors(network):
            digest.update(tensor)
        known = _KNOWN[network] = numbers, checksum, digest.hexdigest()
    return known[2]


def _numbers(network: FlowNetwork) -> Iterator[tuple]:
    """Of each module its place, kind, plain attributes and the shapes of its tensors."""
    for name, module in network.named_modules():
        kind, held = type(module), vars(module)
        plain = tuple((key, value) for key, value in held.items() if key not in _LEFT_OUT and _is_plain(value))
        shapes = tuple((key, tuple(x.shape), str(x.dtype)) for key, x in _own_tensors(module))
        yield name, kind.__module__, kind.__qualname__, plain, shapes


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for tensors in (module._parameters, module._buffers):
        for key, tensor in tensors.items():
            if tensor is not None:
                yield key, tensor


def _tensors(network: FlowNetwork) -> Iterator[memoryview]:
    """The bytes of all parameters and buffers."""
    for module in network.modules():
        for _, tensor in _own_tensors(module):
            yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _is_plain(value: object) -> bool:
    """Numbers, texts, and tuples or frozen tables of them: what they say by `repr` is all that they hold."""
    if type(value) in _PLAIN:
        return True
    if type(value) is tuple:
        return all(_is_plain(entry) for entry in value)
    return is_dataclass(value) and not isinstance(value, type) and type(value).__hash__ is not None
