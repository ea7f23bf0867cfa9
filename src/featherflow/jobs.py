"""Flow between image files, written to files: for one pair, along a sequence of pictures, or for pairs by the thousand.

Reading, estimating and writing overlap: one thread reads the pairs that come next, this one estimates, and one writes those before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import FeatherflowError, FileError, InputError, counted
from .files import together
from .flow import measured_scale, save_flow_picture, write_flow
from .flow import occlusion as find_occlusion
from .flow.trust import confidence_levels
from .images import read_frames, write_image
from .inference import Estimator
from .inference.timing import Stopwatch, Times, said_before
from .outputs import make_folder
from .overlap import ahead, behind
from .pixels import Range
from .plans import FILES, FlowPlan, PairTask, plan_files

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
        before = said_before(self.load_seconds, self.build_seconds)
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
    #: Whether the pairs came from a sequence or a list.
    many: bool = False
    #: From the first pair to the last, all that overlaps counted once [s].
    seconds: float = 0.0

    @property
    def failures(self) -> list[Failure]:
        return [result for result in self.results if isinstance(result, Failure)]

    @property
    def totals(self) -> dict[str, object]:
        """Numbers of pairs, and seconds."""
        done = [result for result in self.results if isinstance(result, FlowJobResult)]
        return {
            "done": len(done),
            "skipped": self.skipped,
            "failed": len(self.failures),
            "seconds": round(self.seconds, 4),
            "estimation_seconds": round(sum(result.seconds for result in done), 4),
        }

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


def estimate_files(
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
    skip_existing: bool = False,
    keep_going: bool = False,
    summary: str | os.PathLike | None = None,
    estimator: Estimator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FlowJob:
    """Flow between image files, written to files.

    Args:
        frames: two image files; or one folder, glob pattern or file of several pictures, which are paired in natural order, each
            folder for itself.
        output: flow file; for a sequence or pairs a folder, whose files are named after each pair's first picture, in folders like
            theirs.
        picture: colour picture of the flow, or a folder likewise.
        pairs: in place of frames: a list `.csv` of pairs, with the columns frame1, frame2 and, if wanted, output (the name of what
            is made of the pair, without its ending); or a folder, glob pattern or file of several pictures.
        pairing: how the frames of one that is no list are paired, see `featherflow.pairs.find_pairs`.
        scale: flow length in full colour [px]. Default: for two frames the longest; for a sequence one for all pictures, the
            longest 99th percentile of 8 pairs spread over it, which are estimated first.
        legend: draw the wheel of colours and the scale into the pictures.
        backward: also write the backward flow; occlusion: also write the mask of pixels that frame 2 does not show.
        confidence: also write the probability that each pixel's flow is right (`featherflow.flow.confidence`): into the flow file
            if that is .npz, else as a picture of 16 bits beside it, white for 1.
        min_confidence: leave out, as unknown, the flow of pixels with less, in flow and picture; not in the backward flow.
        format: of the flow files of many pairs, a name of `featherflow.outputs.FLOW_FORMATS`. Default: flo.
        value_range: the numbers that are black and white in pictures deeper than 8 bit, see `featherflow.pixels`.
        overwrite: let the result for two frames take the place of one of them.
        skip_existing: leave out pairs whose files are all there, as a run that was stopped left them.
        keep_going: note a pair that cannot be done and go on with the next.
        summary: JSON lines to write: one for each pair as soon as it is done, and one of totals at the end. With skip_existing
            they are added to those that are there.
        estimator: what estimates. Default: `featherflow.Estimator()`.
        progress: called with (pairs done, pairs to do).

    Raises:
        InputError: for frames or names that cannot be used, before anything is computed where the names alone tell;
        FileError: for files that cannot be read or written.
    """
    plan = plan_files(
        frames,
        output,
        picture,
        pairs=pairs,
        pairing=pairing,
        scale=scale,
        legend=legend,
        backward=backward,
        occlusion=occlusion,
        confidence=confidence,
        min_confidence=min_confidence,
        format=format,
        value_range=value_range,
        overwrite=overwrite,
        summary=summary,
        settings=None if estimator is None else estimator.settings,
    )
    return run(plan, estimator, skip_existing=skip_existing, keep_going=keep_going, summary=summary, progress=progress)


def run(
    plan: FlowPlan,
    estimator: Estimator | None = None,
    *,
    skip_existing: bool = False,
    keep_going: bool = False,
    overlap: bool = True,
    summary: str | os.PathLike | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FlowJob:
    """Do a plan.

    Args:
        estimator: what estimates. Default: one of the plan's settings.
        overlap: read and write in threads of their own; else one after the other.
        others: as `estimate_files`.

    Raises:
        InputError, FileError: as `estimate_files`; what was done before is there by then.
    """
    estimator = Estimator.of(plan.settings) if estimator is None else estimator
    runner = _Runner(estimator, plan)
    todo = [task for task in plan.tasks if not (skip_existing and task.is_done())]
    job = FlowJob(skipped=len(plan.tasks) - len(todo), many=plan.many)
    passes_over, threads = keep_going and plan.many, overlap and plan.many
    began = time.perf_counter()
    with _json_lines(summary, job, skip_existing) if summary is not None else nullcontext() as report:
        if plan.many and plan.scale is None and any(task.picture for task in todo):
            plan = dataclasses.replace(plan, scale=runner.measure(plan.tasks))

        def finish(task: PairTask, found: _Found | FeatherflowError) -> None:
            try:
                if isinstance(found, FeatherflowError):
                    raise found
                result = _write(task, found, plan, estimator.model)
            except FeatherflowError as error:
                if not passes_over:
                    raise
                result = Failure(str(task.first), str(task.second), str(error))
            job.results.append(result)
            job.seconds = time.perf_counter() - began
            if report is not None:
                report(dataclasses.asdict(result))

        read = runner.read(todo)
        with behind(finish) if threads else nullcontext(finish) as hand_over:
            for task, frames in ahead(read) if threads else read:
                if progress:
                    progress(len(job.results), len(todo))
                hand_over(task, runner(task, frames))
        if progress:
            progress(len(todo), len(todo))
    return job


@contextmanager
def _json_lines(path: str | os.PathLike, job: FlowJob, go_on: bool) -> Iterator[Callable[[dict], None]]:
    """A function that writes a line for each pair, as soon as it is called; at the end, also of what failed, a line of totals."""

    def report(entry: dict) -> None:
        try:
            file.write(json.dumps(entry) + "\n")
            file.flush()  # so that it is there should the program be killed
        except OSError as error:
            raise _unwritten(path, error) from error

    try:
        if go_on and os.path.isfile(path):
            _drop_unfinished(path)
        file = open(path, "a" if go_on else "w", encoding="utf-8")
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        yield report
    finally:
        try:
            report({"totals": job.totals})
        finally:
            with suppress(OSError):  # what cannot be written was said
                file.close()


def _drop_unfinished(path: str | os.PathLike) -> None:
    """Take away the part of a line that a full disk left at the end, to which the next line would be joined."""
    with open(path, "rb+") as file:
        content = file.read()
        part = content[content.rfind(b"\n") + 1 :]
        try:
            json.loads(part)
            is_cut = False
        except ValueError:
            is_cut = part.startswith(b"{")  # what else is there is not ours
        if is_cut:
            file.truncate(len(content) - len(part))
        elif part:
            file.write(b"\n")


def _unwritten(path: str | os.PathLike, error: OSError) -> FileError:
    return FileError(f"cannot write {path}: {error.strerror or error}")


@dataclass(frozen=True)
class _Found:
    """What was estimated for a pair, and what that took."""

    times: Times
    flow: np.ndarray
    backward: np.ndarray | None = None
    confidence: np.ndarray | None = None


Frames = tuple[np.ndarray, np.ndarray]


class _Runner:
    """Reads and estimates pairs of files, and measures what that takes."""

    def __init__(self, estimator: Estimator, plan: FlowPlan):
        self.estimator, self.both, self.trusted, self.value_range = estimator, plan.both, plan.trusted, plan.value_range
        self._load_seconds = estimator.load_seconds  # counted for the first pair
        self._kept: dict[PairTask, _Found] = {}

    def read(self, tasks: Sequence[PairTask]) -> Iterator[tuple[PairTask, Frames | FeatherflowError | None]]:
        """Each pair with its frames, or why there are none; None where its flow is known."""
        for task in tasks:
            yield task, None if task in self._kept else self._frames(task)

    def _frames(self, task: PairTask) -> Frames | FeatherflowError:
        try:
            frame1, frame2 = read_frames([task.first, task.second], self.value_range)
        except FeatherflowError as error:
            return error
        if frame1.shape != frame2.shape:
            sizes = f"{frame1.shape[1]}x{frame1.shape[0]} and {frame2.shape[1]}x{frame2.shape[0]}"
            return InputError(f"'{task.first}' and '{task.second}' must have one size, got {sizes}.")
        return frame1, frame2

    def __call__(self, task: PairTask, frames: Frames | FeatherflowError | None) -> _Found | FeatherflowError:
        """What is found between the frames of a pair, or why nothing is."""
        if frames is None:
            return self._kept.pop(task)
        if isinstance(frames, FeatherflowError):
            return frames
        try:
            return self._estimate(*frames)
        except FeatherflowError as error:
            return error

    def _estimate(self, frame1: np.ndarray, frame2: np.ndarray) -> _Found:
        watch = Stopwatch(self._load_seconds)
        if self.both:
            found = self.estimator.both(frame1, frame2, confidence=self.trusted)
        else:
            found = (self.estimator(frame1, frame2),)
        self._load_seconds = 0.0
        return _Found(watch.read(), *found)

    def measure(self, tasks: Sequence[PairTask]) -> float:
        """One scale for all pictures [px]; pairs that cannot be read do not count."""
        count, longest, held = len(tasks), 0.0, 0
        chosen = sorted({round((k + 0.5) * (count - 1) / _PAIRS_FOR_SCALE) for k in range(_PAIRS_FOR_SCALE)})
        for task in [tasks[index] for index in chosen] if count > _PAIRS_FOR_SCALE else tasks:
            found = self(task, self._frames(task))
            if isinstance(found, FeatherflowError):
                continue  # said when its turn comes
            longest = max(longest, measured_scale(found.flow))
            held += sum(array.nbytes for array in (found.flow, found.backward, found.confidence) if array is not None)
            if held <= _KEPT_BYTES:
                self._kept[task] = found
        return longest or 1.0


def _write(task: PairTask, found: _Found, plan: FlowPlan, model: str) -> FlowJobResult:
    for _, path in task.outputs if plan.many else ():
        make_folder(path.parent)
    flow = shown = found.flow
    if plan.min_confidence is not None and found.confidence is not None:
        shown = np.where(found.confidence[..., None] >= plan.min_confidence, flow, np.float32(np.nan))
    picture_scale = None
    with together():
        if task.flow is not None:
            write_flow(task.flow, shown, confidence=found.confidence if plan.confidence and task.confidence is None else None)
        if task.picture is not None:
            picture_scale = save_flow_picture(task.picture, shown, plan.scale, plan.legend)
        if task.backward is not None and found.backward is not None:
            write_flow(task.backward, found.backward)
        if task.occlusion is not None and found.backward is not None:
            write_image(task.occlusion, find_occlusion(flow, found.backward).astype(np.uint8) * 255)
        if task.confidence is not None and found.confidence is not None:
            write_image(task.confidence, confidence_levels(found.confidence))
    length = np.hypot(flow[..., 0], flow[..., 1])
    names = FILES
    return FlowJobResult(
        str(task.first),
        str(task.second),
        model,
        flow.shape[1],
        flow.shape[0],
        found.times.seconds,
        round(float(length.mean()), 4),
        round(float(length.max()), 4),
        picture_scale_px=picture_scale,
        load_seconds=found.times.load_seconds,
        build_seconds=found.times.build_seconds,
        **{name: str(getattr(task, name)) for name in names if getattr(task, name) is not None},
    )
