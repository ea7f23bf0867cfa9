"""Does learning the operators of K unrolled Horn-Schunck iterations beat tuning its one number by hand, at equal iterations?

    python benchmarks/unrolled.py --minutes 3 [--middlebury ROOT]

Both methods run the same coarse-to-fine driver, pyramid, warps and K, without a median filter in between. The hand-tuned
one takes the best alpha of a row, chosen on procedural pairs; learning starts from it, on such pairs, and both are tested on
others; with Middlebury in its own layout below ROOT, on that too. End-point errors [px], per_image.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from featherflow.classical.pyramid import Pyramid, coarse_to_fine
from featherflow.classical.solvers import HornSchunck
from featherflow.classical.unrolled import GREY, UnrolledConfig, UnrolledHornSchunck
from featherflow.data import SceneConfig, TextureBank, find_pairs, render_pairs
from featherflow.flow import FlowMetrics
from featherflow.frames import as_batch

SCENES = SceneConfig(height=64, width=96, effects=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--iterations", type=int, default=8, help="K")
    parser.add_argument("--middlebury", help="folder with other-data/ and other-gt-flow/")
    arguments = parser.parse_args()
    config = UnrolledConfig(arguments.iterations, pyramid=Pyramid(factor=0.5, warps=3, median=1))
    textures = TextureBank.procedural(48, 256, torch.Generator().manual_seed(1))
    training = torch.Generator().manual_seed(2)
    tests = render_pairs(48, SCENES, textures, torch.Generator().manual_seed(3), backward=False)

    tuning = render_pairs(24, SCENES, textures, torch.Generator().manual_seed(2), backward=False)
    by_hand = {alpha: error(hand_tuned(alpha, config), tuning) for alpha in (4.0, 8.0, 16.0, 24.0, 32.0)}
    alpha = min(by_hand, key=by_hand.get)
    print("alpha by hand, EPE on training pairs:", ", ".join(f"{a}: {e:.3f}" for a, e in by_hand.items()))

    # Learning starts where tuning by hand has ended.
    network = UnrolledHornSchunck(replace(config, alpha=alpha))
    print(f"test, before learning: {error(network, tests):.4f}, by hand: {error(hand_tuned(alpha, config), tests):.4f}")
    steps = train(network.loosen(), textures, training, arguments.minutes)
    print(f"trained {steps} steps of 4 pairs, {sum(p.numel() for p in network.parameters())} parameters")
    print(
        "omega:",
        [round(omega, 3) for omega in network.steps.tolist()],
        "rho:",
        round(network.robustness.item(), 4),
        "alpha:",
        round(network.log_alpha_squared.div(2).exp().item(), 2),
    )

    rows = {f"horn-schunck, alpha = {alpha} by hand": hand_tuned(alpha, config), "unrolled, learned": network}
    print(f"\n| EPE [px], per_image, K = {config.iterations} | procedural test (48) | middlebury |\n| --- | ---: | ---: |")
    for name, method in rows.items():
        real = f"{middlebury_error(method, arguments.middlebury):.3f}" if arguments.middlebury else "-"
        print(f"| {name} | {error(method, tests):.3f} | {real} |")


def hand_tuned(alpha: float, config: UnrolledConfig):
    step, weights = HornSchunck(alpha=alpha, iterations=config.iterations), torch.tensor(GREY).view(1, 3, 1, 1)
    return lambda first, second: coarse_to_fine(
        *((frame * weights).sum(dim=1, keepdim=True) * 255 for frame in (first, second)), step, config.pyramid
    )


def train(network: UnrolledHornSchunck, textures: TextureBank, generator: torch.Generator, minutes: float) -> int:
    rates = {"features": 0.01, "guides": 0.1, "derivative": 0.002, "log_alpha_squared": 0.03, "robustness": 0.005}
    groups = [{"params": [p], "lr": rates.get(name, 0.01)} for name, p in network.named_parameters()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    base, end, started, steps = [group["lr"] for group in groups], 60 * minutes, time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < end:
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = rate * (1 - passed / end)
        pairs = render_pairs(4, SCENES, textures, generator, backward=False)
        errors = (network(pairs.frame1, pairs.frame2) - pairs.flow).norm(dim=1)
        loss = errors.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps += 1
        if steps % 25 == 0:
            print(f"  step {steps}, {passed:.0f} s: loss {loss.item():.3f}, EPE {errors.mean().item():.3f}", flush=True)
    return steps


def error(method, pairs) -> float:
    metrics = FlowMetrics()
    with torch.no_grad():
        for index in range(len(pairs.flow)):
            flow = method(pairs.frame1[index : index + 1], pairs.frame2[index : index + 1])
            metrics.update(flow, pairs.flow[index])
    return metrics.result().per_image.epe


def middlebury_error(method, root: str) -> float:
    metrics = FlowMetrics()
    with torch.no_grad():
        for pair in find_pairs("middlebury", root):
            example = pair.read()
            metrics.update(method(as_batch(example.frame1), as_batch(example.frame2)), example.flow, example.valid)
    return metrics.result().per_image.epe


if __name__ == "__main__":
    main()
