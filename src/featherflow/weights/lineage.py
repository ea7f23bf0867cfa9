"""Official files of the networks from FlowNet to FlowFormer. Our layers bear the names of these files, so only wrappers,
twins and leftovers have to be dealt with; the exceptions are listed here, one `Release` per origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import networks
from ..errors import WeightsError

Entries = Mapping[str, Tensor]

_PREFIX = "module."


@dataclass(frozen=True)
class Release:
    """One official release and its terms."""

    title: str
    #: Registered networks that its files can hold.
    networks: tuple[str, ...]
    licence_code: str
    licence_weights: str
    #: Entries that our network has no place for and does not need: a second name of a module, or a table that follows from sizes.
    surplus: str = r"(?!)"


_RAFT_TWINS = r".*\.norm3\.(weight|bias|running_mean|running_var|num_batches_tracked)"
_UNSAID = "no terms of their own; those of the code, as far as anyone can tell"

RELEASES = (
    Release(
        title="the official FlowNet2 release in PyTorch",
        networks=("flownets", "flownetc", "flownet2", "flownet2-s", "flownet2-c", "flownet2-cs", "flownet2-css", "flownet2-sd"),
        licence_code="Apache-2.0",
        licence_weights="converted from the Caffe release under its own terms: for research only",
    ),
    Release(
        title="SPyNet",
        networks=("spynet",),
        licence_code="Max-Planck non-commercial research licence; of the PyTorch conversion GPL-3.0",
        licence_weights="non-commercial research, no redistribution",
    ),
    Release(
        title="the official PWC-Net release in PyTorch",
        networks=("pwcnet", "pwcnet-old"),
        licence_code="CC BY-NC-SA 4.0",
        licence_weights="CC BY-NC-SA 4.0 (non-commercial)",
    ),
    Release(
        title="the official RAFT release",
        networks=("raft", "raft-small"),
        licence_code="BSD-3-Clause",
        licence_weights=_UNSAID,
        surplus=_RAFT_TWINS,
    ),
    Release(
        title="the official GMFlow release",
        networks=("gmflow", "gmflow-refine"),
        licence_code="Apache-2.0",
        licence_weights=_UNSAID,
    ),
    Release(
        title="the official FlowFormer release",
        networks=("flowformer",),
        licence_code="Apache-2.0",
        licence_weights=_UNSAID,
        surplus=r"memory_decoder\.att\.pos_emb\.rel_ind",
    ),
    Release(
        title="the official RAFT-Stereo release",
        networks=("raft-stereo",),
        licence_code="MIT",
        licence_weights=_UNSAID,
        surplus=_RAFT_TWINS,
    ),
)


def release_of(architecture: str) -> Release | None:
    """The release that a network's official files belong to, or None for networks of another room."""
    return next((release for release in RELEASES if architecture in release.networks), None)


def unprefixed(entries: Entries) -> dict[str, Tensor]:
    """Entries without the prefix that a parallel wrapper puts before every name."""
    wrapped = bool(entries) and all(key.startswith(_PREFIX) for key in entries)
    return {key.removeprefix(_PREFIX) if wrapped else key: tensor for key, tensor in entries.items()}


def official_state(entries: Entries, architecture: str, source: str = "the file") -> dict[str, Tensor]:
    """State dict of one of our networks from the entries of an official file.

    Raises:
        WeightsError: naming the first entry that is missing, mis-shaped or unknown, or not finite, or a second name of a module
            that holds other numbers than the first.
    """
    entries = unprefixed(entries)
    problem = misfit(entries, architecture, source)
    if problem:
        raise WeightsError(problem)
    _check_twins(entries, source)
    state = {name: entries[name].detach() for name in shapes(architecture)}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsError(f"Entry '{name}' of {source} holds values that are not finite.")
    return state


def misfit(entries: Entries, architecture: str, source: str) -> str:
    """The first thing about un-prefixed entries that does not fit a network, in one sentence; empty where all does."""
    wanted = shapes(architecture)
    for name, shape in wanted.items():
        if name not in entries:
            return f"{source} lacks the entry '{name}' of {architecture}."
        if tuple(entries[name].shape) != shape:
            return f"Entry '{name}' of {source} has shape {tuple(entries[name].shape)}; {architecture} needs {shape}."
    surplus = re.compile(release_of(architecture).surplus)
    for name in entries:
        if name not in wanted and not surplus.fullmatch(name):
            return f"{source} holds an entry '{name}' that {architecture} does not have."
    return ""


def shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's state dict, without memory for its weights."""
    with torch.device("meta"):
        network = networks.build(architecture)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _check_twins(entries: Entries, source: str) -> None:
    """`norm3` and `downsample.1` are one module of RAFT's residual blocks, stored under both names."""
    for name, tensor in entries.items():
        twin = name.replace(".norm3.", ".downsample.1.")
        if twin != name and not (twin in entries and torch.equal(tensor, entries[twin])):
            raise WeightsError(f"Entries '{name}' and '{twin}' of {source} must be equal, since they are one module.")
