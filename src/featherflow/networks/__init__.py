"""Networks by name. One file per network; what the rest of the package knows of a network stands in its `Network` entry."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from . import flowformer, flownet2, flownetc, flownets, gmflow, liteflownet, liteflownet_tied, pwcnet, raft, raft_stereo, spynet
from .contract import PLAIN, FeatureNetwork, FlowNetwork, RunOptions, Traits, as_network, shares_features

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "PLAIN",
    "FeatureNetwork",
    "FlowNetwork",
    "Network",
    "RunOptions",
    "Traits",
    "as_network",
    "build",
    "get",
    "names",
    "register",
    "shares_features",
    "untrained",
]


@dataclass(frozen=True)
class Network:
    """One registered architecture."""

    name: str
    #: Builds the network with untrained weights; keywords replace numbers of its table, as recorded with some weights.
    build: Callable[..., FlowNetwork]
    #: One line for tables.
    summary: str
    paper: str


_REGISTRY: dict[str, Network] = {}


def register(name: str, build: Callable[..., FlowNetwork], summary: str, paper: str) -> None:
    """Add an architecture under a name of its own."""
    if name in _REGISTRY:
        raise ValueError(f"network '{name}' is registered twice")
    _REGISTRY[name] = Network(name, build, summary, paper)


def names() -> list[str]:
    """Registered names, in order of registration."""
    return list(_REGISTRY)


def get(name: str) -> Network:
    """The entry of a name.

    Raises:
        InputError: for an unknown name, with the nearest known ones.
    """
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(_REGISTRY)}."
        raise InputError(f"There is no network named '{name}'; {hint}")
    return _REGISTRY[name]


def build(name: str, **options: object) -> FlowNetwork:
    """A network with untrained weights, in evaluation mode.

    Args:
        options: numbers of the network's table to replace, e.g. `normalized_matching=True`.

    Raises:
        InputError: for an unknown name or option.
    """
    return get(name).build(**options).eval()


def untrained(name: str, seed: int = 0, **options: object) -> FlowNetwork:
    """As `build`, with weights that are the same each time; the generators of the process are left as they were."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]  # partly untyped
        torch.default_generator.manual_seed(seed)
        return build(name, **options)


def _register_liteflownet_family() -> None:
    first = "Hui, Tang, Loy, LiteFlowNet, CVPR 2018"
    second = "Hui, Tang, Loy, A Lightweight Optical Flow CNN, TPAMI 2020"
    family = (
        ("liteflownet", liteflownet.LITEFLOWNET, "levels 6 to 2, flow at half size", first),
        ("liteflownet2", liteflownet.LITEFLOWNET2, "deeper M and S, levels 6 to 3, flow at quarter size", second),
        ("liteflownet2-kitti", liteflownet.LITEFLOWNET2_KITTI, "LiteFlowNet2 with a light level 2 for driving scenes", second),
        ("liteflownet2-slim", liteflownet.LITEFLOWNET2_SLIM, "LiteFlowNet2 at half the width; ours", second),
        ("liteflownetx", liteflownet.LITEFLOWNETX, "no matching, narrow; our reconstruction from the published counts", second),
    )
    for name, config, summary, paper in family:
        register(name, partial(_build_liteflownet, config), summary, paper)
    tied = partial(_build, "liteflownet-tied", liteflownet_tied.LiteFlowNetTied, liteflownet_tied.TiedConfig())
    register("liteflownet-tied", tied, "one decoder of M, S and R for all levels, for frames of any size; ours", second)


def _build_liteflownet(config: liteflownet.LiteFlowNetConfig, /, **options: object) -> FlowNetwork:
    return liteflownet.LiteFlowNet(liteflownet.with_options(config, options))


def _register_lineage() -> None:
    first = "Dosovitskiy et al., FlowNet, ICCV 2015"
    second = "Ilg et al., FlowNet 2.0, CVPR 2017"
    third = "Teed, Deng, RAFT, ECCV 2020"
    fourth = "Xu et al., GMFlow, CVPR 2022"
    fifth = "Lipson, Teed, Deng, RAFT-Stereo, 3DV 2021"
    lineage = (
        ("flownets", flownets.FlowNetS, None, "stacked frames, contraction and refinement", first),
        ("flownetc", flownetc.FlowNetC, None, "FlowNet with a correlation layer", first),
        ("flownet2", flownet2.FlowNet2, flownet2.FLOWNET2, "cascade of five FlowNets", second),
        ("flownet2-s", flownets.FlowNetS, None, "FlowNetS under its name in FlowNet2", second),
        ("flownet2-c", flownetc.FlowNetC, None, "FlowNetC under its name in FlowNet2", second),
        ("flownet2-cs", flownet2.FlowNet2, flownet2.FLOWNET2_CS, "FlowNetC refined by one FlowNetS", second),
        ("flownet2-css", flownet2.FlowNet2, flownet2.FLOWNET2_CSS, "FlowNetC refined by two FlowNetS", second),
        ("flownet2-sd", flownet2.FlowNetSD, None, "FlowNetS for small displacements", second),
        ("spynet", spynet.SPyNet, None, "classical pyramid, a small network per level", "Ranjan, Black, SPyNet, CVPR 2017"),
        ("pwcnet", pwcnet.PWCNet, pwcnet.PWCNET, "pyramid, warping, cost volume", "Sun et al., PWC-Net, CVPR 2018"),
        ("pwcnet-old", pwcnet.PWCNet, pwcnet.PWCNET_OLD, "PWC-Net with the published count", "Sun et al., PWC-Net, CVPR 2018"),
        ("raft", raft.RAFT, raft.RAFT_LARGE, "all-pairs correlation, one flow updated many times", third),
        ("raft-small", raft.RAFT, raft.RAFT_SMALL, "RAFT with a fifth of the parameters", third),
        ("gmflow", gmflow.GMFlow, gmflow.GMFLOW, "transformer features, one global matching", fourth),
        ("gmflow-refine", gmflow.GMFlow, gmflow.GMFLOW_REFINE, "GMFlow with a second, local matching", fourth),
        ("flowformer", flowformer.FlowFormer, None, "cost volume read by transformers", "Huang et al., FlowFormer, ECCV 2022"),
        ("raft-stereo", raft_stereo.RAFTStereo, raft_stereo.RAFT_STEREO, "RAFT along the rows of a rectified pair", fifth),
        ("raft-stereo-realtime", raft_stereo.RAFTStereo, raft_stereo.RAFT_STEREO_REALTIME, "RAFT-Stereo at 1/8 size", fifth),
    )
    for name, network, config, summary, paper in lineage:
        register(name, partial(_build, name, network, config), summary, paper)


def _build(name: str, network: Callable[..., FlowNetwork], config: DataclassInstance | None, /, **options: object) -> FlowNetwork:
    """`network()` or `network(config)`, with some fields of its table replaced."""
    known = [field.name for field in dataclasses.fields(config)] if config else []
    for key, value in options.items():
        if key not in known:
            raise InputError(f"{name} has no option '{key}'; it has {', '.join(known) or 'none'}.")
        if type(value) is not type(getattr(config, key)):
            raise InputError(f"Option '{key}' of {name} must be like {getattr(config, key)!r}, got {value!r}.")
    return network(dataclasses.replace(config, **options)) if config else network()


_register_liteflownet_family()
_register_lineage()
