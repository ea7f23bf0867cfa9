"""Begin LiteFlowNet with what LiteFlowNet2 knows: M and S with three convolutions that answer as those with five do.

    python benchmarks/shorten.py --textures textures.pt -o liteflownet-begun.safetensors
    featherflow train modern/liteflownet --run runs/mine --start liteflownet-begun.safetensors ...

Both networks have the same features, the same R, the same costs, and in M and S a first convolution, a last one and a layer for the
flow of the same shapes. Those are taken. The middle one of LiteFlowNet, in place of three, is fitted by least squares: from the
hidden features after the first convolution to those before the last, over procedural pairs. Level 2, which LiteFlowNet2 does not
have, begins as a new level does. Printed: the share of the variance that each fit explains, and EPE on real pairs if wanted.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import featherflow
from featherflow import networks
from featherflow.data import SceneConfig, TextureBank
from featherflow.data.streams import RenderedPairs
from featherflow.networks import liteflownet
from featherflow.training import RECIPES
from featherflow.training.initialization import carry_over, initialize
from featherflow.training.validation import Validator
from featherflow.weights.store import save_weights

LEVELS = (6, 5, 4, 3)
RIDGE = 1e-4  # of the mean variance of an input


@dataclass
class Fit:
    """Sums of a linear least-squares problem, in float64."""

    inputs: Tensor | float = 0.0  # X'X
    mixed: Tensor | float = 0.0  # X'Y
    targets: Tensor | float = 0.0  # sum of squares of Y, and sum of Y
    count: int = 0

    def add(self, hidden: Tensor, wanted: Tensor) -> None:
        """Hidden features `(B, C, H, W)` and what a 3x3 convolution of them should give `(B, D, H, W)`."""
        x = F.unfold(hidden, 3, padding=1).transpose(0, 1).flatten(1)
        x = torch.cat((x, torch.ones_like(x[:1])))
        y = wanted.transpose(0, 1).flatten(1)
        self.inputs = self.inputs + (x @ x.T).double()
        self.mixed = self.mixed + (x @ y.T).double()
        self.targets = self.targets + torch.stack((y.square().sum(1), y.sum(1))).double()
        self.count += y.shape[1]

    def solve(self, channels: int) -> tuple[Tensor, Tensor, float]:
        """Weight `(D, C, 3, 3)`, bias `(D,)`, and the share of the variance that they explain."""
        damping = RIDGE * self.inputs.diagonal()[:-1].mean() * torch.eye(len(self.inputs), dtype=torch.float64)
        damping[-1, -1] = 0.0
        solution = torch.linalg.solve(self.inputs + damping, self.mixed)
        squares, sums = self.targets
        left = squares - 2 * (solution * self.mixed).sum(0) + (solution * (self.inputs @ solution)).sum(0)
        explained = 1 - (left.sum() / (squares - sums.square() / self.count).sum()).item()
        return solution[:-1].T.reshape(-1, channels, 3, 3).float(), solution[-1].float(), explained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=32, help="procedural pairs of 384x256 px to fit on")
    parser.add_argument("--textures", type=Path, required=True, help="packed texture file")
    parser.add_argument("--validate", type=Path, help="folder of real pairs")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()

    long = featherflow.load("liteflownet2")
    recipe = RECIPES["modern/liteflownet"]
    short = networks.build(recipe.network, **recipe.options)
    generator = torch.Generator().manual_seed(0)
    initialize(short, generator)

    kept = {}
    for name, value in long.state_dict().items():
        if not name.startswith("nete.") or any(part in name for part in ("regularization", "convs.0.", "flow.", "upcost")):
            kept[name] = value
        elif "convs.4." in name:
            kept[name.replace("convs.4.", "convs.2.")] = value
    for name, fit in fitted(long, options).items():
        weight, bias, explained = fit.solve(channels=128)
        kept |= {f"{name}.convs.1.weight": weight, f"{name}.convs.1.bias": bias}
        print(f"{name:24} {explained:.3f} of the variance", flush=True)
    carry_over(short, kept, generator)

    info = replace(long.weights_info, architecture=recipe.network, samples_seen=0, scores={}, source="benchmarks/shorten.py")
    save_weights(options.output, short.state_dict(), info)
    if options.validate:
        short.weights_info = info
        print(Validator([options.validate], "cpu")(short))


def fitted(long: liteflownet.LiteFlowNet, options: argparse.Namespace) -> dict[str, Fit]:
    """A fit for M and S of each level, over what `long` sees in procedural pairs."""
    units = {
        f"nete.level{level}.{unit}": getattr(long.nete[f"level{level}"], unit)
        for level in LEVELS
        for unit in ("matching", "subpixel")
    }
    fits = {name: Fit() for name in units}

    def watching(fit: Fit):
        def watch(layers: liteflownet.Convolutions, inputs: tuple[Tensor], _: Tensor) -> None:
            after_first = layers[:1](*inputs)
            fit.add(after_first, layers[3](layers[1:3](after_first)))

        return watch

    scene = SceneConfig(height=256, width=384, small=(0.34, 1.2), medium=(0.28, 7.0), large=38.0, cap=0.45)
    source = RenderedPairs(scene, TextureBank.load(options.textures), seed=1)
    watched = [unit.convs.register_forward_hook(watching(fits[name])) for name, unit in units.items()]
    try:
        with torch.inference_mode():
            for step in range(options.pairs // 2):
                batch = source.part(step, 0, 1, 2, 0)
                long(batch.frame1, batch.frame2)
    finally:
        for hook in watched:
            hook.remove()
    return fits


if __name__ == "__main__":
    main()
