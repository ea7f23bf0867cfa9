"""Names of the LiteFlowNet family's layers in the official release, and how they map to ours.

A layer's parameters are `<layer>.weight` and, except for the fixed bilinear kernels, `<layer>.bias`.
"""

from __future__ import annotations

from ..networks.liteflownet import COARSEST_LEVEL, LiteFlowNetConfig

#: Layers of the official files that hold the mean colour (third blob; B, G, R) of the first and second frame.
MEAN_LAYERS = {"mean1": "img0s_aug", "mean2": "img1s_aug"}


def official_layers(config: LiteFlowNetConfig) -> dict[str, str]:
    """Official layer name of each layer of ours: `{"nete.level6.matching.convs.0": "conv1_D1_L6", ...}`, in data-flow order."""
    layers = {}
    for index, widths in enumerate(config.features):
        for position in range(len(widths)):
            suffix = f"_{position + 1}" if len(widths) > 1 else ""
            layers[f"netc.levels.{index}.{position}"] = f"conv{index + 1}{suffix}"
    for level in config.levels:
        layers |= _level_layers(config, level)
    if config.pseudo_level:
        layers |= {
            "pseudo.upflow": "scaled_flow_R_L3to2",
            "pseudo.upsubpixel": f"conv{len(config.subpixel)}_D2_L2",
            "pseudo.flow": "scaled_flow_D2_res_L2",
            "pseudo.upregularization": f"conv{len(config.regularization)}_R_L2",
            "pseudo.distance.0": "distH_R_L2",
            "pseudo.distance.1": "distW_R_L2",
        }
    return layers


def _level_layers(config: LiteFlowNetConfig, level: int) -> dict[str, str]:
    prefix = f"nete.level{level}"
    coarsest = level == COARSEST_LEVEL
    layers = {}
    if not coarsest:
        layers[f"{prefix}.upflow"] = f"scaled_flow_R_L{level + 1}to{level}"
    if level == 2:
        layers[f"{prefix}.expansion"] = "F0_F1_64_L2"
    if config.matching:
        if config.at(config.search_stride, level) > 1:
            layers[f"{prefix}.matching.upcost"] = f"corr_L{level}"
        layers |= _trunk_layers(f"{prefix}.matching", len(config.matching), f"D1_L{level}")
        layers[f"{prefix}.matching.flow"] = "scaled_flow_D1_L6" if coarsest else f"scaled_flow_D1_res_L{level}"
    if config.subpixel:
        layers |= _trunk_layers(f"{prefix}.subpixel", len(config.subpixel), f"D2_L{level}")
        layers[f"{prefix}.subpixel.flow"] = f"scaled_flow_D2_res_L{level}"
    if config.regularization:
        unit = f"{prefix}.regularization"
        if level <= 4:
            layers[f"{unit}.projection"] = f"F0_128_L{level}"
        layers |= _trunk_layers(unit, len(config.regularization), f"R_L{level}")
        if level <= 4 and config.separable_distance:
            layers |= {f"{unit}.distance.0": f"distH_R_L{level}", f"{unit}.distance.1": f"distW_R_L{level}"}
        else:
            layers[f"{unit}.distance.0"] = f"dist_R_L{level}"
    return layers


def _trunk_layers(unit: str, count: int, suffix: str) -> dict[str, str]:
    return {f"{unit}.convs.{index}": f"conv{index + 1}_{suffix}" for index in range(count)}
