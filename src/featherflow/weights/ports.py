"""Releases of the LiteFlowNet family, each an `Origin`: what its layers are called, and what must be done to its numbers.

A file of any release is first made a flat dictionary of entries, `"<layer>.weight"` and `"<layer>.bias"`; in Caffe files
further blobs are `"<layer>.2"` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import WeightsError
from ..networks.liteflownet import OFFICIAL_MEANS, LiteFlowNetConfig
from .names import MEAN_LAYERS, official_layers

Entries = Mapping[str, Tensor]
State = dict[str, Tensor]

_RESEARCH = (
    "research purposes only; commercial use needs the consent of the author of LiteFlowNet "
    "(https://github.com/twhui/LiteFlowNet/blob/master/LICENSE)"
)
_CONSTANT_LAYER = re.compile(r"(sum_exp_kernel_R_|scaled_flow0_R_|scaled_flow_R_L\d_[xy]\b)|\.netScale[XY]\b")


@dataclass(frozen=True)
class Origin:
    """One release of the family's weights."""

    key: str
    title: str
    #: Registered networks that its files can hold.
    networks: tuple[str, ...]
    #: An entry that files of this release have, and files of the others do not.
    sign: str
    #: Its layer name for each of ours; layers it does not have are left out.
    layers: Callable[[LiteFlowNetConfig], dict[str, str]]
    #: Changes the state dict so that our network computes what the release's does; returns remarks.
    adapt: Callable[[LiteFlowNetConfig, State, Entries], list[str]]
    licence: str
    #: What cannot be made equal, in one line; empty where nothing is left.
    approximate: str = ""
    #: Layers that `adapt` reads, beside those of the table.
    extra_layers: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------ official release


def _adapt_official(config: LiteFlowNetConfig, state: State, entries: Entries) -> list[str]:
    remarks = []
    for (ours, layer), constant in zip(MEAN_LAYERS.items(), OFFICIAL_MEANS, strict=True):
        mean = entries.get(f"{layer}.2")
        if mean is None:
            state[ours] = torch.tensor(constant)
            remarks.append(f"Layer '{layer}' with the mean colour is not in the file; the published mean is used.")
        elif mean.numel() != 3:
            raise WeightsError(f"Layer '{layer}' must hold a mean colour of 3 values, got {mean.numel()}.")
        else:
            state[ours] = mean.reshape(3).float().clone()
    return remarks


# ------------------------------------------------------------------------------------------------ tables of names

# Ours, with i = index within the unit, k = level, l = NetC level from 0; and the other side's as a function of the numbers.
_Table = dict[str, Callable[..., str]]


def _translate(config: LiteFlowNetConfig, table: _Table) -> dict[str, str]:
    patterns = [(re.compile(re.sub(r"<\w>", r"(\\d+)", re.escape(ours))), theirs) for ours, theirs in table.items()]
    layers = {}
    for ours in official_layers(config):
        for pattern, theirs in patterns:
            if found := pattern.fullmatch(ours):
                layers[ours] = theirs(*map(int, found.groups()))
                break
    return layers


def sniklaus_layers(config: LiteFlowNetConfig) -> dict[str, str]:
    """Names in `pytorch-liteflownet`: levels counted from the finest, activations counted among the layers."""
    levels = ("One", "Two", "Thr", "Fou", "Fiv", "Six")
    return _translate(config, {
        "netc.levels.<l>.<i>": lambda l, i: f"netFeatures.net{levels[l]}.{2 * i}",
        "nete.level<k>.upflow": lambda k: f"netMatching.{k - 2}.netUpflow",
        "nete.level<k>.expansion": lambda k: f"netMatching.{k - 2}.netFeat.0",
        "nete.level<k>.matching.upcost": lambda k: f"netMatching.{k - 2}.netUpcorr",
        "nete.level<k>.matching.convs.<i>": lambda k, i: f"netMatching.{k - 2}.netMain.{2 * i}",
        "nete.level<k>.matching.flow": lambda k: f"netMatching.{k - 2}.netMain.{2 * len(config.matching)}",
        "nete.level<k>.subpixel.convs.<i>": lambda k, i: f"netSubpixel.{k - 2}.netMain.{2 * i}",
        "nete.level<k>.subpixel.flow": lambda k: f"netSubpixel.{k - 2}.netMain.{2 * len(config.subpixel)}",
        "nete.level<k>.regularization.projection": lambda k: f"netRegularization.{k - 2}.netFeat.0",
        "nete.level<k>.regularization.convs.<i>": lambda k, i: f"netRegularization.{k - 2}.netMain.{2 * i}",
        "nete.level<k>.regularization.distance.<i>": lambda k, i: f"netRegularization.{k - 2}.netDist.{i}",
    })  # fmt: skip


def ptlflow_layers(config: LiteFlowNetConfig) -> dict[str, str]:
    """Names in ptlflow: levels counted from the coarsest. The flow layer of S is in its trunk in LiteFlowNet, beside it in 2."""
    depth = len(config.subpixel)
    first = depth == 3
    return _translate(config, {
        "netc.levels.<l>.<i>": lambda l, i: f"feature_net.convs.{l}.{2 * i}",
        "nete.level<k>.upflow": lambda k: f"matching_nets.{6 - k}.up_flow",
        "nete.level<k>.expansion": lambda k: "feat2_conv.0",
        "nete.level<k>.matching.upcost": lambda k: f"matching_nets.{6 - k}.up_corr",
        "nete.level<k>.matching.convs.<i>": lambda k, i: f"matching_nets.{6 - k}.flow_net.{2 * i}",
        "nete.level<k>.matching.flow": lambda k: f"matching_nets.{6 - k}.flow_net.{2 * len(config.matching)}",
        "nete.level<k>.subpixel.convs.<i>": lambda k, i: f"subpixel_nets.{6 - k}.{'flow' if first else 'feat'}_net.{2 * i}",
        "nete.level<k>.subpixel.flow": lambda k: f"subpixel_nets.{6 - k}.flow_net" + (f".{2 * depth}" if first else ""),
        "nete.level<k>.regularization.projection": lambda k: f"regularization_nets.{6 - k}.feat_conv.0",
        "nete.level<k>.regularization.convs.<i>": lambda k, i: f"regularization_nets.{6 - k}.feat_net.{2 * i}",
        "nete.level<k>.regularization.distance.<i>": lambda k, i: f"regularization_nets.{6 - k}.dist" + _part(k, i),
        "pseudo.upflow": lambda: "pseudo_subpixel.up_flow",
        "pseudo.upsubpixel": lambda: "pseudo_subpixel.flow_net.0",
        "pseudo.flow": lambda: "pseudo_subpixel.flow_net.1",
        "pseudo.upregularization": lambda: "pseudo_regularization.feat_net.0",
        "pseudo.distance.<i>": lambda i: f"pseudo_regularization.feat_net.{i + 1}",
    })  # fmt: skip


def mmflow_layers(config: LiteFlowNetConfig) -> dict[str, str]:
    """Names in mmflow: levels by name; the up-sampling of a flow belongs to the level it comes from."""

    def decoder(k: int, rest: str) -> str:
        return f"decoder.decoders.level{k}.{rest}"

    return _translate(config, {
        "netc.levels.<l>.<i>": lambda l, i: f"encoder.layers.{l}.layers.{i}.conv",
        "nete.level<k>.upflow": lambda k: decoder(k + 1, "upflow_layer"),
        "nete.level<k>.expansion": lambda k: decoder(k, "feat_layer.conv"),
        "nete.level<k>.matching.upcost": lambda k: decoder(k, "NetM.corr_up"),
        "nete.level<k>.matching.convs.<i>": lambda k, i: decoder(k, f"NetM.layers.{i}.conv"),
        "nete.level<k>.matching.flow": lambda k: decoder(k, "NetM.pred_flow"),
        "nete.level<k>.subpixel.convs.<i>": lambda k, i: decoder(k, f"NetS.layers.{i}.conv"),
        "nete.level<k>.subpixel.flow": lambda k: decoder(k, "NetS.pred_flow"),
        "nete.level<k>.regularization.projection": lambda k: decoder(k, "rfeat_layer.conv"),
        "nete.level<k>.regularization.convs.<i>": lambda k, i: decoder(k, f"NetR.layers.{i}.conv"),
        "nete.level<k>.regularization.distance.<i>": lambda k, i: decoder(k, "NetR.dist_layer") + _part(k, i),
    })  # fmt: skip


def _part(level: int, index: int) -> str:
    """The distance is one layer at levels 6 and 5, and two in a row below."""
    return f".{index}" if level <= 4 else ""


# ------------------------------------------------------------------------------------------------ what ports do differently


def _adapt_sniklaus(config: LiteFlowNetConfig, state: State, entries: Entries) -> list[str]:
    state["mean1"], state["mean2"] = (torch.tensor(mean) for mean in OFFICIAL_MEANS)
    # One layer of the network, stored twice.
    for kind in ("weight", "bias"):
        twin, ours = f"netSubpixel.0.netFeat.0.{kind}", state[f"nete.level2.expansion.{kind}"]
        if twin in entries and not torch.equal(entries[twin].float(), ours):
            raise WeightsError(f"Entry '{twin}' must equal that of netMatching, since both are one layer of LiteFlowNet.")
    return []


def _adapt_ptlflow(config: LiteFlowNetConfig, state: State, entries: Entries) -> list[str]:
    # It feeds RGB where we feed BGR, and subtracts from it the official mean as if that ran R, G, B.
    state["netc.levels.0.0.weight"] = state["netc.levels.0.0.weight"].flip(1)
    state["mean1"] = state["mean2"] = torch.tensor(OFFICIAL_MEANS[0]).flip(0)
    return []


def _adapt_mmflow(config: LiteFlowNetConfig, state: State, entries: Entries) -> list[str]:
    # It sums costs over channels where we take the mean; what follows is homogeneous up to the first convolution.
    for level in config.levels:
        channels = config.expanded_features if level == 2 else config.features[level - 1][-1]
        first = f"nete.level{level}.matching.convs.0.weight"
        state[first] = state[first] * channels
    state["mean1"] = state["mean2"] = torch.tensor(OFFICIAL_MEANS[0])
    return []


OFFICIAL = Origin(
    key="official",
    title="the official Caffe release",
    networks=("liteflownet", "liteflownet2", "liteflownet2-kitti", "liteflownetx"),
    sign="conv1.weight",
    layers=official_layers,
    adapt=_adapt_official,
    licence=_RESEARCH,
    extra_layers=tuple(MEAN_LAYERS.values()),
)

ORIGINS = (
    OFFICIAL,
    Origin(
        key="sniklaus",
        title="pytorch-liteflownet",
        networks=("liteflownet",),
        sign="netFeatures.netOne.0.weight",
        layers=sniklaus_layers,
        adapt=_adapt_sniklaus,
        licence=_RESEARCH,
        extra_layers=("netSubpixel.0.netFeat.0",),
    ),
    Origin(
        key="ptlflow",
        title="ptlflow",
        networks=("liteflownet", "liteflownet2", "liteflownet2-kitti"),
        sign="feature_net.convs.0.0.weight",
        layers=ptlflow_layers,
        adapt=_adapt_ptlflow,
        licence=_RESEARCH,
        approximate="ptlflow masks warped borders, takes the brightness error from one channel of frame 2 and enlarges "
        "the last flow differently; featherflow follows the official network there",
    ),
    Origin(
        key="mmflow",
        title="mmflow",
        networks=("liteflownet", "liteflownet2"),
        sign="encoder.layers.0.layers.0.conv.weight",
        layers=mmflow_layers,
        adapt=_adapt_mmflow,
        licence="as released by the mmflow project, see https://github.com/open-mmlab/mmflow",
        approximate="mmflow masks warped borders and makes the image pyramid by plain interpolation; "
        "featherflow follows the official network there",
    ),
)


def normalize(entries: Entries) -> dict[str, Tensor]:
    """Entries under the names of the tables: sniklaus' files say module for net."""
    return {re.sub(r"(^|\.)module(?=[A-Z])", r"\1net", key): tensor for key, tensor in entries.items()}


def recognize(entries: Entries) -> Origin | None:
    """The release whose names these are."""
    return next((origin for origin in ORIGINS if origin.sign in entries), None)


def constant_remarks(entries: Entries) -> list[str]:
    """Remarks on layers that are summing constants in every release (weight 1, bias 0) and are not in this file."""
    remarks = []
    for key, tensor in entries.items():
        if _CONSTANT_LAYER.search(key) and not bool((tensor == (0 if key.endswith(".bias") else 1)).all()):
            remarks.append(f"Layer '{key.rpartition('.')[0]}' should be a constant sum and is not; it is left out all the same.")
    return list(dict.fromkeys(remarks))


def distance_remarks(state: State) -> list[str]:
    """Remarks on biases of distance layers, which official training freezes at zero."""
    odd = [key.removesuffix(".bias") for key, t in state.items() if ".distance." in key and key.endswith(".bias") and t.any()]
    if not odd:
        return []
    return [f"The biases of {len(odd)} distance layers ({odd[0]}, ...) are not 0, as official training has them; they are kept."]
