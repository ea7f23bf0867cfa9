"""Flow between image files, written to files: for one pair, or along a sequence of pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from .errors import FeatherflowError, FileError, InputError, counted
from .files import together
from .flow import SUFFIXES, measured_scale, save_flow_picture, write_flow
from .flow import occlusion as find_occlusion
from .flow.trust import check_confidence, confidence_levels
from .frames import IMAGE_SUFFIXES, Range, Still, check_range, page_count, read_frames, write_image
from .inference import Estimator
from .outputs import FLOW_FORMATS, check_outputs, make_folder, names_folder
from .sequences import by_folder, gaps, stills

_PAIRS_FOR_SCALE = 8
_KEPT_BYTES = 256 << 20  # of flows that were found while the scale was measured


@dataclass(frozen=True)
class FlowJobResult:
    """What was done for one pair."""

    frame1: str
    frame2: str
    model: str
    width: int
    height: int
    #: Estimation alone [s], without reading, writing, loading the weights or building an engine.
    seconds: float
    mean_length_px: float
    max_length_px: float
    flow: str | None = None
    picture: str | None = None
    #: Flow length drawn in full colour [px].
    picture_scale_px: float | None = None
    backward: str | None = None
    occlusion: str | None = None
    confidence: str | None = None
    #: Before the first pair, and 0 for the others: loading the weights, and building or loading an engine for the size [s].
    load_seconds: float = 0.0
    build_seconds: float = 0.0

    def sentence(self) -> str:
        """One line for a person."""
        files = [name for name in (self.flow, self.picture, self.backward, self.occlusion, self.confidence) if name]
        before = "".join(
            f"{what} in {seconds:.2f} s, "
            for what, seconds in (("loaded", self.load_seconds), ("engine ready", self.build_seconds))
            if seconds >= 0.005
        )
        return (
            f"{Path(self.frame1).name} -> {Path(self.frame2).name}  {self.width}x{self.height} px, {self.model}, "
            f"{before}estimated in {self.seconds:.2f} s, mean length {self.mean_length_px:.2f} px, "
            f"longest {self.max_length_px:.1f} px: " + ", ".join(files)
        )


@dataclass(frozen=True)
class Failure:
    """A pair that could not be done."""

    frame1: str
    frame2: str
    error: str

    def sentence(self) -> str:
        return f"{Path(self.frame1).name} -> {Path(self.frame2).name}  failed: {self.error}"


@dataclass
class FlowJob:
    """What was done for all pairs."""

    results: list[FlowJobResult | Failure] = field(default_factory=list)
    #: Pairs whose files were all there already.
    skipped: int = 0
    #: Whether the pairs came from a sequence.
    many: bool = False

    @property
    def failures(self) -> list[Failure]:
        return [result for result in self.results if isinstance(result, Failure)]

    def summary(self) -> str:
        """One line for a person, at the end of a sequence."""
        done = [result for result in self.results if isinstance(result, FlowJobResult)]
        parts = [f"{counted(len(done), 'pair')} done"]
        parts += [f"{self.skipped} {'was' if self.skipped == 1 else 'were'} there already"] if self.skipped else []
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        seconds = sum(result.seconds for result in done)
        parts += [f"{seconds:.1f} s of estimation, {seconds / len(done):.2f} s for each"] if done else []
        scales = {result.picture_scale_px for result in done if result.picture_scale_px is not None}
        parts += [f"full colour at {scales.pop():.2f} px in all pictures"] if len(scales) == 1 else []
        return "; ".join(parts) + "."


@dataclass(frozen=True)
class _Pair:
    """Two neighbours and where what is made of them goes."""

    first: Still
    second: Still
    flow: Path | None
    picture: Path | None
    backward: Path | None
    occlusion: Path | None
    confidence: Path | None

    @property
    def outputs(self) -> list[tuple[str, Path]]:
        named = (
            ("the flow", self.flow),
            ("the picture", self.picture),
            ("the backward flow", self.backward),
            ("the occlusion mask", self.occlusion),
            ("the confidence", self.confidence),
        )
        return [(what, path) for what, path in named if path is not None]


def estimate_files(
    frames: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    picture: str | os.PathLike[str] | None = None,
    *,
    scale: float | None = None,
    legend: bool = False,
    backward: bool = False,
    occlusion: bool = False,
    confidence: bool = False,
    min_confidence: float | None = None,
    format: str | None = None,
    value_range: Range | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    keep_going: bool = False,
    estimator: Estimator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FlowJob:
    """Flow between image files, written to files.

    Args:
        frames: two image files; or one folder, glob pattern or file of several pictures, which are paired in natural order, each
            folder for itself.
        output: flow file; for a sequence a folder, whose files are named after each pair's first picture, in folders like theirs.
        picture: colour picture of the flow, or a folder likewise.
        scale: flow length in full colour [px]. Default: for two frames the longest; for a sequence one for all pictures, the
            longest 99th percentile of 8 pairs spread over it, which are estimated first.
        legend: draw the wheel of colours and the scale into the pictures.
        backward: also write the backward flow; occlusion: also write the mask of pixels that frame 2 does not show.
        confidence: also write the probability that each pixel's flow is right (`featherflow.flow.confidence`): into the flow file
            if that is .npz, else as a picture of 16 bits beside it, white for 1.
        min_confidence: leave out, as unknown, the flow of pixels with less, in flow and picture; not in the backward flow.
        format: of the flow files of a sequence, a name of `featherflow.outputs.FLOW_FORMATS`. Default: flo.
        value_range: the numbers that are black and white in pictures deeper than 8 bit, see `featherflow.frames`.
        overwrite: let the result for two frames take the place of one of them.
        skip_existing: leave out pairs whose files are all there, as a run that was stopped left them.
        keep_going: note a pair that cannot be done and go on with the next.
        estimator: what estimates. Default: `featherflow.Estimator()`.
        progress: called with (pairs done, pairs in all).

    Raises:
        InputError: for frames or names that cannot be used, before anything is computed where the names alone tell;
        FileError: for files that cannot be read or written.
    """
    if output is None and picture is None:
        raise InputError("Nothing would be written: name a flow file with -o, or a picture with --picture, or both.")
    if (backward or occlusion or confidence) and output is None:
        raise InputError("--backward, --occlusion and --confidence write beside the flow file: name one with -o.")
    check_confidence(min_confidence)
    if scale is not None and not scale > 0:
        raise InputError(f"The scale of a picture is a positive length in pixels, got {scale}.")
    check_range(value_range)
    sequences = _sequences(frames)
    many = len(frames) == 1
    for target in (output, picture):
        _check_target(target, many)
    if many:
        suffix = FLOW_FORMATS.get(format or "flo")
        if suffix is None:
            raise InputError(f"The format of flow files must be one of {', '.join(FLOW_FORMATS)}, got '{format}'.")
    else:
        suffix = None
        if format is not None:
            raise InputError("--format is for sequences; of one flow file the name says the format.")
        if output is not None and Path(output).suffix.lower() not in SUFFIXES:
            raise InputError(f"'{output}' is no flow file that can be written; its name must end in {', '.join(SUFFIXES)}.")
    pairs = list(_plan(sequences, output, picture, suffix, backward, occlusion, confidence))
    inputs = [still.path for sequence in sequences for still in sequence]
    check_outputs(
        [entry for pair in pairs for entry in pair.outputs],
        inputs,
        overwrite=None if many else overwrite,
        sequences=frames if many else (),
        makes_folders=many,
    )
    for sequence in sequences:
        _warn(gaps(sequence) if many else [])
    job = FlowJob(many=many)
    trusted = confidence or min_confidence is not None
    runner = _Runner(Estimator() if estimator is None else estimator, backward or occlusion or trusted, trusted, value_range)
    done = {pair for pair in pairs if skip_existing and all(path.exists() for _, path in pair.outputs)}
    if many and picture is not None and scale is None and len(done) < len(pairs):
        scale = runner.measure(pairs)
    for index, pair in enumerate(pairs):
        if progress:
            progress(index, len(pairs))
        if pair in done:
            job.skipped += 1
            continue
        try:
            job.results.append(_write(pair, runner(pair), scale, legend, confidence, min_confidence, runner, many))
        except FeatherflowError as error:
            if not (keep_going and many):
                raise
            job.results.append(Failure(str(pair.first), str(pair.second), str(error)))
    if progress:
        progress(len(pairs), len(pairs))
    return job


@dataclass(frozen=True)
class _Found:
    """What was estimated for a pair, and in how many seconds."""

    seconds: float
    flow: np.ndarray
    backward: np.ndarray | None = None
    confidence: np.ndarray | None = None


class _Runner:
    """Estimates pairs of files, and measures what that takes."""

    def __init__(self, estimator: Estimator, both: bool, trusted: bool, value_range: Range | None):
        self.estimator, self.both, self.trusted, self.value_range = estimator, both, trusted, value_range
        self.model, self.load_seconds, self.build_seconds = estimator.model, estimator.load_seconds, 0.0
        self._ready: set[tuple[int, ...]] = set()
        self._kept: dict[_Pair, _Found] = {}

    def __call__(self, pair: _Pair) -> _Found:
        if pair in self._kept:
            return self._kept.pop(pair)
        frame1, frame2 = read_frames([pair.first, pair.second], self.value_range)
        if frame1.shape != frame2.shape:
            sizes = f"{frame1.shape[1]}x{frame1.shape[0]} and {frame2.shape[1]}x{frame2.shape[0]}"
            raise InputError(f"'{pair.first}' and '{pair.second}' must have one size, got {sizes}.")
        seconds, found = self._timed(frame1, frame2)
        if self.estimator.settings.engine not in ("auto", "torch") and frame1.shape not in self._ready:
            # The first run for a size builds the engine or loads what was built; what that took is what the second takes less.
            first, (seconds, found) = seconds, self._timed(frame1, frame2)
            self.build_seconds += max(first - seconds, 0.0)
        self._ready.add(frame1.shape)
        return _Found(seconds, *found)

    def _timed(self, frame1: np.ndarray, frame2: np.ndarray) -> tuple[float, tuple[np.ndarray, ...]]:
        started = time.perf_counter()
        if self.both:
            found = self.estimator.both(frame1, frame2, confidence=self.trusted)
        else:
            found = (self.estimator(frame1, frame2),)
        return time.perf_counter() - started, found

    def before(self) -> tuple[float, float]:
        """Seconds of loading and building since this was last asked."""
        spent = self.load_seconds, self.build_seconds
        self.load_seconds = self.build_seconds = 0.0
        return spent

    def measure(self, pairs: list[_Pair]) -> float:
        """One scale for all pictures [px]; pairs that cannot be read do not count."""
        count, longest, held = len(pairs), 0.0, 0
        chosen = sorted({round((k + 0.5) * (count - 1) / _PAIRS_FOR_SCALE) for k in range(_PAIRS_FOR_SCALE)})
        for pair in [pairs[index] for index in chosen] if count > _PAIRS_FOR_SCALE else pairs:
            try:
                found = self(pair)
            except FeatherflowError:
                continue  # said when its turn comes
            longest = max(longest, measured_scale(found.flow))
            held += sum(array.nbytes for array in (found.flow, found.backward, found.confidence) if array is not None)
            if held <= _KEPT_BYTES:
                self._kept[pair] = found
        return longest or 1.0


def _write(
    pair: _Pair,
    found: _Found,
    scale: float | None,
    legend: bool,
    confidence: bool,
    min_confidence: float | None,
    runner: _Runner,
    many: bool,
) -> FlowJobResult:
    flow = found.flow
    shown = flow
    if min_confidence is not None:
        assert found.confidence is not None  # it was asked for
        shown = np.where(found.confidence[..., None] >= min_confidence, flow, np.float32(np.nan))
    for _, path in pair.outputs if many else ():
        make_folder(path.parent)
    picture_scale = None
    with together():
        if pair.flow is not None:
            write_flow(pair.flow, shown, confidence=found.confidence if confidence and pair.confidence is None else None)
        if pair.picture is not None:
            picture_scale = save_flow_picture(pair.picture, shown, scale, legend)
        if pair.backward is not None and found.backward is not None:
            write_flow(pair.backward, found.backward)
        if pair.occlusion is not None and found.backward is not None:
            write_image(pair.occlusion, find_occlusion(flow, found.backward).astype(np.uint8) * 255)
        if pair.confidence is not None and found.confidence is not None:
            write_image(pair.confidence, confidence_levels(found.confidence))
    length = np.hypot(flow[..., 0], flow[..., 1])
    load, build = runner.before()
    names = ("flow", "picture", "backward", "occlusion", "confidence")
    return FlowJobResult(
        str(pair.first),
        str(pair.second),
        runner.model,
        flow.shape[1],
        flow.shape[0],
        round(found.seconds, 4),
        round(float(length.mean()), 4),
        round(float(length.max()), 4),
        picture_scale_px=picture_scale,
        load_seconds=round(load, 4),
        build_seconds=round(build, 4),
        **{name: str(getattr(pair, name)) for name in names if getattr(pair, name) is not None},
    )


def _sequences(frames: Sequence[str | os.PathLike[str]]) -> list[list[Still]]:
    if len(frames) == 1:
        return by_folder(stills(frames[0]))
    if len(frames) != 2:
        raise InputError(f"Name two frames, or one folder or quoted glob of frames; got {len(frames)}.")
    for path in map(Path, frames):
        if path.is_file() and path.suffix.lower() in (*IMAGE_SUFFIXES, ".gif") and path.stat().st_size:
            count = page_count(path)
            if count > 1:
                raise InputError(f"'{path}' holds {count} pictures; name it alone to take them as a sequence.")
    return [[Still(Path(path)) for path in frames]]


def _plan(sequences, output, picture, suffix: str | None, backward: bool, occlusion: bool, confidence: bool) -> Iterator[_Pair]:
    """All pairs with their files; `suffix` of the flow files of a sequence, None for one pair with files of its own."""
    root = Path(os.path.commonpath([os.path.abspath(sequence[0].path.parent) for sequence in sequences]))
    for sequence in sequences:
        below = Path(os.path.abspath(sequence[0].path.parent)).relative_to(root)
        for first, second in pairwise(sequence):

            def target(folder, ending, below=below, first=first):
                if folder is None or suffix is None:
                    return None if folder is None else Path(folder)
                return Path(folder) / below / f"{first.stem}{ending}"

            flow = target(output, suffix)
            yield _Pair(
                first,
                second,
                flow,
                target(picture, ".png"),
                flow.with_name(f"{flow.stem}_backward{flow.suffix}") if flow and backward else None,
                flow.with_name(f"{flow.stem}_occlusion.png") if flow and occlusion else None,
                flow.with_name(f"{flow.stem}_confidence.png") if flow and confidence and flow.suffix.lower() != ".npz" else None,
            )


def _check_target(target: str | os.PathLike[str] | None, many: bool) -> None:
    if target is None:
        return
    path = Path(target)
    if names_folder(target) and not many and not path.is_dir():
        raise InputError(f"'{target}' is the name of a folder; one flow is written to a file, for example {path / 'flow.flo'}.")
    if many and path.is_file():
        raise FileError(f"'{target}' is a file; many flows are written into a folder.")
    if many and not path.is_dir() and not names_folder(target) and path.suffix.lower() in (*SUFFIXES, *IMAGE_SUFFIXES):
        raise InputError(f"'{target}' is the name of a file; what is made of a sequence goes into a folder, e.g. {target}/.")
    if not many and path.is_dir():
        raise FileError(f"'{target}' is a folder; one flow is written to a file, for example {path / 'flow.flo'}.")


def _warn(sentences: list[str]) -> None:
    import logging

    for sentence in sentences:
        logging.getLogger(__name__).warning("note: %s", sentence)
