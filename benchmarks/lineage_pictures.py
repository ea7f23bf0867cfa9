"""The pictures of docs/lineage.md: what matching sees, what each level of LiteFlowNet adds, what RAFT repeats.

All come from the bundled pair and the default network.

    python benchmarks/lineage_pictures.py docs/images            # needs matplotlib; a few minutes, most of them for RAFT
    python benchmarks/lineage_pictures.py --only surfaces levels # those that change with the weights; seconds

RAFT has no weights of ours. A small one first learns a part of the bundled pair, frame 2 moved about at random: its picture
shows how the steps work on frames it knows, and says nothing about frames it does not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F

import featherflow
from featherflow import demo, networks
from featherflow.flow import flow_to_rgb, read_flow_with_valid
from featherflow.frames import as_batch
from featherflow.images import read_image
from featherflow.networks.liteflownet import FLOW_SCALE, normalize_features
from featherflow.training.initialization import initialize
from featherflow.training.losses import SequenceLoss

matplotlib.use("Agg")
import matplotlib.pyplot as plt

REACH = 12  # px to each side of the truth that a match surface shows
WINDOW = 9  # px, side of the patches that brightness is compared over
CROP = 128  # px, side of what RAFT learns
STEPS, ITERATIONS = 800, 8
SHIFT = 12  # px, the most that frame 2 is moved about
SHOWN_SHIFT = (10, -8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=("surfaces", "levels", "raft"), default=("surfaces", "levels", "raft"))
    arguments = parser.parse_args()
    folder, wanted = arguments.folder, arguments.only
    folder.mkdir(parents=True, exist_ok=True)
    frame1, frame2 = read_image(demo.FRAME1), read_image(demo.FRAME2)
    truth, _ = read_flow_with_valid(demo.TRUTH)
    if "surfaces" in wanted:
        draw_match_surfaces(frame1, frame2, truth, folder / "match-surfaces.png")
    if "levels" in wanted:
        draw_levels(frame1, frame2, truth, folder / "liteflownet-levels.png")
    if "raft" in wanted:
        draw_raft(frame1, frame2, truth, folder / "raft-iterations.png")


def draw_match_surfaces(frame1: np.ndarray, frame2: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """A corner, an edge and a flat patch: brightness differences, and the network's descriptors, around the true match."""
    first, second = as_batch(frame1, "frame1"), as_batch(frame2, "frame2")
    network = featherflow.load("liteflownet2-slim")
    with torch.inference_mode():
        features = [normalize_features(network.encode(frame, network.mean1).features[3]) for frame in (first, second)]
    features = [F.normalize(F.interpolate(f, size=first.shape[-2:], mode="bilinear"), dim=1) for f in features]
    rows = points_of_interest(first, truth)
    figure, axes = plt.subplots(3, 3, figsize=(7.5, 7.6), layout="constrained")
    span = (-REACH - 0.5, REACH + 0.5, REACH + 0.5, -REACH - 0.5)
    for line, (name, (x, y)) in zip(axes, rows.items(), strict=True):
        u, v = (round(float(part)) for part in truth[y, x])
        patch = slice(y - REACH, y + REACH + 1), slice(x - REACH, x + REACH + 1)
        line[0].imshow(frame1[patch], extent=span)
        line[0].set_ylabel(name)
        line[1].imshow(-brightness_surface(first, second, x, y, u, v), extent=span, cmap="magma")
        line[2].imshow(descriptor_surface(*features, x, y, u, v), extent=span, cmap="magma")
        for axis in line[1:]:
            axis.plot(truth[y, x, 0] - u, truth[y, x, 1] - v, "+", color="cyan", markersize=10)
    titles = ("frame 1", f"likeness of {WINDOW}x{WINDOW} px", "likeness of NetC features")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=90)


def points_of_interest(frame: torch.Tensor, truth: np.ndarray) -> dict[str, tuple[int, int]]:
    """(x, y) of the clearest corner, edge and flat patch, by the structure tensor; away from the rim and motion boundaries."""
    grey = frame.mean(dim=1, keepdim=True)
    dx, dy = (F.pad(d, p) for d, p in ((grey.diff(dim=3), (0, 1)), (grey.diff(dim=2), (0, 0, 0, 1))))
    xx, xy, yy = (F.avg_pool2d(product, WINDOW, 1, WINDOW // 2)[0, 0] for product in (dx * dx, dx * dy, dy * dy))
    mean, spread = (xx + yy) / 2, (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    large, small = (mean + spread).numpy(), (mean - spread).clamp_min(0).numpy()
    bend = np.abs(np.diff(truth, axis=0, append=truth[-1:])).sum(-1) + np.abs(np.diff(truth, axis=1, append=truth[:, -1:])).sum(-1)
    smooth = -F.max_pool2d(torch.from_numpy(bend)[None, None], 2 * REACH + 1, 1, REACH)[0, 0].numpy() > -0.3
    margin = 3 * REACH
    smooth[:margin] = smooth[-margin:] = smooth[:, :margin] = smooth[:, -margin:] = False
    scores = {"corner": small, "edge": (large - small) ** 2 / (large + 1e-6) - 20 * small, "flat": -large}
    found = {}
    for name, score in scores.items():
        y, x = np.unravel_index(np.where(smooth, score, -np.inf).argmax(), score.shape)
        found[name] = (int(x), int(y))
    return found


def brightness_surface(first, second, x, y, u, v) -> np.ndarray:
    """Mean squared difference of the patch at (x, y) to those around (x + u, y + v)."""
    half = WINDOW // 2
    patch = first[0, :, y - half : y + half + 1, x - half : x + half + 1]
    reach = REACH + half
    area = F.pad(second, (reach,) * 4, mode="replicate")[0, :, y + v : y + v + 2 * reach + 1, x + u : x + u + 2 * reach + 1]
    windows = area.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)
    return (windows - patch[:, None, None]).square().mean(dim=(0, 3, 4)).numpy()


def descriptor_surface(features1, features2, x, y, u, v) -> np.ndarray:
    """Cosine of the descriptor at (x, y) with those around (x + u, y + v)."""
    area = F.pad(features2, (REACH,) * 4, mode="replicate")[0, :, y + v : y + v + 2 * REACH + 1, x + u : x + u + 2 * REACH + 1]
    return torch.einsum("c,chw->hw", features1[0, :, y, x], area).numpy()


def draw_levels(frame1: np.ndarray, frame2: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """Flow of each level of the default network after matching, sub-pixel refinement and regularization."""
    network = featherflow.load("liteflownet2-slim")
    with torch.inference_mode():
        pyramids = [network.encode(as_batch(frame, "frame"), network.mean1) for frame in (frame1, frame2)]
        estimates = network.flows(*pyramids)
    scale = float(np.linalg.norm(truth, axis=-1).max())
    figure, axes = plt.subplots(len(estimates), 3, figsize=(9, 2.35 * len(estimates)), layout="constrained")
    for line, estimate in zip(axes, estimates, strict=True):
        for axis, name, u in zip(line, ("M", "S", "R"), estimate.outputs, strict=True):
            flow = F.interpolate(u * FLOW_SCALE, size=truth.shape[:2], mode="nearest")[0].movedim(0, -1).numpy()
            smooth = F.interpolate(u * FLOW_SCALE, size=truth.shape[:2], mode="bilinear")[0].movedim(0, -1).numpy()
            error = np.linalg.norm(smooth - truth, axis=-1).mean()
            axis.imshow(flow_to_rgb(flow, scale))
            axis.set_title(f"level {estimate.level}, after {name}: EPE {error:.2f} px", fontsize=9)
    tidy(axes)
    figure.savefig(path, dpi=80)


def draw_raft(frame1: np.ndarray, frame2: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """The flow after each update of a small RAFT that knows the pair."""
    first, second = as_batch(frame1, "frame1"), as_batch(frame2, "frame2")
    label = torch.from_numpy(truth).movedim(-1, 0)[None]
    top, left = (truth.shape[0] - CROP) // 2, (truth.shape[1] - CROP) // 2

    def cut(x: int, y: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The middle of both frames, the second one cut (x, y) px off, and the flow between them."""
        rows, columns = slice(top, top + CROP), slice(left, left + CROP)
        moved = second[..., top + y : top + y + CROP, left + x : left + x + CROP]
        return first[..., rows, columns], moved, label[..., rows, columns] - label.new_tensor((x, y)).view(1, 2, 1, 1)

    draw = np.random.default_rng(0)
    network = networks.build("raft-small")
    initialize(network, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), 4e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-4, STEPS, pct_start=0.05)
    loss = SequenceLoss(iterations=ITERATIONS)
    for _ in range(STEPS):
        *pair, flow = cut(*draw.integers(-SHIFT, SHIFT, 2, endpoint=True))
        value, _ = loss(network, *pair, flow, torch.ones_like(flow[:, :1]))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    *pair, flow = cut(*SHOWN_SHIFT)
    with torch.inference_mode():
        flows = [iterate.flow[0].movedim(0, -1).numpy() for iterate in network.flows(*pair, ITERATIONS)]
    target = flow[0].movedim(0, -1).numpy()
    scale = float(np.linalg.norm(target, axis=-1).max())
    shown = {f"after {n} step{'s' * (n > 1)}": flows[n - 1] for n in (1, 2, 4, ITERATIONS)}
    figure, axes = plt.subplots(1, len(shown) + 1, figsize=(11, 2.6), layout="constrained")
    for axis, (name, flow) in zip(axes, {**shown, "truth": target}.items(), strict=True):
        axis.imshow(flow_to_rgb(flow, scale))
        error = np.linalg.norm(flow - target, axis=-1).mean()
        axis.set_title(name if name == "truth" else f"{name}: EPE {error:.2f} px", fontsize=9)
    tidy(axes)
    figure.savefig(path, dpi=80)


def tidy(axes: np.ndarray) -> None:
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])


if __name__ == "__main__":
    main()
