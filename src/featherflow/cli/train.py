"""`featherflow train`."""

from __future__ import annotations

from pathlib import Path


def train(
    recipe: str,
    *,
    run: Path,
    photos: list[Path] | None = None,
    textures: Path | None = None,
    minutes: float | None = None,
    samples: int | None = None,
    validate: Path | None = None,
    validate_every: float = 15.0,
    start: Path | None = None,
    set: list[str] | None = None,
    device: str | None = None,
) -> None:
    """Train a network on procedural pairs; a run that was stopped goes on where it was.

    Example: featherflow train modern/liteflownet2 --run runs/first --photos photos/ --minutes 30

    Parameters
    ----------
    recipe
        Name of a recipe: modern/liteflownet2, modern/liteflownet2-slim, modern/liteflownet, modern/liteflownetx.
    run
        Folder of the run: checkpoint, log and weights. A checkpoint in it is continued.
    photos
        Folder of photos that surfaces are made of, beside drawn textures; may be given several times.
    textures
        Packed texture file in place of photos.
    minutes
        Length of this piece in minutes.
    samples
        Length of this piece in pairs.
    validate
        Folder of real pairs with ground truth to watch.
    validate_every
        Minutes between validations.
    start
        Weights (.safetensors) to begin a new run with.
    set
        KEY=VALUE: replace a number of the recipe; may be given several times.
    device
        cpu, cuda, ...; by default a GPU if there is one.
    """
    from ..training import train as run_training

    run_training(
        recipe, run, photos or (), textures, minutes, samples, validate, validate_every, start, set or (), device
    )
