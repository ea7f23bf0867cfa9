"""Named tensors of PyTorch checkpoints and safetensors files from elsewhere: out of their wrappings, of plain kinds only.

Nothing that a file holds is run. Sizes are held against the file's own before a tensor is made.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..errors import FileError, WeightsError
from .containers import MOST_BYTES, check_size, most_unpacked

Entries = dict[str, Tensor]

#: Keys under which training programs keep the state dict, the likeliest first; averaged weights last, as others may be asked for.
_WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "network", "net", "net_state_dict", "params", "weights",
    "ema", "ema_state_dict", "state_dict_ema", "model_ema", "params_ema",
)  # fmt: skip
_MOST_NESTED = 4
_MOST_PARTS = 12  # networks in one file
#: What wrappers of modules put before every name: DataParallel, torch.compile, Lightning and the like.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "ema.", "ema_model.")
_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
#: Bytes of the JSON before the tensors of a safetensors file. Those of the largest networks have some 60 kB.
MOST_HEADER = 4 << 20


def is_safetensors(data: bytes) -> bool:
    """Whether these bytes begin as a safetensors file."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def is_torch(data: bytes) -> bool:
    """Whether these bytes begin as a file of `torch.save`."""
    return data.startswith(b"PK\x03\x04") or data[:1] == b"\x80"


def safetensors_entries(data: bytes, name: str) -> Entries:
    """Tensors by name.

    Raises:
        FileError: for a damaged file. WeightsError: for tensors of a kind that no network has.
    """
    from safetensors.torch import load

    check_header(data[: 8 + MOST_HEADER], len(data), name)
    try:
        loaded = load(data)
    except Exception as error:  # beside its own errors it lets through what damage makes of types and shapes
        raise FileError(f"{name} is a damaged safetensors file ({error}).") from error
    return _plain(unwrapped(loaded), name, len(data))


def check_header(data: bytes, size: int, name: str) -> None:
    """Hold a safetensors file's header against the file, before a parser sees it.

    Args:
        data: the file's first bytes, its header among them. size: of the whole file [bytes].

    Raises:
        FileError: for a header that is longer than the file or than any of ours, or no flat JSON.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > size - 8:
        raise FileError(f"{name} is not a safetensors file, or is truncated.")
    if length > MOST_HEADER:
        raise FileError(f"{name} has a header of {length >> 20} MiB, and no weight file needs more than {MOST_HEADER >> 20} MiB.")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise FileError(f"{name} is not a safetensors file, or is damaged: its header cannot be read.")


def torch_entries(data: bytes, name: str, part: str | None = None) -> Entries:
    """Tensors of a PyTorch checkpoint by name, read without running any code that it may hold.

    Args:
        part: key of the state dict to take, where the file holds several. Default: the likeliest key, if one is known; else all of
            them, each name after its key and a dot, see `parts`.

    Raises:
        FileError: for a damaged file, or one that holds more than it may. WeightsError: for one that could run code, holds no state
            dict, or tensors of a kind that no network has.
    """
    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                size = sum(member.file_size for member in archive.infolist())
        except Exception as error:  # damage to names, sizes and offsets raises many kinds
            raise FileError(f"{name} is a damaged or truncated PyTorch file; download it again.") from error
        check_size(size, most_unpacked(len(data)), name)
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PyTorch thinks of odd tensors, which are refused below
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "weights only" in str(error).lower():
            raise WeightsError(
                f"{name} holds more than tensors and could run code when opened, so it was refused; "
                "save its state_dict alone with torch.save, and import that."
            ) from error
        raise FileError(f"{name} is a damaged PyTorch file; download it again.") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise FileError(f"{name} is not a PyTorch file, or is damaged or truncated.") from error
    if part is not None and _holds(loaded, part):
        loaded, part = loaded[part], None
    loaded = _innermost(loaded)
    if part is not None and _holds(loaded, part):
        loaded, part = _innermost(loaded[part]), None
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{name} holds no state dict; a checkpoint with named tensors was expected.")
    entries = _tensors(loaded)
    if not entries:
        held = {key: _innermost(loaded[key]) for key in loaded if isinstance(key, str) and _holds(loaded, key)}
        entries = {f"{key}.{entry}": tensor for key, inner in held.items() for entry, tensor in unwrapped(_tensors(inner)).items()}
    entries = _plain(unwrapped(entries), name, len(data))
    return entries if part is None else part_of(entries, part, name)


def parts(entries: Mapping[str, Tensor]) -> list[str]:
    """What names begin with, up to their first dot, where that is of a few kinds: perhaps a network each."""
    found = list(dict.fromkeys(key.partition(".")[0] for key in entries if "." in key))
    return found if 1 < len(found) <= _MOST_PARTS else []


def part_of(entries: Mapping[str, Tensor], part: str, source: str) -> Entries:
    """The entries whose names begin with a part and a dot, without these.

    Raises:
        WeightsError: where there are none, with the parts that there are.
    """
    found = {key.removeprefix(f"{part}."): tensor for key, tensor in entries.items() if key.startswith(f"{part}.")}
    if not found:
        there = ", ".join(f"'{each}'" for each in parts(entries)) or "none"
        raise WeightsError(f"{source} holds no part '{part}'; there are {there}.")
    return unwrapped(found)


def _innermost(loaded: object) -> object:
    """The state dict in the wrappers of a training program, or what is left where there are none."""
    for _ in range(_MOST_NESTED):
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded, Mapping) and _holds(loaded, key)), None)
        if inner is None:
            break
        loaded = inner
    return loaded


def _tensors(loaded: object) -> Entries:
    if not isinstance(loaded, Mapping):
        return {}
    return {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}


def unwrapped(entries: Mapping[str, Tensor]) -> Entries:
    """Entries without what wrappers of modules put before every name, in whatever order they were put round one another."""
    entries = {_COMPILED.sub(r"\1", key): tensor for key, tensor in entries.items() if key != _COUNTER}
    while prefix := next((each for each in _PREFIXES if entries and all(key.startswith(each) for key in entries)), None):
        entries = {key.removeprefix(prefix): tensor for key, tensor in entries.items()}
    return entries


def check_floating(name: str, tensor: Tensor, source: str) -> None:
    """Refuse a tensor whose numbers are no weights.

    Raises:
        WeightsError: for integers and truth values.
    """
    if tensor.dtype not in _FLOATING:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WeightsError(f"Entry '{name}' of {source} must hold floating-point numbers, got {kind}.")


def _holds(loaded: object, key: str) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping) and len(loaded[key]) > 0


def _plain(entries: Entries, source: str, size: int) -> Entries:
    """The entries, all of them ordinary arrays on the CPU that take no more memory than the file may hold."""
    most, total = max(most_unpacked(size), min(MOST_BYTES, 4 * size)), 0
    for name, tensor in entries.items():
        kind = None
        if tensor.layout != torch.strided:
            kind = "sparse"
        elif tensor.is_nested:
            kind = "nested"
        elif tensor.is_quantized:
            kind = "quantised"
        elif tensor.device.type != "cpu":
            kind = f"on the device '{tensor.device.type}'"
        elif tensor.dtype not in (*_FLOATING, *_WHOLE):
            kind = str(tensor.dtype).removeprefix("torch.")
        if kind is not None:
            raise WeightsError(f"Entry '{name}' of {source} is {kind}; plain tensors of numbers were expected.")
        total += tensor.numel() * tensor.element_size()
        if total > most:  # a view may repeat its numbers without end
            raise WeightsError(f"Entry '{name}' of {source} has shape {tuple(tensor.shape)}, more numbers than the file can hold.")
    return entries


class _Disregarded:
    """Stands in for a NumPy number, such as a score kept beside the weights; what it held is dropped."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        pass


_NUMPY_SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Disregarded, name) for name in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
]
