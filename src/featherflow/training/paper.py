"""The published training of LiteFlowNet, LiteFlowNet2 and LiteFlowNetX, number by number.

    paper/liteflownet            FlyingChairs, level by level          -> "LiteFlowNet-pre"
    paper/liteflownet-things     then FlyingThings3D, all at once      -> "LiteFlowNet"
    paper/liteflownet-ft-sintel  then Sintel, or
    paper/liteflownet-ft-kitti   KITTI 2012 and 2015                   -> "LiteFlowNet-ft"

and the same for the other two. Lines marked "ours" stand where papers and release are silent.

Sources: Hui, Tang, Loy: LiteFlowNet, CVPR 2018; A Lightweight Optical Flow CNN, TPAMI 2020 (LiteFlowNet2, LiteFlowNetX); the
training template and the solver template of LiteFlowNet's release.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace

from ..data import PaperAugmentation
from ..networks.liteflownet import (
    LITEFLOWNET,
    LITEFLOWNET2,
    LITEFLOWNETX,
    LiteFlowNetConfig,
)
from .losses import PaperLoss
from .recipe import Recipe, Stage

#: Learning rates of levels 6 to 2.
_LITEFLOWNET_RATES = (1e-4, 1e-4, 1e-4, 5e-5, 4e-5)
_LITEFLOWNET2_RATES = (1e-4, 1e-4, 1e-4, 6e-5)

#: LiteFlowNet2's loss of the flow at full size: level 3's weight over the pixels that it has more.
_FULL_WEIGHT = 6.25e-4

#: Fine-tuning: no noise, mirrored frames; the share of mirrored ones is ours.
_SINTEL_AUGMENTATION = PaperAugmentation(mirror=0.5, noise=(0.0, 0.0))
#: "Reduced to fit the driving scene", without figures. Ours: the ranges of an independent re-implementation (mmflow), which draws
#: the differences between the frames uniformly; here they are normal, of the same deviation.
_KITTI_AUGMENTATION = replace(
    _SINTEL_AUGMENTATION,
    translation=0.02,
    rotation=math.radians(0.5),
    zoom=(0.0, 0.02),
    squeeze=0.0,
    relative_translation=0.0025 / math.sqrt(3),
    relative_rotation=math.radians(0.5 / math.sqrt(3)),
    relative_zoom=0.01 / math.sqrt(3),
)


def level_stages(config: LiteFlowNetConfig, rates: tuple[float, ...]) -> tuple[Stage, ...]:
    """Level by level from the coarsest: NetC with M and S of level 6, then its R, then one more level at a time."""
    units = "".join(letter for letter, there in (("M", config.matching), ("S", config.subpixel)) if there)
    stages = [Stage(f"{units}6", 300_000, rates[0], {"finest_level": 6, "regularization": ()})]
    if config.regularization:
        stages.append(Stage("R6", 300_000, rates[0], {"finest_level": 6}))
        units += "R"
    for level, rate in zip(config.levels[1:], rates[1:], strict=True):
        # The last stage is longer; that of LiteFlowNet2 is not stated and taken to be too.
        stages.append(Stage(f"{units}{level}", 300_000 if level == config.finest_level else 200_000, rate, {"finest_level": level}))
    return tuple(stages)


def chairs(name: str, network: str, config: LiteFlowNetConfig, rates: tuple[float, ...], full_weight: float = 0.0) -> Recipe:
    """From nothing on FlyingChairs; `config` is the network's own or a change of it."""
    own = _OWN_CONFIGS[network]
    changed = {f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != getattr(own, f.name)}
    return Recipe(
        name,
        network,
        changed,
        level_stages(config, rates),
        data=(("flyingchairs",),),
        batch=8,
        height=320,
        width=448,
        loss=PaperLoss(full_weight=full_weight),
        augmentation=PaperAugmentation(),
        initialization="msra",
        # Distances are what a convolution gives, without a constant.
        frozen=("*.distance.*.bias",),
        shared_mean=False,
        optimizer="adam",
        weight_decay=4e-4,
        clip_norm=0.0,
        ema=0.0,
        warmup=0.0,
        cooldown=0.0,
        halve_at=(120_000, 160_000, 200_000, 240_000),
        occluded_from=0.0,
        occluded_until=0.0,
        precision="float32",
    )


def things(before: Recipe) -> Recipe:
    """On from FlyingChairs: the whole network on FlyingThings3D."""
    return replace(
        before,
        name=f"{before.name}-things",
        begins_with=before.name,
        stages=(Stage("Things3D", 500_000, 3e-6),),
        data=(("flyingthings3d",),),
        batch=4,
        height=384,
        width=768,
        halve_at=(200_000, 300_000, 400_000),
    )


def fine_tuning(
    before: Recipe,
    name: str,
    data: tuple[tuple[str, ...], ...],
    size: tuple[int, int],
    augmentation: PaperAugmentation,
    network: str | None = None,
) -> Recipe:
    """On from FlyingThings3D to a benchmark."""
    loss = before.loss
    assert isinstance(loss, PaperLoss)  # as in all recipes of this file
    return replace(
        before,
        name=name,
        network=network or before.network,
        begins_with=before.name,
        data=data,
        height=size[0],
        width=size[1],
        # "Similar to Things3D" but longer, then once more with a reduced rate for fewer iterations: both figures of the second
        # stage are ours.
        stages=(Stage("fine-tuning", 600_000, 5e-5), Stage("again", 200_000, 1e-5)),
        halve_at=(200_000, 300_000, 400_000, 500_000),
        loss=replace(loss, exponent=0.4),
        augmentation=augmentation,
    )


#: Table 6: feature warping (W), descriptor matching (M), sub-pixel refinement (S), regularization (R) switched off in turn.
#: Without M, S takes over its depth.
ABLATIONS = {
    "M": replace(LITEFLOWNET, warping=False, subpixel=(), regularization=()),
    "MS": replace(LITEFLOWNET, warping=False, regularization=()),
    "WM": replace(LITEFLOWNET, subpixel=(), regularization=()),
    "WSR": replace(LITEFLOWNET, matching=(), subpixel=(128, 128, 128, 64, 64, 32, 32)),
    "WMS": replace(LITEFLOWNET, regularization=()),
    "ALL": LITEFLOWNET,
}

#: Table 7: search range and stride of LiteFlowNet2's cost volumes; the middle one is the final design.
COST_VOLUMES = {
    "3/1": replace(LITEFLOWNET2, search_stride=(1, 1, 1, 1, 1)),
    "3(6)/1(2)": LITEFLOWNET2,
    "4/1": replace(LITEFLOWNET2, search_radius=(4, 4, 4, 4, 4), search_stride=(1, 1, 1, 1, 1)),
}

#: Section 6.5: image features concatenated to the cost volume, as FlowNetC does it.
LITEFLOWNET2_REDIRECTED = replace(LITEFLOWNET2, redirected_features=32)

_OWN_CONFIGS = {"liteflownet": LITEFLOWNET, "liteflownet2": LITEFLOWNET2, "liteflownetx": LITEFLOWNETX}

_SINTEL, _KITTI = ("sintel",), ("kitti2012", "kitti2015")

LITEFLOWNET_CHAIRS = chairs("paper/liteflownet", "liteflownet", LITEFLOWNET, _LITEFLOWNET_RATES)
LITEFLOWNET_THINGS = things(LITEFLOWNET_CHAIRS)
LITEFLOWNET2_CHAIRS = chairs("paper/liteflownet2", "liteflownet2", LITEFLOWNET2, _LITEFLOWNET2_RATES, _FULL_WEIGHT)
LITEFLOWNET2_THINGS = things(LITEFLOWNET2_CHAIRS)
#: Only its data are published; the rest is LiteFlowNet's.
LITEFLOWNETX_CHAIRS = chairs("paper/liteflownetx", "liteflownetx", LITEFLOWNETX, _LITEFLOWNET_RATES)

PAPER: tuple[Recipe, ...] = (
    LITEFLOWNET_CHAIRS,
    LITEFLOWNET_THINGS,
    fine_tuning(LITEFLOWNET_THINGS, "paper/liteflownet-ft-sintel", (_SINTEL,), (384, 768), _SINTEL_AUGMENTATION),
    fine_tuning(LITEFLOWNET_THINGS, "paper/liteflownet-ft-kitti", (_KITTI,), (320, 896), _KITTI_AUGMENTATION),
    LITEFLOWNET2_CHAIRS,
    LITEFLOWNET2_THINGS,
    # Each batch has two pairs of each set. KITTI's frames are 370 to 376 px high: what a crop has below them is not counted.
    fine_tuning(LITEFLOWNET2_THINGS, "paper/liteflownet2-ft-sintel", (_SINTEL, _KITTI), (384, 768), _SINTEL_AUGMENTATION),
    # The pseudo level begins here, with level 2's loss weight: ours.
    fine_tuning(
        LITEFLOWNET2_THINGS, "paper/liteflownet2-ft-kitti", (_KITTI,), (320, 896), _KITTI_AUGMENTATION, "liteflownet2-kitti"
    ),
    LITEFLOWNETX_CHAIRS,
    things(LITEFLOWNETX_CHAIRS),
    *(chairs(f"paper/ablation-{units.lower()}", "liteflownet", config, _LITEFLOWNET_RATES) for units, config in ABLATIONS.items()),
    *(
        chairs(f"paper/costs-{name}", "liteflownet2", config, _LITEFLOWNET2_RATES, _FULL_WEIGHT)
        for name, config in zip(("3", "3-6", "4"), COST_VOLUMES.values(), strict=True)
    ),
    chairs("paper/redirected", "liteflownet2", LITEFLOWNET2_REDIRECTED, _LITEFLOWNET2_RATES, _FULL_WEIGHT),
)
