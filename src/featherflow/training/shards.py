"""The full state of a run as safetensors files of limited size, for places that take no large files.

state-001-000.safetensors  state-001-001.safetensors ...   pieces of tensors; the first number grows with each write
state.json                                                 everything else, and where each tensor's pieces are
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FileError
from ..files import atomic_write

LIMIT = 15_000_000  # bytes of a shard, its header apart
INDEX = "state.json"
_SHARD = re.compile(r"state-\d{3,}-\d{3,}\.safetensors")  # other files in the folder are somebody else's


def write_shards(folder: Path | str, state: dict, limit: int = LIMIT) -> list[Path]:
    """Write a state of nested dictionaries and lists of tensors, numbers and texts.

    The index comes last and names its shards, so that an interrupted write leaves the state that was there before.

    Returns:
        The files written.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    old = {path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name)}
    tensors: list[Tensor] = []
    skeleton = _without_tensors(state, tensors)
    # New names for new content: the old index stays true until the new one replaces it.
    generation = 1 + max((int(name.split("-")[1]) for name in old), default=0)
    shards: list[dict[str, Tensor]] = [{}]
    room, described = limit, []
    for number, tensor in enumerate(tensors):
        flat, pieces = tensor.detach().cpu().contiguous().flatten(), []
        described.append({"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "pieces": pieces})
        while len(flat):
            if room < flat.element_size():
                shards.append({})
                room = limit
            part, flat = flat[: room // flat.element_size()], flat[room // flat.element_size() :]
            room -= part.numel() * part.element_size()
            key = f"{number}.{len(pieces)}"
            shards[-1][key] = part.clone()
            pieces.append([len(shards) - 1, key])
    names = [f"state-{generation:03d}-{index:03d}.safetensors" for index in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        with atomic_write(folder / name, durable=True) as file:
            file.write(save(shard))
    with atomic_write(folder / INDEX, durable=True) as file:
        file.write(json.dumps({"shards": names, "tensors": described, "state": skeleton}).encode())
    for name in old:
        (folder / name).unlink(missing_ok=True)
    return [*(folder / name for name in names), folder / INDEX]


def read_shards(folder: Path | str) -> dict:
    """The state that `write_shards` wrote, with tensors on the CPU.

    Raises:
        FileError: if a file is missing or broken.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text())
        shards = [load_file(folder / name) for name in index["shards"]]
        tensors = []
        for entry in index["tensors"]:
            pieces = [shards[shard][key] for shard, key in entry["pieces"]]
            flat = torch.cat(pieces) if pieces else torch.empty(0, dtype=getattr(torch, entry["dtype"]))
            tensors.append(flat.view(entry["shape"]))
        return _with_tensors(index["state"], tensors)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"The state in '{folder}' cannot be read: {reason}") from error


def _without_tensors(value: object, tensors: list[Tensor]) -> object:
    """JSON that stands for `value`: dictionaries as lists of pairs, since their keys may be numbers; tensors by number."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, dict):
        return {"dict": [[key, _without_tensors(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_without_tensors(entry, tensors) for entry in value]}
    return value


def _with_tensors(value: Any, tensors: list[Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _with_tensors(entry, tensors) for key, entry in content}
    entries = [_with_tensors(entry, tensors) for entry in content]
    return entries if kind == "list" else tuple(entries)
