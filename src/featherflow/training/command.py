"""A training run from names and paths to a finished piece, with progress on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fnmatch import filter as matching
from pathlib import Path

from ..errors import InputError
from ..inference.defaults import device_named
from .recipe import Recipe
from .recipes import get_recipe


def train(
    recipe: str,
    run: str | Path,
    photos: Sequence[str | Path] = (),
    textures: str | Path | None = None,
    minutes: float | None = None,
    samples: int | None = None,
    validate: str | Path | Sequence[str | Path] | None = None,
    validate_every: float = 15.0,
    start: str | Path | None = None,
    only: Sequence[str] = (),
    changes: Sequence[str] = (),
    device: str | None = None,
    data: Sequence[str] = (),
    state_shards: str | Path | None = None,
    tensorboard: bool = False,
    compile: bool = False,
    threads: int = 4,
) -> Piece:
    """Train a piece of a run.

    Args:
        recipe: its name; changes: `"key=value"` texts that replace its numbers.
        run: folder of the run; a checkpoint in it is continued.
        photos: folders of photos for textures, beside procedural ones; textures: a packed file in their place.
        minutes, samples: length of this piece; without either, the whole schedule.
        validate: real pairs to watch, see `Validator`; validate_every: minutes between.
        start: `.safetensors` file, or name of weights that are there, to begin a new run with; those of a narrower or wider network
            of the LiteFlowNet family are widened or narrowed.
        only: patterns of the tensors to take from `start`, e.g. `"netc.*"` for a network that has other units; () takes all.
        data: benchmarks to read pairs from instead of rendering them, `"KIND=ROOT"` or `"KIND:SPLIT=ROOT"`.
        state_shards: folder of small files that the state is kept in too, see `training.shards`.
        tensorboard: write curves and pictures to `RUN/tensorboard`.
        compile: run network and loss through `torch.compile`.
        threads: how many decode pairs that are read.

    Raises:
        InputError: for unknown names or values; FileError, WeightsError, TrainingError as their parts do.
    """
    import torch

    from ..data import TextureBank
    from ..outputs import check_outputs
    from .board import Board
    from .loop import Trainer
    from .shards import INDEX
    from .validation import Validator

    for what, length in (("minutes", minutes), ("samples", samples), ("minutes between validations", validate_every)):
        if length is not None and not (0 < length < math.inf):
            raise InputError(f"The number of {what} must be more than 0, got {length:g}.")
    numbers, run = changed_recipe(recipe, changes), Path(run)
    roots = _by_kind(data)
    check_outputs([("a picture of the run", run / "pictures" / "all.png")], trees=photos, makes_folders=True)
    begun = (run / "checkpoint.pt").exists() or (state_shards is not None and (Path(state_shards) / INDEX).exists())
    if numbers.begins_with and start is None and not begun:
        raise InputError(f"'{recipe}' begins with the weights that {numbers.begins_with} ends with; name them with --start.")
    bank = None
    if textures is not None:
        bank = TextureBank.load(textures)
    elif photos:
        generator = torch.Generator().manual_seed(numbers.seed)
        drawn = TextureBank.procedural(120, 448, generator, particles=20)
        bank = TextureBank.concat([TextureBank.from_folder(list(photos), 448), drawn])
    where = str(device_named(device))
    weights = None
    if only and start is None:
        raise InputError("--only says what to take from the weights of --start, and there are none.")
    if start is not None:
        weights, numbers = _begin_with(start, only, numbers)
    trainer = Trainer(
        numbers,
        run,
        bank,
        device=where,
        start=weights,
        data=roots,
        shards=None if state_shards is None else Path(state_shards),
        compile="inductor" if compile else None,
        threads=threads,
    )
    validator = None
    if validate is not None:
        watched = [validate] if isinstance(validate, str | Path) else list(validate)
        validator = Validator(watched, trainer.device, run / "pictures")
    watch = None if validator is None else lambda network: validator(network, trainer.samples)

    reports = []
    if tensorboard and trainer.processes.writes:
        reports.append(Board(run / "tensorboard", run / "pictures"))
    with ExitStack() as stack:
        stack.callback(trainer.processes.leave)
        if trainer.processes.writes:
            reports.append(stack.enter_context(_progress(trainer)))
        last: dict = {}

        def report_to_all(line: dict) -> None:
            last.update(line)
            for report in reports:
                report(line)

        trainer.run(minutes, samples, watch, validate_every * 60, report_to_all)
    return Piece(str(run), trainer.samples, trainer.length, last.get("loss"), last.get("epe"))


@dataclass(frozen=True)
class Piece:
    """What a piece of training came to."""

    run: str
    #: Seen in all pieces of the run, and at the end of its schedule.
    samples: int
    length: int
    #: The last that were logged in this piece; None where nothing was.
    loss: float | None
    epe_px: float | None

    def sentence(self) -> str:
        """One line for a person."""
        share = f"{self.samples:,} of {self.length:,} samples ({100 * self.samples / max(self.length, 1):.1f} %)"
        figures = "" if self.loss is None else f", loss {self.loss:.3f}, end-point error on training pairs {self.epe_px:.2f} px"
        return f"{share}{figures}; weights, log and checkpoint are in {self.run}; the same command goes on from here."


def changed_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """A recipe by name with `"key=value"` texts applied.

    Raises:
        InputError: for an unknown name or value.
    """
    pairs = [change.partition("=") for change in changes]
    if bad := next((change for change, pair in zip(changes, pairs, strict=True) if not pair[1]), None):
        raise InputError(f"A change of the recipe is written KEY=VALUE, got '{bad}'.")
    return get_recipe(name, {key: value for key, _, value in pairs})


def _by_kind(data: Sequence[str]) -> Mapping[str, Path]:
    roots = {}
    for text in data:
        kind, equals, root = text.partition("=")
        if not (kind and equals and root):
            raise InputError(f"'{text}' must be KIND=ROOT or KIND:SPLIT=ROOT, e.g. flyingchairs=FlyingChairs_release.")
        if kind in roots:
            raise InputError(f"'{kind}' is given twice; put the pairs below one folder.")
        roots[kind] = Path(root)
    return roots


def _begin_with(start: str | Path, only: Sequence[str], recipe: Recipe) -> tuple[Mapping, Recipe]:
    """State dict of a file, or of weights by name, and the recipe with what the weights say of themselves.

    Raises:
        InputError: for weights with other options: they would load, and mean something else. Parts chosen by name are not asked.
            Also for a pattern that names nothing.
    """
    from .. import networks
    from ..networks.liteflownet import LiteFlowNetConfig
    from ..weights.catalogue import find
    from ..weights.store import read_weights

    path = Path(start)
    state, info = read_weights(path if path.exists() or path.suffix else find(str(start)))
    recipe = replace(recipe, enlarge_below=recipe.enlarge_below or info.enlarge_below)
    if only:
        named = {pattern: matching(state, pattern) for pattern in only}
        if nothing := next((pattern for pattern, names in named.items() if not names), None):
            raise InputError(f"'{start}' has no tensor named like '{nothing}'; the first are {', '.join(list(state)[:4])}.")
        return {name: state[name] for names in named.values() for name in names}, recipe
    options = recipe.schedule()[0].options
    built = networks.build(info.architecture, **info.options), networks.build(recipe.network, **options)
    theirs, ours = (network.config for network in built)
    if isinstance(ours, LiteFlowNetConfig) and isinstance(theirs, LiteFlowNetConfig):
        ours = replace(ours, octaves=theirs.octaves)  # the same weights, more or fewer times
        if not theirs.convex_upsampling:
            ours = replace(ours, convex_upsampling=False)  # a run may add it: it begins as the bilinear enlargement
    if info.architecture != recipe.network:  # the rest shows in names and shapes of tensors
        theirs, ours = ([getattr(config, key, None) for key in _UNSEEN_IN_SHAPES] for config in (theirs, ours))
    if theirs != ours:
        raise InputError(f"'{start}' was trained with the options {info.options}, and '{recipe.name}' has {options}.")
    return state, recipe


#: Options of the LiteFlowNet family that change what weights mean, and not their shapes.
_UNSEEN_IN_SHAPES = ("normalized_matching", "warping")


class _progress:
    """A bar over the whole schedule with the latest figures; validation results are printed above it."""

    def __init__(self, trainer):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.trainer = trainer
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,}/{task.total:,} samples"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )

    def __enter__(self):
        self.bar.start()
        total, done = self.trainer.length, self.trainer.samples
        self.task = self.bar.add_task(self.trainer.recipe.name, total=total, completed=done, figures="")
        return self.report

    def report(self, line: dict) -> None:
        if "validation" in line:
            figures = "  ".join(f"{group} {value:.2f}" for group, value in line["validation"].items())
            stage = f", {line['stage']}" if "stage" in line else ""
            self.bar.console.print(f"{line['samples']:,} samples{stage}, EPE [px] per_image: {figures}", markup=False)
        else:
            figures = f"loss {line['loss']:.2f}  EPE {line['epe']:.2f} px  {line['samples_per_s']:.1f}/s"
            self.bar.update(self.task, completed=line["samples"], figures=figures)

    def __exit__(self, *_):
        self.bar.stop()
