"""`featherflow train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train(
    recipe: str | None = None,
    *,
    run: Path | None = None,
    data: list[str] | None = None,
    photos: list[Path] | None = None,
    textures: Path | None = None,
    minutes: float | None = None,
    samples: int | None = None,
    validate: list[str] | None = None,
    validate_every: float = 15.0,
    start: str | None = None,
    only: list[str] | None = None,
    set: list[str] | None = None,
    device: str | None = None,
    state_shards: Path | None = None,
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    compile: Annotated[bool, Parameter(negative="")] = False,
    threads: int = 4,
    list: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train a network on procedural pairs or on benchmarks; a run that was stopped goes on where it was.

    Example: featherflow train modern/liteflownet2 --run runs/first --photos photos/ --minutes 30

    Example: featherflow train paper/liteflownet2 --run runs/chairs --data flyingchairs=FlyingChairs_release

    Parameters
    ----------
    recipe
        Name of a recipe; --list shows them.
    run
        Folder of the run: checkpoint, log, pictures and weights. A checkpoint in it is continued.
    data
        Benchmark to read pairs from instead of rendering them, as KIND=ROOT or KIND:SPLIT=ROOT: flyingchairs, flyingthings3d,
        sintel, kitti2012, kitti2015, hd1k, middlebury, spring, piv, folder (your own). May be given several times.
    photos
        Folder of photos that surfaces are made of, beside drawn textures; may be given several times.
    textures
        Packed texture file in place of photos.
    minutes
        Length of this piece in minutes.
    samples
        Length of this piece in pairs.
    validate
        Pairs with ground truth to watch: a folder of real pairs, or KIND=ROOT; may be given several times.
    validate_every
        Minutes between validations.
    start
        Weights to begin a new run with: a .safetensors file, or the name of weights that are there.
    only
        Take only the tensors of --start that are named like this, e.g. 'netc.*'; may be given several times.
    set
        KEY=VALUE: replace a number of the recipe; may be given several times. shrink=1000 makes the whole schedule 1000 times
        shorter.
    device
        cpu, cuda, ...; by default a GPU if there is one.
    state_shards
        Folder of files under 16 MB that the full state is kept in too; a new run begins with what is there.
    tensorboard
        Write curves and pictures to RUN/tensorboard.
    compile
        Run the network and its loss through torch.compile.
    threads
        How many decode the pairs that are read.
    list
        List the recipes.
    dry_run
        Show stages, lengths, learning rates and an estimate of the memory, and train nothing.
    json
        With --list and --dry-run: print as JSON.
    """
    import dataclasses

    from ..errors import InputError
    from ..training import RECIPES, changed_recipe
    from ..training import train as run_training
    from .output import print_json, print_table, say

    if list:
        listed = [recipe.summary() for recipe in RECIPES.values()]
        if json:
            print_json(listed)
        else:
            for entry in listed:
                after = f", after {entry['begins with']}" if entry["begins with"] else ""
                print(f"{entry['recipe']:30} {entry['samples']:>11,} pairs  {entry['data']}{after}")
        return
    if recipe is None:
        raise InputError("Name a recipe, e.g. modern/liteflownet-tied; `featherflow train --list` shows them all.")
    if dry_run:
        import torch

        from ..inference.defaults import device_named
        from ..training.plan import plan

        numbers = changed_recipe(recipe, set or ())
        where = device_named(device).type
        stages = plan(numbers, where)
        at_once = 1 if where != "cpu" else min(numbers.chunks, torch.get_num_threads())
        if json:
            print_json([dataclasses.asdict(stage) | {"memory_mib": stage.memory_mib(at_once)} for stage in stages])
            return
        print_table(
            ["stage", "trained parameters", "iterations", "samples", "learning rate", "memory [MiB]"],
            [
                [
                    stage.name,
                    f"{stage.parameters:,}",
                    f"{stage.iterations:,}",
                    f"{stage.samples:,}",
                    " to ".join(f"{rate:.3g}" for rate in stage.rates),
                    f"{stage.memory_mib(at_once):,.0f}",
                ]
                for stage in stages
            ],
            title=f"{recipe}: batch {numbers.batch} of {numbers.width}x{numbers.height} px in {numbers.chunks} chunks on {where}",
        )
        return
    if run is None:
        raise InputError("A run needs a folder: --run FOLDER.")
    piece = run_training(
        recipe,
        run,
        photos or (),
        textures,
        minutes,
        samples,
        validate,
        validate_every,
        start,
        only or (),
        set or (),
        device,
        data or (),
        state_shards,
        tensorboard,
        compile,
        threads,
    )
    say(piece.sentence())
