"""Official files of the networks from FlowNet to FlowFormer. Our layers bear the names of these files, so only wrappers,
twins and leftovers have to be dealt with; the exceptions are listed here, one `Release` per origin.

SPyNet's own files are Lua Torch's, one per level: naming one of a set stands for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .. import networks
from ..errors import FileError, WeightsError
from .checkpoints import check_floating
from .containers import Contents, read_contents
from .torch7 import convolutions, read_torch7

Entries = Mapping[str, Tensor]

_COUNT = "num_batches_tracked"  # the one entry of any network that is a whole number


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
        networks=("raft-stereo", "raft-stereo-realtime"),
        licence_code="MIT",
        licence_weights=_UNSAID,
        surplus=_RAFT_TWINS,
    ),
)


def release_of(architecture: str) -> Release | None:
    """The release that a network's official files belong to, or None for networks of another room."""
    return next((release for release in RELEASES if architecture in release.networks), None)


def official_state(entries: Entries, architecture: str, source: str = "the file") -> dict[str, Tensor]:
    """State dict of one of our networks from the entries of an official file.

    Raises:
        WeightsError: naming the first entry that is missing, mis-shaped or unknown, or not finite, or a second name of a module
            that holds other numbers than the first.
    """
    problem = misfit(entries, architecture, source)
    if problem:
        raise WeightsError(problem)
    _check_twins(entries, source)
    state = {name: entries[name].detach() for name in shapes(architecture)}
    for name, tensor in state.items():
        if name.endswith(_COUNT):
            continue
        check_floating(name, tensor, source)
        if not tensor.isfinite().all():
            raise WeightsError(f"Entry '{name}' of {source} holds values that are not finite.")
    return state


def misfit(entries: Entries, architecture: str, source: str) -> str:
    """The first thing about entries that does not fit a network, in one sentence; empty where all does."""
    wanted = shapes(architecture)
    for name, shape in wanted.items():
        if name not in entries:
            return f"{source} lacks the entry '{name}' of {architecture}."
        if tuple(entries[name].shape) != shape:
            return f"Entry '{name}' of {source} has shape {tuple(entries[name].shape)}; {architecture} needs {shape}."
    release = release_of(architecture)
    surplus = re.compile(release.surplus if release else "")
    for name in entries:
        if name not in wanted and not surplus.fullmatch(name):
            return f"{source} holds an entry '{name}' that {architecture} does not have."
    return ""


def chosen(entries: Entries, architecture: str, source: str) -> str:
    """What is wrong with taking the entries of a file for a network, in one sentence; empty where nothing is.

    Where another network fits, or is nearer, the sentence names it.
    """
    ours = release_of(architecture) is not None
    problem = misfit(entries, architecture, source) if ours else ""
    if ours and not problem:
        return ""
    likeness = {name: _likeness(entries, name) for release in RELEASES for name in release.networks}
    nearest = max(likeness, key=lambda name: likeness[name])
    if likeness[nearest] <= max(likeness.get(architecture, 0.0), 0.5):
        return problem
    advice = ", with something missing or changed" if misfit(entries, nearest, source) else f"; import it as '{nearest}'"
    return f"{source} does not look like weights of {architecture} but of {nearest}{advice}."


def _likeness(entries: Entries, architecture: str) -> float:
    """Share of names and shapes that a file and a network have in common."""
    wanted = shapes(architecture)
    common = sum(1 for name, shape in wanted.items() if name in entries and tuple(entries[name].shape) == shape)
    return common / max(len(wanted), len(entries), 1)


@cache
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


# ------------------------------------------------------------------------------------------------ SPyNet's own files

_LEVEL_IN_NAME = re.compile(r"(.*L)([1-6])((?:_.*)?\.t7)", re.DOTALL)
_FIVE_LEVELS = ("_3.t7", "_4.t7")  # the two sets trained on FlyingChairs, whose level 5 the release uses for level 6 too


def spynet_entries(contents: Contents) -> dict[str, Tensor]:
    """Entries of SPyNet from one of a set's files, `modelL<level>_<set>.t7`; the others must lie beside it.

    Raises:
        FileError: for a name without level, and for files that are missing or damaged.
        WeightsError: for files that hold anything but a chain of convolutions.
    """
    path = Path(contents.name)
    found = _LEVEL_IN_NAME.fullmatch(path.name)
    if not found:
        raise FileError(f"{path} is a Torch7 file whose name does not say its level; modelL1_F.t7 to modelL6_F.t7 were expected.")
    entries = {}
    for level in range(1, 7):
        sibling = path.with_name(f"{found[1]}{level}{found[3]}")
        if level == 6 and found[3] in _FIVE_LEVELS and not sibling.is_file():
            sibling = path.with_name(f"{found[1]}5{found[3]}")
        if sibling.name == path.name:
            part = contents
        elif sibling.is_file():
            part = read_contents(sibling)
        else:
            raise FileError(f"SPyNet's weights are one file per level; {sibling} is not there.")
        for index, (weight, bias) in enumerate(convolutions(read_torch7(part.data, part.name), part.name)):
            prefix = f"moduleBasic.{level - 1}.moduleBasic.{2 * index}"
            entries |= {f"{prefix}.weight": torch.from_numpy(weight), f"{prefix}.bias": torch.from_numpy(bias)}
    return entries
