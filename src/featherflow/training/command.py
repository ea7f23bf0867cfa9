"""A training run from names and paths to a finished piece, with progress on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .recipes import get_recipe


def train(
    recipe: str,
    run: str | Path,
    photos: Sequence[str | Path] = (),
    textures: str | Path | None = None,
    minutes: float | None = None,
    samples: int | None = None,
    validate: str | Path | None = None,
    validate_every: float = 15.0,
    start: str | Path | None = None,
    changes: Sequence[str] = (),
    device: str | None = None,
) -> None:
    """Train a piece of a run.

    Args:
        recipe: its name; changes: `"key=value"` texts that replace its numbers.
        run: folder of the run; a checkpoint in it is continued.
        photos: folders of photos for textures, beside procedural ones; textures: a packed file in their place.
        minutes, samples: length of this piece; without either, the whole schedule.
        validate: folder of real pairs, see `featherflow.evaluation.samples`; validate_every: minutes between.
        start: `.safetensors` file to begin a new run with.

    Raises:
        InputError: for unknown names or values; FileError, WeightsError, TrainingError as their parts do.
    """
    import torch

    from ..data import TextureBank
    from .loop import Trainer

    pairs = [change.partition("=") for change in changes]
    if bad := next((change for change, pair in zip(changes, pairs, strict=True) if not pair[1]), None):
        raise InputError(f"A change of the recipe is written KEY=VALUE, got '{bad}'.")
    numbers = get_recipe(recipe, {key: value for key, _, value in pairs})
    if textures is not None:
        bank = TextureBank.load(textures)
    elif photos:
        generator = torch.Generator().manual_seed(numbers.seed)
        drawn = TextureBank.procedural(120, 448, generator, particles=20)
        bank = TextureBank.concat([TextureBank.from_folder(list(photos), 448), drawn])
    else:
        bank = None
    beginning = None
    if start is not None:
        from ..weights.store import read_weights

        beginning, _ = read_weights(start)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(numbers, Path(run), bank, device=where, start=beginning)
    with _progress(trainer) as report:
        trainer.run(minutes, samples, validator(validate, where) if validate else None, validate_every * 60, report)


def validator(folder: str | Path, device: str):
    """A function that gives a network's EPE [px] by group of real pairs, aggregator `per_image`."""
    from functools import partial

    from ..estimation import estimate
    from ..evaluation import Dataset, evaluate

    samples = Dataset("samples", Path(folder))

    def validate(network) -> dict[str, float]:
        results = evaluate({"network": partial(estimate, model=network, device=device)}, [samples]).results
        return {result.group: round(result.figures["per_image"]["epe"], 4) for result in results}

    return validate


class _progress:
    """A bar over the whole schedule with the latest figures; validation results are printed above it."""

    def __init__(self, trainer):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.trainer = trainer
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}/{task.total:,} samples"),
            TextColumn("{task.fields[figures]}"), TimeRemainingColumn(),
        )

    def __enter__(self):
        self.bar.start()
        total, done = self.trainer.recipe.samples, self.trainer.samples
        self.task = self.bar.add_task(self.trainer.recipe.name, total=total, completed=done, figures="")
        return self.report

    def report(self, line: dict) -> None:
        if "validation" in line:
            figures = "  ".join(f"{group} {value:.2f}" for group, value in line["validation"].items())
            self.bar.console.print(f"{line['samples']:,} samples, EPE [px] per_image: {figures}")
        else:
            figures = f"loss {line['loss']:.2f}  EPE {line['epe']:.2f} px  {line['samples_per_s']:.1f}/s"
            self.bar.update(self.task, completed=line["samples"], figures=figures)

    def __exit__(self, *_):
        self.bar.stop()
