"""Which way of training is worth a long run? Equal compute for each variant of one recipe, judged on held-out pairs.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/training_study.py --minutes 30 --validate ../shared/data --photos photos/

Each variant changes one thing of `--recipe`, with the same seed, and gets the same minutes, one after the other. On a CPU they are
minutes of all cores together (two busy cores spend 30 in a quarter of an hour), so other work on the machine does not take from
them; on a GPU they are minutes of the clock. The schedule is sized beforehand, by the cost of a sample in a short piece;
the table says what each variant really took. EPE [px], aggregator `per_image`. A study that was stopped goes on with the rows that
are missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from featherflow.data import TextureBank
from featherflow.files import atomic_write
from featherflow.training import Recipe, Stage, changed_recipe
from featherflow.training.loop import Trainer
from featherflow.training.validation import Validator


def level_by_level(recipe: Recipe) -> Recipe:
    """The same samples and rate, but one more level of the network at a time; each level gets an equal share."""
    finest = 2 if recipe.network in ("liteflownet", "liteflownetx") else 3
    share = recipe.samples // recipe.batch // (7 - finest)
    stages = [Stage(f"to {level}", share, recipe.learning_rate, {"finest_level": level}) for level in range(5, finest - 1, -1)]
    alone = Stage("level 6", share, recipe.learning_rate, {"finest_level": 6, "octaves": 0})  # one level has no octaves
    return replace(recipe, stages=(alone, *stages))


def options(**changed: object):
    return lambda recipe: replace(recipe, options={**recipe.options, **changed})


def numbers(**changed: object):
    return lambda recipe: replace(recipe, **changed)


def loss(**changed: object):
    return lambda recipe: replace(recipe, loss=replace(recipe.loss, **changed))


def scenes(**changed: object):
    return lambda recipe: replace(recipe, scene={**recipe.scene, **changed})


#: Name to a change of the recipe.
VARIANTS = {
    "as it is": lambda recipe: recipe,
    "level by level": level_by_level,
    "features not normalised": options(normalized_matching=False),
    "flow not detached": loss(detach=False),
    "crop 256x384, batch 4": numbers(height=256, width=384, batch=4),
    "batch 4": numbers(batch=4),
    "rate x 2": numbers(rate_factor=2.0),
    "rate / 2": numbers(rate_factor=0.5),
    "adamw": numbers(optimizer="adamw"),
    "more large motions": scenes(large=40.0, small=(0.3, 1.2)),
    "more small motions": scenes(small=(0.6, 1.2)),
    "no photos": scenes(photo=0.0),
    "occluded pixels from the start": numbers(occluded_from=0.0, occluded_until=0.0),
    "occluded pixels never": numbers(occluded_from=2.0, occluded_until=3.0),
    "one way": numbers(both_ways=False),
    "depth scenes 40 %": scenes(depth=0.4),
    "depth scenes 40 %, tied": lambda recipe: replace(scenes(depth=0.4)(recipe), network="liteflownet-tied", options={}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="modern/liteflownet2-slim")
    parser.add_argument("--minutes", type=float, default=30.0, help="of each variant")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="each variant runs once with each")
    parser.add_argument("--photos", action="append", default=[])
    parser.add_argument("--textures", help="packed texture file")
    parser.add_argument("--validate", action="append", required=True, help="folder of real pairs, or KIND=ROOT")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    base = changed_recipe(arguments.recipe, arguments.set)
    bank = texture_bank(arguments, base.seed)
    validator = Validator(arguments.validate, arguments.device)

    arguments.runs.mkdir(parents=True, exist_ok=True)
    results = arguments.runs / "results.json"
    rows = json.loads(results.read_text()) if results.exists() else {}
    for seed, name in itertools.product(arguments.seeds, arguments.variants):
        row = f"{name}, seed {seed}"
        if row in rows:
            continue
        folder = arguments.runs / row.replace(" ", "-").replace("/", "by").replace(",", "")
        clock = clock_of(arguments.device)
        variant = replace(VARIANTS[name](base), seed=seed)
        variant = sized(variant, arguments.minutes, bank, arguments.device, folder)
        run = Trainer(variant, folder, bank, device=arguments.device)
        started = clock()
        run.run()
        rows[row] = ((clock() - started) / 60, run.samples, run.skipped, validator(run.averaged_network()))
        with atomic_write(results) as file:
            file.write(json.dumps(rows).encode())
        print(f"{row}: {rows[row]}", flush=True)

    groups = list(next(iter(rows.values()))[3])
    print("\n| variant | minutes | samples | skipped | " + " | ".join(groups) + " | mean |")
    print("| --- | ---: | ---: | ---: | " + "---: | " * (len(groups) + 1))
    for name, (minutes, samples, skipped, scores) in rows.items():
        figures = " | ".join(f"{scores[group]:.2f}" for group in groups)
        print(f"| {name} | {minutes:.0f} | {samples:,} | {skipped} | {figures} | {sum(scores.values()) / len(scores):.2f} |")


def clock_of(device: str) -> Callable[[], float]:
    """Seconds that a device has worked for this process: of all cores of a CPU together, else of the clock."""
    return time.process_time if device == "cpu" else time.monotonic


def texture_bank(arguments: argparse.Namespace, seed: int) -> TextureBank:
    """Photos or a packed file, with drawn textures."""
    if arguments.textures:
        return TextureBank.load(arguments.textures)
    drawn = TextureBank.procedural(120, 448, torch.Generator().manual_seed(seed), particles=20)
    return TextureBank.concat([TextureBank.from_folder(arguments.photos, 448), drawn]) if arguments.photos else drawn


def sized(recipe: Recipe, minutes: float, bank: TextureBank, device: str, folder: Path) -> Recipe:
    """The recipe with a schedule that ends when the minutes do, by the pace of each of its stages in a short piece."""
    stages, seconds, clock = recipe.schedule(), 0.0, clock_of(device)
    for number, stage in enumerate(stages):
        trial = Trainer(stage, folder.with_name(f"{folder.name}-trial-{number}"), bank, device=device)
        trial.train_step()
        begun, started = trial.samples, clock()
        while clock() - started < min(30.0, minutes * 6) / len(stages):
            trial.train_step()
        seconds += stage.samples * (clock() - started) / (trial.samples - begun)
    return replace(recipe, shrink=seconds / (60.0 * minutes))


if __name__ == "__main__":
    main()
