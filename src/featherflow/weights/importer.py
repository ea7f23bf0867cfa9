"""Weights from elsewhere, made ours: official files of every network, and checkpoints of LiteFlowNet's PyTorch ports."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .. import networks
from ..errors import FeatherflowError, WeightsError
from ..networks.liteflownet import LiteFlowNet, LiteFlowNetConfig
from ..ops import bilinear_upsampling_kernel
from . import catalogue, lineage, store
from .caffe import read_caffemodel
from .checkpoints import check_floating, is_safetensors, is_torch, part_of, parts, safetensors_entries, torch_entries
from .containers import Contents, read_contents
from .info import WeightsInfo, parse_name
from .ports import OFFICIAL, Origin, constant_remarks, distance_remarks, normalize, recognize
from .torch7 import is_torch7

DEFAULT_TAG = "imported"
_KINDS = ("weight", "bias")
_LISTED = 8  # names spelled out in a remark


class ImportedWeights(NamedTuple):
    """Weights ready for one of our networks, and what a person should know about how they were read."""

    state_dict: dict[str, Tensor]
    info: WeightsInfo
    remarks: list[str]


def import_weights(file: str | os.PathLike[str] | Contents, name: str, part: str | None = None) -> ImportedWeights:
    """Weights of another release as the state dict of a network of ours.

    Reads official `.caffemodel` files, plain or in `.xz`, `.gz`, `.tar.gz`; `.pytorch` files of sniklaus' pytorch-liteflownet;
    checkpoints of ptlflow and mmflow; official checkpoints of the networks from FlowNet to FlowFormer, and SPyNet's `.t7` files,
    of which one stands for its five neighbours; safetensors with the names of any of these, or our own. The format is told by
    content.

    Args:
        file: a path, or contents already read.
        name: the network, as `architecture` or `architecture:tag`; without a tag the weights are called "imported".
        part: of a checkpoint that holds several networks (a student and its teacher, weights and their average), the key or the
            beginning of names to take. Default: the only one that fits, or the likeliest key.

    Raises:
        InputError: for an unknown network or a malformed tag.
        FileError: for a file that cannot be read, is damaged, or is of no known format.
        WeightsError: for a file that does not fit the network, naming the first layer that is missing or mis-shaped, and
            the network it does fit, if any; and for one that holds several that fit.
    """
    architecture, tag = catalogue.checked_name(name)
    tag = tag or DEFAULT_TAG
    contents = file if isinstance(file, Contents) else read_contents(file)
    if is_safetensors(contents.data) and part is None:
        own = _own_weights(contents, file, architecture, tag)
        if own is not None:
            return own
    entries, official = _entries(contents, part)
    try:
        return _fitted(entries, official, contents, architecture, tag)
    except WeightsError as error:
        found = {}
        for each in [] if part is not None or official else parts(entries):
            with suppress(WeightsError):
                found[each] = _fitted(part_of(entries, each, contents.name), official, contents, architecture, tag)
        if not found:
            raise
        if len(found) > 1:
            names = ", ".join(f"'{_printable(each)}'" for each in found)
            raise WeightsError(
                f"{contents.name} holds {len(found)} networks that {architecture} could take: {names}; choose one, as in "
                f"--part {_printable(next(iter(found)))}."
            ) from error
        ((only, imported),) = found.items()
        return imported._replace(remarks=[f"The weights are those of the part '{_printable(only)}'.", *imported.remarks])


def _fitted(entries: dict[str, Tensor], official: bool, contents: Contents, architecture: str, tag: str) -> ImportedWeights:
    """Entries of a file as weights of a network; `official` says that they are those of a Caffe model.

    Raises:
        WeightsError: where they do not fit.
    """
    release = lineage.release_of(architecture)
    if release is not None:
        return _lineage_weights(release, entries, contents, architecture, tag)
    origin = OFFICIAL if official else recognize(normalize(entries))
    if origin is None:
        if problem := lineage.chosen(entries, architecture, contents.name):
            raise WeightsError(problem)
        raise WeightsError(
            f"The tensors of {contents.name} have names of no release that featherflow knows "
            f"(the first is '{_printable(next(iter(entries), ''))}')."
        )
    if not official:
        entries = normalize(entries)
    fit = _chosen_fit(entries, origin, architecture, contents.name)
    state, remarks = _state(fit, entries, origin, contents.name)
    info = WeightsInfo(
        architecture=architecture,
        tag=tag,
        recipe=f"weights of {origin.title}",
        licence_code="Apache-2.0",
        licence_weights=origin.licence,
        source=_source(contents),
        approximate=origin.approximate,
    )
    return ImportedWeights(state, info, remarks)


def _lineage_weights(
    release: lineage.Release, entries: Mapping[str, Tensor], contents: Contents, architecture: str, tag: str
) -> ImportedWeights:
    """Weights of a network whose layers are called as in its official files."""
    if problem := lineage.chosen(entries, architecture, contents.name):
        origin = recognize(normalize(entries))
        if origin is not None:  # no network of the lineage is nearer than one of the LiteFlowNet family
            known = " or ".join(origin.networks)
            problem = f"{contents.name} is a file of {origin.title}, which holds weights of {known}, not of {architecture}."
        raise WeightsError(problem)
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in lineage.official_state(entries, architecture, contents.name).items()
    }
    info = WeightsInfo(
        architecture=architecture,
        tag=tag,
        recipe=f"weights of {release.title}",
        licence_code=release.licence_code,
        licence_weights=release.licence_weights,
        source=_source(contents),
    )
    return ImportedWeights(state, info, [])


def _source(contents: Contents) -> str:
    return f"{Path(contents.name).name}, sha256 {hashlib.sha256(contents.data).hexdigest()} (unpacked)"


def import_weights_to(
    file: str | os.PathLike[str] | Contents, name: str, out: str | os.PathLike[str] | None = None, part: str | None = None
) -> tuple[Path, ImportedWeights]:
    """`import_weights`, written as a safetensors file in float32.

    Args:
        out: the file to write. Default: into the user's weights, so that `featherflow.load(name)` finds them.
        part: as `import_weights`.

    Returns:
        The path written, and what was imported.

    Raises:
        As `import_weights` does, and FileError for a path that cannot be written. Nothing is written then.
    """
    if out is None:
        catalogue.destination(*_with_tag(name))  # refuse a name that is taken before the work is done
    imported = import_weights(file, name, part)
    path = Path(out) if out is not None else catalogue.destination(*_with_tag(name), create=True)
    store.save_weights(path, imported.state_dict, imported.info, dtype=torch.float32)
    return path, imported


def _with_tag(name: str) -> tuple[str, str]:
    architecture, tag = parse_name(name)
    return architecture, tag or DEFAULT_TAG


# ------------------------------------------------------------------------------------------------ formats


def _entries(contents: Contents, part: str | None) -> tuple[dict[str, Tensor], bool]:
    """Tensors of a file, or of a part of it, by name, and whether it is a Caffe model."""
    data, name = contents
    if is_safetensors(data):
        entries = safetensors_entries(data, name)
        return entries if part is None else part_of(entries, part, name), False
    if is_torch(data):
        return torch_entries(data, name, part), False
    if part is not None:
        raise WeightsError(f"{name} is no checkpoint of PyTorch and has no parts to choose from.")
    if is_torch7(data):
        return lineage.spynet_entries(contents), False
    entries = {}
    for layer in read_caffemodel(data, name).values():
        for index, blob in enumerate(layer.blobs):
            kind = _KINDS[index] if index < len(_KINDS) else str(index)
            entries[f"{layer.name}.{kind}"] = torch.from_numpy(blob)
    return entries, True


def _own_weights(
    contents: Contents, file: str | os.PathLike[str] | Contents, architecture: str, tag: str
) -> ImportedWeights | None:
    """Our own file under another tag, or None where the file is not our own."""
    if isinstance(file, Contents):
        return None
    try:
        info = store.read_info(file)
    except FeatherflowError:
        return None
    state, info = store.read_weights(file)
    if info.architecture != architecture:
        raise WeightsError(f"{contents.name} holds weights of {info.architecture}, not of {architecture}.")
    return ImportedWeights(state, store.retagged(info, tag), [])


# ------------------------------------------------------------------------------------------------ fitting


class _Fit(NamedTuple):
    """How a file's entries answer the needs of one network."""

    architecture: str
    config: LiteFlowNetConfig
    shapes: dict[str, tuple[int, ...]]
    #: Entry for each of our tensors.
    matched: dict[str, str]
    #: Fixed bilinear kernels that the file does not have.
    absent: list[str]
    #: The first thing that does not fit, in one sentence; empty where all does.
    problem: str


def _fit(entries: Mapping[str, Tensor], origin: Origin, architecture: str, source: str) -> _Fit:
    with torch.device("meta"):
        network = networks.build(architecture)
    assert isinstance(network, LiteFlowNet)  # as all of `origin.networks` are
    config = network.config
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    fixed = {name for name, _ in network.named_buffers()}
    matched, absent, problem = {}, [], ""
    for ours, theirs in origin.layers(config).items():
        for kind in _KINDS:
            tensor, entry = f"{ours}.{kind}", f"{theirs}.{kind}"
            if problem or tensor not in shapes:
                continue
            if entry in entries and _answers(tuple(entries[entry].shape), shapes[tensor]):
                matched[tensor] = entry
            elif entry in entries:
                got = tuple(entries[entry].shape)
                problem = f"Layer '{theirs}' of {source} has a {kind} of shape {got}; {architecture} needs {shapes[tensor]}."
            elif tensor in fixed:
                absent.append(tensor)
            elif kind == "bias" and f"{theirs}.weight" in entries:
                problem = f"Layer '{theirs}' of {source} has no bias, which {architecture} needs."
            else:
                problem = f"Layer '{theirs}', which {architecture} needs, is not in {source}."
    return _Fit(architecture, config, shapes, matched, absent, problem)


def _answers(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Equal shapes; a bias may come in the legacy form (1, 1, 1, N)."""
    return shape == wanted or (len(wanted) == 1 and len(shape) == 4 and shape == (1, 1, 1, *wanted))


def _chosen_fit(entries: Mapping[str, Tensor], origin: Origin, architecture: str, source: str) -> _Fit:
    """The fit of the network asked for, unless another network makes more of the file."""
    candidates = [name for name in networks.names() if name in origin.networks]
    fits = {name: _fit(entries, origin, name, source) for name in candidates}
    fitting = [fit for fit in fits.values() if not fit.problem]
    best = max(fitting, key=lambda fit: len(fit.matched), default=None)
    asked = fits.get(architecture)
    if asked is not None and not asked.problem and (best is None or len(asked.matched) >= len(best.matched)):
        return asked
    if best is not None:
        raise WeightsError(
            f"{source} does not look like weights of {architecture} but of {best.architecture}; import it as '{best.architecture}'."
        )
    if asked is None:
        known = " or ".join(origin.networks)
        raise WeightsError(f"{source} is a file of {origin.title}, which holds weights of {known}, not of {architecture}.")
    raise WeightsError(asked.problem)


def _state(fit: _Fit, entries: Mapping[str, Tensor], origin: Origin, source: str) -> tuple[dict[str, Tensor], list[str]]:
    """The network's state dict, complete and finite, and remarks."""
    state = {}
    for name, entry in fit.matched.items():
        tensor = entries[entry]
        check_floating(entry, tensor, source)
        state[name] = tensor.detach().reshape(fit.shapes[name]).float()
        if not store.all_finite(state[name]):
            raise WeightsError(f"Layer '{entry.rpartition('.')[0]}' holds values that are not finite.")
    remarks = []
    for name in fit.absent:
        state[name] = bilinear_upsampling_kernel(fit.shapes[name][0])
    if fit.absent:
        remarks.append(f"{len(fit.absent)} fixed up-sampling kernels are not in the file; bilinear ones are used.")
    remarks += origin.adapt(fit.config, state, entries)
    for name in ("mean1", "mean2"):
        if not store.all_finite(state[name]):
            raise WeightsError(f"The mean colour '{name}' in the file is not finite.")
    remarks += constant_remarks(entries) + distance_remarks(state)
    remarks += _ignored(fit, entries, origin)
    return {name: state[name] for name in fit.shapes}, remarks


def _ignored(fit: _Fit, entries: Mapping[str, Tensor], origin: Origin) -> list[str]:
    used = {entry.rpartition(".")[0] for entry in fit.matched.values()}
    layers = dict.fromkeys(_printable(entry.rpartition(".")[0]) for entry in entries)
    left = [layer for layer in layers if layer not in used and layer not in origin.extra_layers]
    if not left:
        return []
    listed = ", ".join(left[:_LISTED]) + (", ..." if len(left) > _LISTED else "")
    return [f"{len(left)} layers that {fit.architecture} does not use are left out: {listed}."]


def _printable(text: str) -> str:
    """A name from a file, safe to print."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:80])
