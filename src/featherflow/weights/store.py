"""featherflow's own weight files: safetensors, with everything that is known about the weights in the metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import networks
from ..errors import FeatherflowError, FileError, InputError, WeightsError
from ..files import atomic_write
from ..networks import FlowNetwork
from .checkpoints import MOST_HEADER, check_header
from .info import WeightsInfo, file_name, parse_name

__all__ = ["WeightsInfo", "check_state", "describe_file", "layout", "read_info", "read_weights", "save_weights"]

_STORED_DTYPES = {"F16", "BF16", "F32"}


class Layout(NamedTuple):
    """Tensors of a network's state dict."""

    shapes: dict[str, tuple[int, ...]]
    #: Names of those that are not trained: means and fixed kernels.
    buffers: frozenset[str]


def layout(architecture: str, options: Mapping[str, object] | None = None) -> Layout:
    """Tensor names and shapes of a network, without memory for its weights.

    Raises:
        InputError: for an unknown architecture or options that make no network.
    """
    entry = networks.get(architecture)
    try:
        with torch.device("meta"):
            network = entry.build(**(options or {}))
    except FeatherflowError:
        raise
    except Exception as error:  # options come from files: whatever they break is the file's fault
        raise InputError(f"The options {dict(options or {})} make no {architecture} network.") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return Layout(shapes, frozenset(name for name, _ in network.named_buffers()))


def check_state(shapes: Mapping[str, tuple[int, ...]], info: WeightsInfo, source: str) -> Layout:
    """Compare tensor shapes with those of the network that `info` names; all must be there and no others.

    Raises:
        WeightsError: naming the first tensor that is missing, mis-shaped or unknown.
    """
    try:
        wanted = layout(info.architecture, info.options)
    except InputError as error:
        raise WeightsError(f"No network fits the metadata of {source}: {error}") from error
    for name, shape in wanted.shapes.items():
        if name not in shapes:
            raise WeightsError(f"Tensor '{name}' of {info.architecture} is not in {source}.")
        if tuple(shapes[name]) != shape:
            raise WeightsError(f"Tensor '{name}' of {source} has shape {tuple(shapes[name])}; {info.architecture} needs {shape}.")
    for name in shapes:
        if name not in wanted.shapes:
            raise WeightsError(f"Tensor '{name}' of {source} is none of {info.architecture}.")
    return wanted


def save_weights(
    path: str | os.PathLike[str], state_dict: Mapping[str, Tensor], info: WeightsInfo, dtype: torch.dtype = torch.float16
) -> None:
    """Write weights and what is known about them. The file appears complete or not at all.

    Args:
        state_dict: all tensors of the network, floating point.
        info: with `rest_in`, tensors that the file of those weights, beside `path`, has with the same values are left out.
        dtype: how parameters are stored, float16 or float32; means and fixed kernels are always stored as float32.

    Raises:
        WeightsError: for tensors that do not fit the network, or values that are not finite (in `dtype`).
        FileError: for a path that cannot be written.
    """
    from safetensors.torch import save

    if dtype not in (torch.float16, torch.float32):
        raise InputError(f"Weights are stored as float16 or float32, not {str(dtype).removeprefix('torch.')}.")
    wanted = check_state({name: tuple(tensor.shape) for name, tensor in state_dict.items()}, info, "the state dict")
    stored = {}
    for name in wanted.shapes:
        tensor = state_dict[name].detach().to("cpu", torch.float32)
        _check_finite(name, tensor, "the state dict")
        stored[name] = tensor.to(torch.float32 if name in wanted.buffers else dtype).contiguous()
        if dtype == torch.float16 and not all_finite(stored[name].float()):
            raise WeightsError(f"Tensor '{name}' holds values too large for float16; store the weights as float32.")
    if info.rest_in:
        info = dataclasses.replace(info, rest_sha256=_digest(_beside(path, info)))
        for name, tensor in _rest(path, info).items():
            if name in stored and torch.equal(stored[name].float(), tensor):
                del stored[name]
    # Tensors that share memory would be refused by safetensors.
    data = save({name: tensor.clone() for name, tensor in stored.items()}, info.to_metadata())
    with atomic_write(path, durable=True) as file:
        file.write(data)


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], WeightsInfo]:
    """State dict in float32 on the CPU, and what is known about it. Both are whole: `rest_in` has been followed and is empty.

    Raises:
        FileError: for a file that is missing or no safetensors file, as is said of the one that has the rest.
        WeightsError: for a file that does not fit the network it names, or holds values that are not finite.
    """
    info = read_info(path)
    rest = _rest(path, info)
    with _opened(path) as file:
        own = {key: _shape(file, key, path) for key in file.keys()}
        wanted = check_state({name: tuple(tensor.shape) for name, tensor in rest.items()} | own, info, str(path))
        state = {name: file.get_tensor(name).float() if name in own else rest[name] for name in wanted.shapes}
    for name, tensor in state.items():
        _check_finite(name, tensor, str(path))
    return state, dataclasses.replace(info, rest_in="", rest_sha256="")


def _beside(path: str | os.PathLike[str], info: WeightsInfo) -> Path:
    """The file beside `path` that `info` says has the rest.

    Raises:
        WeightsError: for a name that is none, or a file that is not there.
    """
    try:
        architecture, tag = parse_name(info.rest_in)
        networks.get(architecture)
    except InputError as error:
        raise WeightsError(f"The metadata of {path} are damaged: 'rest_in' cannot be read.") from error
    other = Path(path).with_name(file_name(architecture, tag))
    if not other.is_file():
        raise WeightsError(f"{path} holds a part of {info.name}; the rest is in {info.rest_in}, and {other} is not there.")
    return other


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def _rest(path: str | os.PathLike[str], info: WeightsInfo) -> dict[str, Tensor]:
    """Tensors that `info` says another file beside `path` has, those that its network has too; none where it names no other.

    Raises:
        WeightsError: for a file that is not there, is another, or leaves tensors out itself.
    """
    if not info.rest_in:
        return {}
    other = _beside(path, info)
    if _digest(other) != info.rest_sha256:
        raise WeightsError(f"{path} holds a part of {info.name}; {other} is not the file that it was made beside.")
    if read_info(other).rest_in:
        raise WeightsError(f"The rest of {path} is said to be in {other}, which is not whole itself.")
    known = layout(info.architecture, info.options).shapes
    return {name: tensor for name, tensor in read_weights(other)[0].items() if name in known}


def read_info(path: str | os.PathLike[str]) -> WeightsInfo:
    """Metadata of a file, without reading its tensors. Raises as `read_weights` does."""
    with _opened(path) as file:
        return WeightsInfo.from_metadata(file.metadata(), str(path))


def describe_file(path: str | os.PathLike[str]) -> dict[str, object]:
    """Metadata and figures of a file: `WeightsInfo`'s fields, and parameters, stored types and size [bytes]."""
    state, _ = read_weights(path)
    info = read_info(path)
    with _opened(path) as file:
        stored = sorted({file.get_slice(name).get_dtype() for name in file.keys()})
    buffers = layout(info.architecture, info.options).buffers
    return {
        **info.as_dict(),
        "parameters": sum(tensor.numel() for name, tensor in state.items() if name not in buffers),
        "tensors": len(state),
        "stored_as": stored,
        "bytes": Path(path).stat().st_size,
        "path": str(path),
    }


def with_weights(state_dict: Mapping[str, Tensor], info: WeightsInfo) -> FlowNetwork:
    """The network that `info` names, in evaluation mode, with these weights and the attribute `weights_info`."""
    with torch.device("meta"):  # no numbers are drawn that would be overwritten
        network = networks.build(info.architecture, **info.options)
    whole = {name: value.dtype for name, value in network.state_dict().items() if not value.is_floating_point()}
    own = {name: value.to(whole.get(name, value.dtype), copy=True) for name, value in state_dict.items()}
    network.load_state_dict(own, assign=True)
    network.weights_info = info
    return network


def retagged(info: WeightsInfo, tag: str) -> WeightsInfo:
    """`info` under another tag."""
    return dataclasses.replace(info, tag=tag)


def _opened(path: str | os.PathLike[str]):
    """An open safetensors file; whatever is wrong with it becomes one sentence."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.exists():
        raise FileError(f"There is no file {path}.")
    if path.is_dir():
        raise FileError(f"{path} is a folder; a weight file was expected.")
    try:
        with path.open("rb") as file:
            check_header(file.read(8 + MOST_HEADER), path.stat().st_size, str(path))
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise FileError(f"{path} is not a safetensors file, or is truncated ({error}).") from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def _shape(file, name: str, path: str | os.PathLike[str]) -> tuple[int, ...]:
    view = file.get_slice(name)
    if view.get_dtype() not in _STORED_DTYPES:
        raise WeightsError(f"Tensor '{name}' of {path} is stored as {view.get_dtype()}; float16 or float32 was expected.")
    return tuple(view.get_shape())


def all_finite(tensor: Tensor) -> bool:
    """Whether a float32 tensor on the CPU holds neither NaN nor infinity."""
    # A sum in float64 cannot overflow. NumPy, because waking threads for each of 200 small tensors takes longer than the sums.
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return bool(np.isfinite(tensor.numpy().sum(dtype=np.float64)))


def _check_finite(name: str, tensor: Tensor, source: str) -> None:
    if not all_finite(tensor):
        raise WeightsError(f"Tensor '{name}' of {source} holds values that are not finite.")
