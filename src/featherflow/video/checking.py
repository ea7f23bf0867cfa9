"""How steady a clip is: what changes from frame to frame beside the motion, as flicker of an edited clip does."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import FileError, InputError, counted
from ..files import atomic_write
from ..flow import warp_error
from ..inference import Estimator
from ..inference.timing import Stopwatch, said_before
from ..overlap import ahead
from .clips import Clip, Picture
from .cuts import THRESHOLD, check_threshold
from .jobs import DamagedClipError, Step, check_clip_outputs, steps
from .reading import open_clip


@dataclass(frozen=True)
class FrameCheck:
    """How much a frame differs from the next along the motion."""

    frame: int
    time_s: float
    #: Mean squared difference of colours in [0, 1], see `featherflow.flow.warp_error`; None at a cut, or with nothing to compare.
    warp_error: float | None
    #: Share of pixels that were compared: neither occluded nor at motion boundaries.
    compared: float
    #: Whether another scene begins with the next frame, or one of both shows nothing.
    cut: bool


@dataclass(frozen=True)
class ClipCheck:
    """The warp error along a clip (Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018)."""

    source: str
    flow_from: str
    model: str
    width: int
    height: int
    #: Mean over the frames that have one; None if there is none.
    warp_error: float | None
    #: How many frames entered the mean.
    compared_frames: int
    cuts: int
    #: All of it [s], without loading the weights and making an engine ready.
    seconds: float
    frames: tuple[FrameCheck, ...]
    output: str | None = None
    #: Loading the weights, and building or loading an engine for the size [s].
    load_seconds: float = 0.0
    build_seconds: float = 0.0

    def sentence(self) -> str:
        """One line for a person."""
        along = "" if self.flow_from == self.source else f" along the motion of {Path(self.flow_from).name}"
        mean = "no" if self.warp_error is None else f"{self.warp_error:.6f}, mean over {self.compared_frames}"
        cuts = f", {self.cuts} cut{'s' if self.cuts > 1 else ''} left out" if self.cuts else ""
        written = f": {self.output}" if self.output else ""
        before = said_before(self.load_seconds, self.build_seconds)
        return (
            f"{Path(self.source).name}{along}  {self.width}x{self.height} px, {self.model}, "
            f"{before}{self.seconds:.1f} s, warp error {mean} of {len(self.frames)} pairs of frames{cuts}{written}"
        )


def check_clip(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    flow_from: str | os.PathLike[str] | None = None,
    cuts: float = THRESHOLD,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    estimator: Estimator | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> ClipCheck:
    """The warp error of each frame of a clip and the next, with occlusions and motion boundaries masked.

    Args:
        source: the clip, as `open_clip` takes it.
        output: `.csv` with the columns frame, time_s, warp_error, compared, cut.
        flow_from: a clip that shows the same motion, frame by frame: what `source` was made from. Its flows are taken, so that
            flicker that was added cannot pass for motion. Default: `source` itself.
        cuts: likeness below which two frames are two scenes, see `featherflow.video.change`; these are left out. 0: never.
        start, end, fps: as `open_clip`, of both clips.
        estimator: what estimates. Default: `featherflow.Estimator()`.
        progress: called with (frames done, about how many in all or None).

    Raises:
        InputError: for another suffix, clips of different sizes or numbers of frames; others as `open_clip` and `steps`.
        DamagedClipError: for a clip whose end cannot be read; the table then holds all that was measured before.
    """
    if output is not None and Path(output).suffix.lower() != ".csv":
        raise InputError(f"The table is a .csv file, not '{output}'.")
    check_threshold(cuts)
    clip = open_clip(source, start=start, end=end, fps=fps)
    origin = clip if flow_from is None else open_clip(flow_from, start=start, end=end, fps=fps)
    if (clip.width, clip.height) != (origin.width, origin.height):
        sizes = " and ".join(f"'{which.name}' {which.width}x{which.height}" for which in (clip, origin))
        raise InputError(f"Both clips must have one size, but {sizes} have not.")
    for which in (clip, origin):
        check_clip_outputs(which, [("the table", output)], None)
    estimator = Estimator() if estimator is None else estimator
    watch = Stopwatch(estimator.load_seconds)
    total = None if origin.expected is None else max(origin.expected - 1, 1)
    found: list[FrameCheck] = []
    walk = steps(origin, estimator, backward=True, cuts=cuts)
    try:
        for index, (step, first, second) in enumerate(_together(walk, None if origin is clip else clip)):
            found.append(_check(index, step, first, second))
            if progress:
                progress(index + 1, total)
    except FileError as damage:
        if output is None or not found:
            raise
        _write(output, found)
        raise DamagedClipError(
            f"{str(damage).rstrip('.')}; what was made until then is kept: {counted(len(found), 'pair')} of frames in {output}."
        ) from None
    times = watch.read()
    errors = [frame.warp_error for frame in found if frame.warp_error is not None]
    if output is not None:
        _write(output, found)
    return ClipCheck(
        clip.name,
        origin.name,
        estimator.model,
        clip.width,
        clip.height,
        float(np.mean(errors)) if errors else None,
        len(errors),
        sum(frame.cut for frame in found),
        round(times.seconds, 3),
        tuple(found),
        None if output is None else str(output),
        times.load_seconds,
        times.build_seconds,
    )


def _together(walk: Iterator[Step], edited: Clip | None) -> Iterator[tuple[Step, Picture, Picture]]:
    """Each step with the two frames that are compared: its own, or those of an edited clip."""
    if edited is None:
        for step in walk:
            yield step, step.first, step.second
        return
    pictures = iter(ahead(edited))
    first, count = next(pictures, None), 0
    for step in walk:
        count += 1
        second = next(pictures, None)
        if first is None or second is None:
            has = count - (first is None)
            raise InputError(f"'{edited.name}' has {has} frames, but the clip that the flow is taken from has more.")
        yield step, first, second
        first = second
    if next(pictures, None) is not None:
        raise InputError(f"'{edited.name}' has more than the {count + 1} frames of the clip that the flow is taken from.")


def _check(index: int, step: Step, first: Picture, second: Picture) -> FrameCheck:
    error, compared = (float("nan"), 0.0) if step.is_cut else warp_error(first.image, second.image, *step.both())
    return FrameCheck(index, round(float(first.time), 6), None if np.isnan(error) else error, round(compared, 4), step.is_cut)


def _write(output: str | os.PathLike[str], frames: list[FrameCheck]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, asdict(frames[0]), lineterminator="\n")
    writer.writeheader()
    for frame in frames:
        writer.writerow({name: int(value) if isinstance(value, bool) else value for name, value in asdict(frame).items()})
    with atomic_write(output) as file:
        file.write(text.getvalue().encode())
