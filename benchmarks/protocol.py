"""The published protocol in small: does the error fall with each stage, and do the units of Table 6 rank as in the paper?

    python benchmarks/protocol.py --units M MS WM WMS ALL

Stages, weight copying, learning rates relative to each other, loss and optimiser are those of `paper/ablation-*`; smaller are the
schedule (by --shrink), the networks (half of every width, unless --full) and the crops. Where a thousandth of the schedule would
learn nothing, three things of the modern recipes help, in all rows alike: features are normalised before they are matched, new
units start by passing the flow on, and gradients are clipped. Pairs are rendered, not FlyingChairs. EPE [px] on 64 held-out
rendered pairs of the same kind at the end of each stage, aggregator `per_image`; one seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

import torch

from featherflow.data import SceneConfig, TextureBank, render_pairs
from featherflow.networks.liteflownet import LITEFLOWNET, LiteFlowNetConfig
from featherflow.training import Recipe, get_recipe
from featherflow.training.loop import Trainer
from featherflow.training.paper import ABLATIONS

#: Published EPE on FlyingChairs.
TABLE_6 = {"M": 3.75, "MS": 2.70, "WM": 2.98, "WSR": 1.63, "WMS": 1.82, "ALL": 1.57}

#: Simple scenes whose motions small crops can show: a plane that shifts, at most two things before it.
SCENES = {
    "particles": 0.0,
    "camera": 0.0,
    "expansion": 0.0,
    "static_camera": 0.0,
    "layers": (0, 2),
    "small": (0.0, 1.2),
    "medium": (1.0, 20.0),
    "cap": 0.25,
    "deformable": 0.0,
    "effects": None,
}

_WIDTHS = ("features", "matching", "subpixel", "regularization", "expanded_features", "projected_features")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shrink", type=float, default=800.0)
    parser.add_argument("--units", nargs="+", default=["ALL"], choices=list(TABLE_6))
    parser.add_argument("--size", nargs=2, type=int, default=(128, 192), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate-factor", type=float, default=10.0, help="a short run needs larger steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="published widths")
    parser.add_argument("--runs", type=Path, help="folder to keep the runs in; they go on where they were")
    arguments = parser.parse_args()

    scene = SceneConfig(height=arguments.size[0], width=arguments.size[1], **SCENES)
    textures = TextureBank.procedural(120, 256, torch.Generator().manual_seed(1), particles=10)
    held_out = render_pairs(64, scene, textures, torch.Generator().manual_seed(10**9), backward=False)
    print(f"standing still: {held_out.flow.norm(dim=1).mean():.2f} px")

    table = {}
    with tempfile.TemporaryDirectory() as temporary:
        for units in arguments.units:
            recipe = in_small(units, arguments)
            run = Trainer(recipe, (arguments.runs or Path(temporary)) / units, textures, scene)
            started = time.monotonic()
            run.run(validate=lambda network: {"EPE": error(network, held_out)}, validate_every=1e9)
            lines = map(json.loads, (run.folder / "log.jsonl").read_text().splitlines())
            table[units] = {line["stage"]: line["validation"]["EPE"] for line in lines if "validation" in line}
            print(f"{units}: {run.samples:,} pairs in {(time.monotonic() - started) / 60:.1f} min", flush=True)

    print("\n| units | EPE [px] after each stage | last | published, FlyingChairs |\n| --- | --- | ---: | ---: |")
    for units, stages in table.items():
        each = ", ".join(f"{name} {value:.2f}" for name, value in stages.items())
        print(f"| {units} | {each} | {list(stages.values())[-1]:.2f} | {TABLE_6[units]:.2f} |")


def in_small(units: str, arguments: argparse.Namespace) -> Recipe:
    """The recipe of an ablation with smaller numbers."""
    recipe = get_recipe(f"paper/ablation-{units.lower()}")
    config = ABLATIONS[units] if arguments.full else halved(ABLATIONS[units])
    config = replace(config, normalized_matching=True)
    options = {f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != getattr(LITEFLOWNET, f.name)}
    return replace(
        recipe,
        options=options,
        shrink=arguments.shrink,
        batch=arguments.batch,
        height=arguments.size[0],
        width=arguments.size[1],
        rate_factor=arguments.rate_factor,
        seed=arguments.seed,
        chunks=min(2, arguments.batch),
        precision="auto",
        initialization="identity",
        clip_norm=1.0,
    )


def halved(config: LiteFlowNetConfig) -> LiteFlowNetConfig:
    """Half of every width."""

    def half(value: object) -> object:
        return tuple(half(entry) for entry in value) if isinstance(value, tuple) else value // 2

    return replace(config, **{name: half(getattr(config, name)) for name in _WIDTHS})


@torch.inference_mode()
def error(network: torch.nn.Module, pairs) -> float:
    """EPE [px] over valid pixels, aggregator `per_image`."""
    flow = torch.cat([network(a, b) for a, b in zip(pairs.frame1.split(8), pairs.frame2.split(8), strict=True)])
    distance = (flow - pairs.flow).norm(dim=1, keepdim=True) * pairs.valid
    return float((distance.sum(dim=(1, 2, 3)) / pairs.valid.sum(dim=(1, 2, 3)).clamp_min(1)).mean())


if __name__ == "__main__":
    main()
