"""What tells good flow from bad? Candidates for a confidence, judged on real pairs; and the fit of the one that the product takes.

    python benchmarks/confidence.py --data PAIRS [--model liteflownet2-slim --model dis ...]
    python benchmarks/confidence.py --fit --photos PHOTOS [--scenes 35]

The first command prints, for each model and group of pairs, the AUSE of each candidate (`featherflow.evaluation.sparsification`):
0 for the oracle, which knows the errors. Aggregator `per_image`: the mean over pairs of each pair's own. Then how far the winner
is a probability: the expected calibration error, of ten bins, `per_image` and `pooled`, and the bins themselves.

Candidates: `disagreement`, of the flows there and back, over the tolerance, its mean over 7x7 px; `photometric`, the mean
difference in colour along the flow in 7x7 px; `likeness`, the correlation of such windows; `costs around the flow`, the smallest
of the mean differences 2 px beside the flow, over that of the flow; of a network of the LiteFlowNet family, from the finest
level's features: `network, cost`, the mean squared difference at the flow, and `network, peak`, the share of the flow's own and
its eight neighbours in a softmax over the 7x7 costs; `all cues`, those of `featherflow.flow.trust`, weighed. Flows that leave the
frame come last in the first four.

The second command makes the weights: it renders pairs, from photos that no network was trained on
(`featherflow.data.heldback`) and drawn textures, half of them planes in space, takes the flows of three models, and fits
proportional odds to the errors at 3000 pixels of each. A tenth as many pixels come from the same flows moved by 1.5 to 20 px,
there and back alike: without them, flows that agree with each other would be believed whatever the frames show. Offset and slope
of the score are then fitted once more without them, so that the probabilities hold for flows as they are. Every fifth scene is
left out of the fit and judged by it. It prints what goes into `featherflow.flow.trust.COEFFICIENTS`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import featherflow
from featherflow.data import SceneConfig, TextureBank, render_pairs
from featherflow.data.heldback import is_held_back
from featherflow.evaluation.samples import find_samples
from featherflow.evaluation.sparsification import ause, calibration
from featherflow.flow import trust
from featherflow.frames import as_batch
from featherflow.networks.liteflownet import LiteFlowNet, normalize_features
from featherflow.ops import correlate, downsample, warp

#: Errors over the tolerance, whose probabilities share one score; the product takes that of 1.
LEVELS = (0.1, 0.2, 0.4, 1.0, 3.0)
PIXELS = 3000
SEED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--photos", type=Path, nargs="+")
    parser.add_argument("--scenes", type=int, default=35)
    arguments = parser.parse_args()
    if arguments.fit:
        fit(arguments.photos, arguments.model or ["liteflownet2-slim", "liteflownetx", "dis"], arguments.scenes)
    for model in (arguments.model or ["liteflownet2-slim"]) if arguments.data else ():
        judge(arguments.data, model)


# ------------------------------------------------------------------------------------------------ on real pairs


@dataclass(frozen=True)
class Judged:
    """A pair: errors [px], whether each is right, the confidence, and the score of each candidate; `(N,)` each."""

    group: str
    errors: np.ndarray
    right: np.ndarray
    confidence: np.ndarray
    scores: dict[str, np.ndarray]


def judge(data: Path, model: str) -> None:
    estimator = featherflow.Estimator(model)
    pairs = []
    for sample in find_samples(data):
        frame1, frame2, truth, valid = sample.read()
        flow, backward = estimator.both(frame1, frame2)
        pairs.append(judged(sample.group, estimator, frame1, frame2, flow, backward, truth, valid))
    groups = list(dict.fromkeys(pair.group for pair in pairs))
    print(f"\n{model}: AUSE, per_image\n\n| ordered by | {' | '.join(groups)} | mean |\n| --- |" + " ---: |" * (len(groups) + 1))
    for name in pairs[0].scores:
        by_group = [np.mean([ause(pair.errors, pair.scores[name]) for pair in pairs if pair.group == group]) for group in groups]
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in by_group)} | {np.mean(by_group):.3f} |")
    print(f"\n{model}: confidence as a probability\n\n| group | pairs | right | said | error, per_image | error, pooled |")
    print("| --- |" + " ---: |" * 5)
    for group in (*groups, "all"):
        some = [pair for pair in pairs if group in (pair.group, "all")]
        right, said = (np.concatenate([getattr(pair, name) for pair in some]) for name in ("right", "confidence"))
        each = np.mean([calibration(pair.right, pair.confidence).error for pair in some])
        figures = right.mean(), said.mean(), each, calibration(right, said).error
        print(f"| {group} | {len(some)} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")
    bins = calibration(right, said)
    print("\n| " + " | ".join(["said", *(f"{x:.2f}" for x in bins.confidence)]) + " |\n| --- |" + " ---: |" * len(bins.pixels))
    print("| " + " | ".join(["right", *(f"{x:.2f}" for x in bins.correct)]) + " |")
    print("| " + " | ".join(["pixels", *(f"{x / sum(bins.pixels):.1%}" for x in bins.pixels)]) + " |", flush=True)


def judged(
    group: str,
    estimator: featherflow.Estimator,
    frame1: np.ndarray,
    frame2: np.ndarray,
    flow: np.ndarray,
    backward: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray,
) -> Judged:
    first, second, field, back = as_batch(frame1), as_batch(frame2), tensor(flow), tensor(backward)
    seen = {name: cue[0, 0].numpy()[valid] for name, cue in trust.cues(first, second, field, back).items()}
    errors = np.hypot(*np.moveaxis(flow - truth, -1, 0))[valid].astype(np.float64)
    confidence = trust.confidence(frame1, frame2, flow, backward)[valid]
    last = -1000 * seen["outside"]
    scores = {
        "oracle": -errors,
        "random": np.random.default_rng(0).random(len(errors)),
        "disagreement": last - seen["disagreement_around"],
        "photometric": last - seen["photometric"],
        "likeness": last + seen["likeness"],
        "costs around the flow": last + seen["peak"],
    }
    if isinstance(estimator._network, LiteFlowNet):
        for name, score in network_costs(estimator._network, first, second, field).items():
            scores[f"network, {name}"] = score[0, 0].numpy()[valid]
    scores["all cues"] = confidence
    right = errors <= np.maximum(trust.RIGHT_PIXELS, trust.RIGHT_FRACTION * np.hypot(*np.moveaxis(truth, -1, 0))[valid])
    return Judged(group, errors, right, confidence, scores)


@torch.no_grad()
def network_costs(network: LiteFlowNet, first: Tensor, second: Tensor, flow: Tensor) -> dict[str, Tensor]:
    """How small the finest level's cost is at the flow, and how peaked the costs are there, `(B, 1, H, W)` each; more is better."""
    height, width = first.shape[-2:]
    pad = (0, -width % 32, 0, -height % 32)
    first, second, flow = (F.pad(part, pad, mode="replicate") for part in (first, second, flow))
    pyramids = [network.encode(frame, mean, 0) for frame, mean in ((first, network.mean1), (second, network.mean2))]
    level = network.config.finest_level
    features1, features2 = (normalize_features(pyramid.features[level]) for pyramid in pyramids)
    factor = 2 ** (level - 1)
    features2 = warp(features2, downsample(flow, features1.shape[-2:]) / factor)
    # Of features of unit length; of the temperatures 0.02, 0.1 and 0.5, the first told errors best.
    cosines = correlate(F.normalize(features1, dim=1), F.normalize(features2, dim=1), 3) * features1.shape[1]
    shares = F.softmax(cosines / 0.02, dim=1).unflatten(1, (7, 7))[:, 2:5, 2:5]
    found = {"cost": -(features1 - features2).square().mean(dim=1, keepdim=True), "peak": shares.sum(dim=(1, 2))[:, None]}
    return {
        name: F.interpolate(score, scale_factor=factor, mode="bilinear", align_corners=False)[..., :height, :width]
        for name, score in found.items()
    }


def tensor(flow: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(flow, -1, 0)))[None]


# ------------------------------------------------------------------------------------------------ the fit


def fit(photos: Sequence[Path], models: Sequence[str], scenes: int) -> None:
    names = list(trust.COEFFICIENTS)
    rows, levels, errors, held_out = [], [], [], []
    false: list[tuple[Tensor, Tensor]] = []
    for scene, is_false, seen, relative, error in rendered(photos, models, scenes):
        cues = torch.cat([seen[name].T for name in names], dim=1).double()
        if is_false:
            if scene % 5 < 4:
                false.append((cues, relative))
            continue
        rows.append(cues)
        levels.append(relative)
        errors.append(error)
        held_out.append(scene % 5 == 4)
    tried = [index for index, out in enumerate(held_out) if not out]
    true = torch.cat([rows[k] for k in tried]), torch.cat([levels[k] for k in tried])
    weights = proportional_odds(*(torch.cat((part, *others)) for part, others in zip(true, zip(*false, strict=True), strict=True)))
    score = true[0] @ weights
    offset, slope = proportional_odds(torch.stack((torch.ones_like(score), score), dim=1), true[1]).tolist()
    weights = slope * weights
    weights[0] += offset
    left = [index for index, out in enumerate(held_out) if out]
    scores = [rows[k] @ weights for k in left]
    said = torch.sigmoid(torch.cat(scores)).numpy()
    right = torch.cat([levels[k] for k in left]).numpy() <= 1
    area = np.mean([ause(errors[k].numpy(), score.numpy()) for k, score in zip(left, scores, strict=True)])
    print(
        f"{len(tried)} pairs of flows; on {len(left)} others: AUSE {area:.3f}, per_image; right {right.mean():.3f}, said "
        f"{said.mean():.3f}, calibration error {calibration(right, said).error:.3f}, pooled"
    )
    print("COEFFICIENTS = {\n" + "".join(f'    "{k}": {v:.3f},\n' for k, v in zip(names, weights.tolist(), strict=True)) + "}")


def rendered(
    photos: Sequence[Path], models: Sequence[str], scenes: int
) -> Iterator[tuple[int, bool, dict[str, Tensor], Tensor, Tensor]]:
    """By scene and model: its number, whether the flow was made false, cues `(1, N)`, errors over the tolerance, errors [px]."""
    random, choosing = torch.Generator().manual_seed(SEED), torch.Generator().manual_seed(SEED)
    drawn = TextureBank.procedural(64, 512, torch.Generator().manual_seed(11))
    bank = TextureBank.concat([TextureBank.from_folder(photos, 512, keep=is_held_back), drawn])
    estimators = [featherflow.Estimator(model) for model in models]
    for scene in range(scenes):
        pair = render_pairs(1, SceneConfig(384, 512, depth=float(scene % 2)), bank, random, backward=False)
        first, second = ((frame * 255).round() / 255 for frame in (pair.frame1, pair.frame2))
        tolerance = (trust.RIGHT_FRACTION * pair.flow.norm(dim=1)).clamp_min(trust.RIGHT_PIXELS).flatten()
        usable = pair.valid.flatten().nonzero().flatten()
        for estimator in estimators:
            flow, backward = estimator.both(first, second)
            angle, share = torch.rand(2, generator=choosing).tolist()
            shift = (
                1.5 * (20 / 1.5) ** share * torch.tensor([math.cos(angle * math.tau), math.sin(angle * math.tau)]).view(1, 2, 1, 1)
            )
            for is_false, forth, back, count in (
                (False, flow, backward, PIXELS),
                (True, flow + shift, backward - shift, PIXELS // 10),
            ):
                chosen = usable[torch.randperm(len(usable), generator=choosing)[:count]]
                error = (forth - pair.flow).norm(dim=1).flatten()
                seen = {name: cue.flatten()[chosen][None] for name, cue in trust.cues(first, second, forth, back).items()}
                yield scene, is_false, seen, (error / tolerance)[chosen], error[chosen]
        print(f"scene {scene + 1} of {scenes}", flush=True)


def proportional_odds(cues: Tensor, relative: Tensor) -> Tensor:
    """Weights of cues `(N, C)`, the first of which is 1, so that an error is at most the tolerance with sigmoid(cues @ weights)."""
    mean, scale = cues.mean(dim=0), cues.std(dim=0).clamp_min(1e-6)
    inputs = (cues[:, 1:] - mean[1:]) / scale[1:]
    below = torch.stack([(relative <= level).to(inputs) for level in LEVELS], dim=1)
    slope = torch.zeros(inputs.shape[1], dtype=inputs.dtype, requires_grad=True)
    offsets = torch.zeros(len(LEVELS), dtype=inputs.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([slope, offsets], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits((inputs @ slope)[:, None] + offsets, below) + 1e-4 * slope.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]  # its stub wants a float
    weights = slope.detach() / scale[1:]
    constant = offsets.detach()[LEVELS.index(1.0)] - weights @ mean[1:]
    return torch.cat((constant[None], weights))


if __name__ == "__main__":
    main()
