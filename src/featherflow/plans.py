"""What is to be done with pairs of image files: which frames, which files are made of them, and how; before anything is computed.

A plan is plain data: `FlowPlan.as_dict` gives it to another process or machine, `FlowPlan.of_dict` takes it up there, and
`featherflow.jobs.run` does it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from .errors import FileError, InputError
from .flow import SUFFIXES
from .flow.trust import check_confidence
from .images import IMAGE_SUFFIXES, Still
from .inference.settings import EstimationSettings
from .outputs import check_outputs, flow_suffix, names_folder
from .pairs import FramePair, find_pairs, folders_of, listed_name
from .pixels import Range, check_range
from .sequences import by_folder, gaps, stills, two_stills

_VERSION = 1
_COLUMNS = ("output",)
#: What may be made of a pair.
FILES = ("flow", "picture", "backward", "occlusion", "confidence")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairTask:
    """Two frames, and where what is made of them goes; what is None is not made."""

    first: Still
    second: Still
    flow: Path | None = None
    picture: Path | None = None
    backward: Path | None = None
    occlusion: Path | None = None
    #: None also where it is part of the flow file.
    confidence: Path | None = None

    @property
    def outputs(self) -> list[tuple[str, Path]]:
        """(what it is, where it goes) of all files."""
        named = (
            ("the flow", self.flow),
            ("the picture", self.picture),
            ("the backward flow", self.backward),
            ("the occlusion mask", self.occlusion),
            ("the confidence", self.confidence),
        )
        return [(what, path) for what, path in named if path is not None]

    def is_done(self) -> bool:
        """Whether all its files are there."""
        return all(path.exists() for _, path in self.outputs)


@dataclass(frozen=True, kw_only=True)
class FlowPlan:
    """Pairs of frames, and how flow is estimated and drawn.

    Attributes:
        tasks: the pairs, in order.
        settings: how flow is estimated.
        scale: flow length in full colour [px]; None: measured when it is done.
        confidence: whether that of each pixel is written.
        min_confidence: flow of pixels with less is left out.
        legend: whether the wheel of colours and the scale are drawn into the pictures.
        value_range: the numbers that are black and white in pictures deeper than 8 bit, see `featherflow.pixels`.
        many: whether the pairs came from a sequence or a list; their folders are made, and one that fails may be passed over.
    """

    tasks: tuple[PairTask, ...]
    settings: EstimationSettings = field(default_factory=EstimationSettings)
    scale: float | None = None
    legend: bool = False
    confidence: bool = False
    min_confidence: float | None = None
    value_range: Range | None = None
    many: bool = False

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale > 0:
            raise InputError(f"The scale of a picture is a positive length in pixels, got {self.scale}.")
        check_range(self.value_range)
        check_confidence(self.min_confidence)

    @property
    def trusted(self) -> bool:
        """Whether confidence is needed."""
        return self.confidence or self.min_confidence is not None

    @property
    def both(self) -> bool:
        """Whether the backward flow is needed."""
        return self.trusted or any(task.backward is not None or task.occlusion is not None for task in self.tasks)

    def as_dict(self) -> dict[str, object]:
        """The plan in dictionaries, lists, strings and numbers, as JSON has them."""
        settings = {key: value for key, value in dataclasses.asdict(self.settings).items() if value is not None}
        if isinstance(self.settings.tile, tuple):
            settings["tile"] = list(self.settings.tile)
        settings["tile"] = settings.get("tile", "none")
        return {
            "version": _VERSION,
            "settings": settings,
            "scale": self.scale,
            "legend": self.legend,
            "confidence": self.confidence,
            "min_confidence": self.min_confidence,
            "value_range": None if self.value_range is None else list(self.value_range),
            "many": self.many,
            "pairs": [_task_as_dict(task) for task in self.tasks],
        }

    @classmethod
    def of_dict(cls, plan: Mapping) -> FlowPlan:
        """The plan that `as_dict` gave.

        Raises:
            InputError: for anything else.
        """
        if not isinstance(plan, Mapping) or plan.get("version") != _VERSION:
            raise InputError(f"This is no plan of version {_VERSION}, as FlowPlan.as_dict gives it.")
        try:
            value_range = plan["value_range"]
            return cls(
                tasks=tuple(_task_of_dict(entry) for entry in plan["pairs"]),
                settings=EstimationSettings(**plan["settings"]),
                scale=plan["scale"],
                legend=plan["legend"],
                confidence=plan["confidence"],
                min_confidence=plan["min_confidence"],
                value_range=None if value_range is None else tuple(value_range),
                many=plan["many"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"This is no plan as FlowPlan.as_dict gives it: {error}.") from None


def _task_as_dict(task: PairTask) -> dict[str, object]:
    entry: dict[str, object] = {"frame1": str(task.first.path), "frame2": str(task.second.path)}
    entry |= {f"page{k}": still.page for k, still in ((1, task.first), (2, task.second)) if still.page is not None}
    files = {name: getattr(task, name) for name in FILES}
    return entry | {name: str(path) for name, path in files.items() if path is not None}


def _task_of_dict(entry: Mapping) -> PairTask:
    files = {name: Path(entry[name]) for name in FILES if name in entry}
    first, second = (Still(Path(entry[f"frame{k}"]), entry.get(f"page{k}")) for k in (1, 2))
    return PairTask(first, second, **files)


def plan_files(
    frames: Sequence[str | os.PathLike] = (),
    output: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    *,
    pairs: str | os.PathLike | None = None,
    pairing: str = "auto",
    scale: float | None = None,
    legend: bool = False,
    backward: bool = False,
    occlusion: bool = False,
    confidence: bool = False,
    min_confidence: float | None = None,
    format: str | None = None,
    value_range: Range | None = None,
    overwrite: bool = False,
    summary: str | os.PathLike | None = None,
    settings: EstimationSettings | None = None,
) -> FlowPlan:
    """The plan of `featherflow.jobs.estimate_files`, which says what the arguments are.

    Raises:
        InputError: for frames or names that cannot be used; FileError: for files that cannot be read.
    """
    if output is None and picture is None:
        raise InputError("Nothing would be written: name a flow file with -o, or a picture with --picture, or both.")
    check_confidence(min_confidence)
    if (backward or occlusion or confidence) and output is None:
        raise InputError("--backward, --occlusion and --confidence write beside the flow file: name one with -o.")
    if scale is not None and not scale > 0:
        raise InputError(f"The scale of a picture is a positive length in pixels, got {scale}.")
    check_range(value_range)
    if frames and pairs is not None:
        raise InputError("Name frames or --pairs, not both.")
    source = pairs if pairs is not None else frames[0] if len(frames) == 1 else None
    listed = _named(find_pairs([pairs], pairing, _COLUMNS)) if pairs is not None else _neighbours(frames)
    many = source is not None
    for target in (output, picture):
        _check_target(target, many)
    suffix = _suffix(format, output, many)
    files = _Files(output, picture, suffix, backward, occlusion, confidence)
    tasks = tuple(files.task(pair, name) for pair, name in listed)
    check_outputs(
        [entry for task in tasks for entry in task.outputs] + [("the summary", summary)],
        dict.fromkeys([still.path for task in tasks for still in (task.first, task.second)] + ([source] if many else [])),
        overwrite=None if many else overwrite,
        sequences=folders_of([pairs]) if pairs is not None else frames if many else (),
        makes_folders=many,
    )
    check_outputs([("the summary", summary)])  # whose folder is not made
    return FlowPlan(
        tasks=tasks,
        settings=settings or EstimationSettings(),
        scale=scale,
        legend=legend,
        confidence=confidence,
        min_confidence=min_confidence,
        value_range=value_range,
        many=many,
    )


def _suffix(format: str | None, output: str | os.PathLike | None, many: bool) -> str | None:
    """Of the flow files of many pairs; None for one pair with files of its own."""
    if many:
        return flow_suffix(format or "flo")
    if format is not None:
        raise InputError("--format is for sequences and lists; of one flow file the name says the format.")
    if output is not None and Path(output).suffix.lower() not in SUFFIXES:
        raise InputError(f"'{output}' is no flow file that can be written; its name must end in {', '.join(SUFFIXES)}.")
    return None


@dataclass(frozen=True)
class _Files:
    """Which files are made of each pair."""

    output: str | os.PathLike | None
    picture: str | os.PathLike | None
    suffix: str | None
    backward: bool
    occlusion: bool
    confidence: bool

    def task(self, pair: FramePair, name: Path) -> PairTask:
        def target(folder, ending: str) -> Path | None:
            if folder is None or self.suffix is None:
                return None if folder is None else Path(folder)
            return Path(folder) / name.with_name(name.name + ending)

        flow = target(self.output, self.suffix or "")

        def beside(what: str, suffix: str) -> Path | None:
            return None if flow is None else flow.with_name(f"{flow.stem}_{what}{suffix}")

        in_flow_file = flow is not None and flow.suffix.lower() == ".npz"
        return PairTask(
            pair.first,
            pair.second,
            flow,
            target(self.picture, ".png"),
            beside("backward", flow.suffix) if self.backward and flow is not None else None,
            beside("occlusion", ".png") if self.occlusion else None,
            beside("confidence", ".png") if self.confidence and not in_flow_file else None,
        )


def _neighbours(frames: Sequence[str | os.PathLike]) -> list[tuple[FramePair, Path]]:
    """Two frames, or each two neighbours of a sequence; named after the first, in folders like theirs."""
    if len(frames) == 1:
        sequences = by_folder(stills(frames[0]))
        for sequence in sequences:
            for sentence in gaps(sequence):
                _log.warning("note: %s", sentence)
        pairs = [FramePair(first, second) for sequence in sequences for first, second in pairwise(sequence)]
        below = _below(pairs)
        return [(pair, folder / pair.first.stem) for pair, folder in zip(pairs, below, strict=True)]
    if len(frames) != 2:
        raise InputError(f"Name two frames, or one folder or quoted glob of frames, or --pairs; got {len(frames)}.")
    return [(FramePair(*two_stills(frames)), Path())]


def _named(pairs: list[FramePair]) -> list[tuple[FramePair, Path]]:
    """Pairs of a list with the names of their files.

    As the list says, else after the first frame, in folders like theirs; where that would name several, after both frames.
    """
    names = [folder / pair.first.stem for pair, folder in zip(pairs, _below(pairs), strict=True)]
    shared = Counter(name for pair, name in zip(pairs, names, strict=True) if pair.output is None)

    def own(pair: FramePair, name: Path) -> Path:
        if pair.output is not None:
            return Path(listed_name(pair.output, SUFFIXES))
        return name.with_name(f"{name.name}-{pair.second.stem}") if shared[name] > 1 else name

    return [(pair, own(pair, name)) for pair, name in zip(pairs, names, strict=True)]


def _below(pairs: Iterable[FramePair]) -> list[Path]:
    """The folders of the first frames, below the one that holds all of them."""
    folders = [os.path.abspath(pair.first.path.parent) for pair in pairs]
    root = os.path.commonpath(dict.fromkeys(folders))
    return [Path(folder).relative_to(root) for folder in folders]


def _check_target(target: str | os.PathLike | None, many: bool) -> None:
    if target is None:
        return
    path = Path(target)
    if names_folder(target) and not many and not path.is_dir():
        raise InputError(f"'{target}' is the name of a folder; one flow is written to a file, for example {path / 'flow.flo'}.")
    if many and path.is_file():
        raise FileError(f"'{target}' is a file; many flows are written into a folder.")
    if many and not path.is_dir() and not names_folder(target) and path.suffix.lower() in (*SUFFIXES, *IMAGE_SUFFIXES):
        raise InputError(f"'{target}' is the name of a file; what is made of many pairs goes into a folder, e.g. {target}/.")
    if not many and path.is_dir():
        raise FileError(f"'{target}' is a folder; one flow is written to a file, for example {path / 'flow.flo'}.")
