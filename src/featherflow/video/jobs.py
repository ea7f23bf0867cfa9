"""Whole jobs along clips: a clip in, a video or flow files out, in memory that does not grow with the clip."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, InputError, counted
from ..flow import SMALLEST_MEASURED_SCALE, measured_scale, write_flow
from ..flow import occlusion as find_occlusion
from ..flow.trust import check_confidence, confidence_levels
from ..flow.trust import confidence as find_confidence
from ..images import write_image
from ..inference import Estimator
from ..inference.timing import Stopwatch, said_before
from ..outputs import check_outputs, flow_suffix, make_folder
from ..overlap import ahead, behind
from ..pixels import Range
from .clips import USUAL_COLOUR, Clip, Picture
from .cuts import THRESHOLD, change, check_threshold
from .reading import open_clip
from .views import CONFIDENCE, check_view, draw
from .writing import Pace, Sound, StillsWriter, VideoWriter, check_format, is_numbered, is_silent, video_writer

_log = logging.getLogger(__name__)

_PAIRS_FOR_SCALE = 8
_SMALLEST_FOR_ARROWS = 0.02  # px; arrows are scaled up to be seen, where colours would show noise


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a job along a clip; what was done until then is kept, and the message says where."""


class DamagedClipError(FileError):
    """A clip that could be read in part only; what was done with that part is kept, and the message says where."""


@dataclass(frozen=True)
class VideoJobResult:
    """What was done along a clip."""

    source: str
    model: str
    width: int
    height: int
    #: Pictures written, or flows where no video was asked for.
    frames: int
    #: All of it [s], without loading the weights and making an engine ready; and how many frames that are a second.
    seconds: float
    frames_per_second: float
    output: str | None = None
    codec: str | None = None
    sound: bool = False
    #: Places where the scene changes or a frame shows nothing, for verbs that look for them.
    cuts: int | None = None
    #: Frames that were left out because they repeat the one before, where that was asked for.
    duplicates: int | None = None
    flow_dir: str | None = None
    #: Flow length drawn in full colour [px], at the end of the clip.
    scale_px: float | None = None
    #: Loading the weights, and building or loading an engine for the size [s].
    load_seconds: float = 0.0
    build_seconds: float = 0.0

    def times(self) -> str:
        """What it took, for a person."""
        before = said_before(self.load_seconds, self.build_seconds)
        return f"{before}{self.seconds:.1f} s, {self.frames_per_second:.2f} frames/s"

    def sentence(self) -> str:
        """One line for a person."""
        where = " and ".join(name for name in (self.output, self.flow_dir) if name)
        details = [f"{self.width}x{self.height} px", self.model, self.times()]
        if self.scale_px is not None:
            details.append(f"full colour at {self.scale_px:.1f} px")
        if self.output:
            details.append(f"{self.codec}{' with sound' if self.sound else ''}")
        if self.cuts:
            details.append(counted(self.cuts, "cut"))
        if self.duplicates:
            details.append(f"{counted(self.duplicates, 'repeated frame')} left out")
        return f"{Path(self.source).name} -> {where}: {counted(self.frames, 'frame')}, " + ", ".join(details)


@dataclass(frozen=True)
class Step:
    """Two neighbouring frames of a clip and the flow between them, `(H, W, 2)` [px]."""

    first: Picture
    second: Picture
    flow: np.ndarray
    backward: np.ndarray | None = None
    #: The two are of two scenes, or one shows nothing; nothing can be followed from the one to the other.
    is_cut: bool = False

    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """The flow and that back, of steps that were asked for it."""
        assert self.backward is not None
        return self.flow, self.backward


def steps(
    clip: Clip,
    estimator: Estimator | None = None,
    *,
    backward: bool = False,
    warm_start: bool = False,
    cuts: float = 0.0,
    taken: Iterable[Picture] | None = None,
) -> Iterator[Step]:
    """Flow along a clip; frames are decoded in a thread of their own.

    Args:
        estimator: what estimates. Default: `featherflow.Estimator()`.
        backward, warm_start: as `featherflow.stream`.
        cuts: likeness below which two frames are two scenes, see `change`; their flow is zero, and no flow before a cut starts one
            behind it. 0: never.
        taken: what is taken of the clip. Default: all of it.

    Raises:
        InputError: at once for settings that cannot be used, later for a clip of fewer than two frames; others as `stream`.
    """
    line: deque[Picture] = deque()

    def images():
        for picture in ahead(clip if taken is None else taken):
            line.append(picture)
            yield picture.image

    def walk(flows: Iterator[Any] | None) -> Iterator[Step]:
        any_yet = False
        while flows is not None:
            again = None
            for both in flows:
                any_yet = True
                step = Step(line.popleft(), line[0], *(both if backward else (both,)))
                if cuts > 0 and change(step.first.image, step.second.image, step.flow, cuts).breaks:
                    nothing = np.zeros_like(step.flow)
                    step = replace(step, flow=nothing, backward=nothing if backward else None, is_cut=True)
                    if warm_start:  # what starts from the flow before must not know it
                        again = stream(chain([step.second.image], pictures))
                yield step
                if again is not None:
                    break
            flows = again
        if not any_yet:
            has = "one frame" if line else "no frame"
            raise InputError(f"'{clip.name}' gives {has} for what was asked; two or more are needed.")

    estimator = Estimator() if estimator is None else estimator
    stream = partial(estimator.stream, backward=backward, warm_start=warm_start)
    pictures = images()
    return walk(stream(pictures))


def write_clip(
    clip: Clip,
    items: Iterable[tuple],
    picture: Callable[..., np.ndarray | None],
    output: str | os.PathLike[str] | None,
    *,
    codec: str | None = None,
    crf: int | None = None,
    bits: int | None = None,
    sound: bool = True,
    pace: Pace | None = None,
    hold: Callable[[], Fraction | None] = lambda: None,
    keeps_colour: bool = True,
    fewest: int = 1,
    total: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Written:
    """Make a video from a clip: `items` are computed in this thread, while another draws and writes those before.

    Args:
        clip: what the video keeps the times, the pixels' shape and the sound of.
        items: (time, anything ...) in order of time.
        picture: makes `(H, W, 3)` RGB of what follows the time, in the other thread.
        output: the video; None to run `picture` only.
        codec, crf: as `video_writer`; bits: of a colour, at least; sound: copy it.
        pace: how the times of the pictures follow from the clip's. Default: they are the same.
        hold: at the end, how long the last picture is shown [s]; None: as long as the one before.
        keeps_colour: the pictures have the clip's depth and colours; else they are 8 bit, BT.709.
        fewest: of a damaged clip, so many pictures are worth keeping; of fewer, nothing is kept.
        progress: called with (pictures done, about how many in all or None); total: that number.

    Raises:
        Stopped: after Ctrl-C; DamagedClipError: for a clip whose end cannot be read; the video then holds all that was done before.
        FileError: for what cannot be written, and for a damaged clip of which nothing is kept.
    """
    colour = clip.colour if keeps_colour else USUAL_COLOUR
    colour = replace(colour, bits=max(bits or 0, colour.bits))
    pace = pace or Pace(clip.selection.rate(clip.rate), clip.time_base)
    if output is not None:
        check_format(output, codec, crf, colour)
        if clip.scaled and keeps_colour and (is_numbered(output) or codec == "ffv1"):
            low, high = clip.scaled
            _log.warning("note: '%s' holds numbers from %g to %g, which become 0 to 65535 in '%s'.", clip.name, low, high, output)
    damage: list[FileError] = []
    items = _until_damage(items, damage)
    beginning = list(islice(items, fewest))
    if damage:
        raise damage[0]
    if not beginning:
        raise InputError(f"'{clip.name}' gives no frame for what was asked.")
    first = beginning[0]
    items = chain(beginning, items)
    shift = first[0] if clip.selection.start else Fraction(0)
    result = Written()

    def heard(shift: Fraction) -> Sound | None:
        if not sound or clip.audio is None or output is None or is_silent(output):
            return None
        return Sound(clip.audio, shift / pace.slower, pace.slower)

    with ExitStack() as opened:

        def write(time: Fraction, *what: object) -> None:
            image = picture(*what)
            if output is not None and image is not None:
                if result.writer is None:
                    result.writer = opened.enter_context(
                        video_writer(
                            output,
                            image.shape[1],
                            image.shape[0],
                            pace.rate,
                            pace.time_base,
                            codec,
                            heard(shift),
                            clip.pixel_aspect,
                            crf,
                            colour,
                            clip.metadata,
                        )
                    )
                result.writer.write(image, time - shift)
            result.pictures += 1

        stopped = False
        try:
            with behind(write) as hand_over:
                for item in items:
                    hand_over(*item)
                    if progress:
                        progress(result.pictures, total)
        except KeyboardInterrupt:
            if result.pictures == 0:
                raise
            stopped = True
        if result.writer is not None and not stopped:
            result.writer.hold = hold()
    there = "" if output is None else f": {counted(result.pictures, 'picture')} in {output}"
    kept = f"what was made until then is kept{there}."
    if stopped:
        raise Stopped(f"interrupted; {kept}")
    if damage:
        raise DamagedClipError(f"{str(damage[0]).rstrip('.')}; {kept}")
    return result


@dataclass
class Written:
    """What `write_clip` wrote."""

    pictures: int = 0
    writer: VideoWriter | StillsWriter | None = None

    @property
    def codec(self) -> str | None:
        return self.writer.codec if self.writer else None

    @property
    def sound(self) -> bool:
        return self.writer is not None and self.writer.has_sound


def _until_damage(items: Iterable[tuple], damage: list[FileError]) -> Iterator[tuple]:
    try:
        yield from items
    except FileError as error:
        damage.append(error)


def flow_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    view: str = "colour",
    flow_dir: str | os.PathLike[str] | None = None,
    format: str = "flo",
    start: float | None = None,
    end: float | None = None,
    through: bool = False,
    stride: int = 1,
    fps: float | None = None,
    size: str | None = None,
    pixel_format: str = "rgb24",
    scale: float | None = None,
    codec: str | None = None,
    crf: int | None = None,
    sound: bool = True,
    overwrite: bool = False,
    backward: bool = False,
    occlusion: bool = False,
    confidence: bool = False,
    min_confidence: float | None = None,
    warm_start: bool = False,
    cuts: float = THRESHOLD,
    value_range: Range | None = None,
    estimator: Estimator | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> VideoJobResult:
    """The flow of a clip as a video, as flow files, or both. A clip of N frames gives N - 1.

    Args:
        source, start, end, through, stride, fps, size, pixel_format, value_range: as `open_clip`.
        output: video to write; view: what it shows, a name of `VIEWS`; codec: a name of `CODECS`; crf: its quality; sound: copy it.
        overwrite: let the video take the place of the source.
        flow_dir: folder for flow files, named by number of frame; format: a name of `FLOW_FORMATS`.
        scale: flow length in full colour [px]. Default: measured beforehand on 8 pairs of frames spread over the clip, the longest
            of their 99th percentiles; for cameras and pipes, which cannot be looked at beforehand, that of the clip so far.
        backward: also files with the flow from each frame to the one before; occlusion: also masks of what the next frame does not
            show, which is black in the picture.
        confidence: also write the probability that each pixel's flow is right (`featherflow.flow.confidence`): into the flow
            files if they are npz, else as pictures of 16 bits beside them.
        min_confidence: leave out, as unknown and black in the picture, the flow of pixels with less.
        warm_start: as `featherflow.stream`.
        cuts: likeness below which two frames are two scenes, see `featherflow.video.change`; from the one to the other nothing
            moves, and a warm start ends. 0: never.
        estimator: what estimates. Default: `featherflow.Estimator()`.
        progress: called with (frames done, about how many in all or None).

    Raises:
        InputError, FileError, MissingExtraError: as `open_clip`, `video_writer` and `featherflow.stream`.
        Stopped: after Ctrl-C.
    """
    if output is None and flow_dir is None:
        raise InputError("Nothing would be written: name a video with -o, or a folder for flow files with --flow-dir, or both.")
    for name, asked in (("backward", backward), ("confidence", confidence)):
        if asked and flow_dir is None:
            raise InputError(f"--{name} writes files: name a folder for them with --flow-dir.")
    check_confidence(min_confidence)
    suffix = flow_suffix(format)
    if scale is not None and not scale > 0:
        raise InputError(f"The scale is a positive length in pixels, got {scale}.")
    check_view(view)
    check_threshold(cuts)
    clip = open_clip(
        source,
        start=start,
        end=end,
        through=through,
        stride=stride,
        fps=fps,
        size=size,
        pixel_format=pixel_format,
        value_range=value_range,
    )
    check_clip_outputs(clip, [("the video", output)], overwrite)
    if flow_dir is not None and clip.expected is not None:
        names = [
            f"{k:06d}{part}"
            for k in range(clip.expected)
            for part in (suffix, f"_backward{suffix}", "_occlusion.png", "_confidence.png")
        ]
        check_clip_outputs(clip, [("a flow file", Path(flow_dir) / name) for name in names], None, makes_folders=True)
    if output is not None:
        check_format(output, codec, crf, USUAL_COLOUR)
    estimator = Estimator() if estimator is None else estimator
    trusts = confidence or min_confidence is not None or view == CONFIDENCE
    both = backward or occlusion or trusts
    walk = steps(clip, estimator, backward=both, warm_start=warm_start, cuts=cuts)  # refuses unusable settings
    folder = None if flow_dir is None else make_folder(flow_dir)
    lengths = _Scale(scale, _SMALLEST_FOR_ARROWS if view == "arrows" else SMALLEST_MEASURED_SCALE)
    watch = Stopwatch(estimator.load_seconds)
    if output is not None and scale is None and view != CONFIDENCE:
        with suppress(FileError):  # a clip that is damaged somewhere is followed until there
            for pair in clip.pairs(_PAIRS_FOR_SCALE):
                flow = estimator(*pair)
                if not change(*pair, flow, cuts).breaks:
                    lengths.include(flow)
        lengths.fixed = lengths.value is not None
    found = 0

    def items():
        nonlocal found
        for index, step in enumerate(walk):
            found += step.is_cut
            yield step.first.time, index, step

    def picture(index: int, step: Step) -> np.ndarray | None:
        hidden = trusted = None
        if occlusion:  # behind a cut, nothing of what was is shown
            hidden = np.ones(step.flow.shape[:2], bool) if step.is_cut else find_occlusion(*step.both())
        if trusts:
            trusted = _confidence(step)
        flow = step.flow
        if min_confidence is not None and trusted is not None:
            flow = np.where(trusted[..., None] >= min_confidence, flow, np.float32(np.nan))
        if folder is not None:
            held = confidence and format == "npz"
            write_flow(folder / f"{index:06d}{suffix}", flow, confidence=trusted if held else None)
            if backward:
                write_flow(folder / f"{index:06d}_backward{suffix}", step.both()[1])
            if hidden is not None:
                write_image(folder / f"{index:06d}_occlusion.png", hidden.astype(np.uint8) * 255)
            if trusted is not None and confidence and not held:
                write_image(folder / f"{index:06d}_confidence.png", confidence_levels(trusted))
        if output is None:
            return None
        scale = lengths.include(step.flow)
        flow = flow if hidden is None else np.where(hidden[..., None], np.float32(np.nan), flow)
        return draw(view, step.first.shown, flow, scale, trusted)

    total = None if clip.expected is None else max(clip.expected - 1, 1)
    result = video_job(
        clip,
        items(),
        picture,
        output,
        estimator,
        watch,
        codec=codec,
        crf=crf,
        sound=sound,
        keeps_colour=False,
        total=total,
        progress=progress,
    )
    return replace(
        result,
        cuts=found,
        flow_dir=None if folder is None else str(folder),
        scale_px=None if output is None or view == CONFIDENCE or lengths.value is None else round(lengths.value, 3),
    )


def _confidence(step: Step) -> np.ndarray:
    """Of a step's flow; none across a cut."""
    if step.is_cut:
        return np.zeros(step.flow.shape[:2], np.float32)
    return np.asarray(find_confidence(step.first.image, step.second.image, *step.both()))


def check_clip_outputs(
    clip: Clip,
    outputs: list[tuple[str, str | os.PathLike[str] | None]],
    overwrite: bool | None,
    most: int = 1,
    makes_folders: bool = False,
) -> None:
    """Refuse outputs that would destroy what a clip is read from, or each other, see `check_outputs`.

    Args:
        most: pictures for each frame of the clip, for names that stand for numbered pictures; those never take an input's place.
    """
    single = [(what, path) for what, path in outputs if path is not None and not is_numbered(path) and str(path) != "-"]
    check_outputs(single, clip.files, overwrite, [clip.name], makes_folders=makes_folders)
    for what, path in outputs:
        if path is not None and is_numbered(path):
            count = (clip.expected or 0) * most
            names = [(what, str(path) % number) for number in range(max(count, 1))]
            check_outputs(names, clip.files, None, [clip.name], makes_folders=True)


def video_job(
    clip: Clip,
    items: Iterable[tuple],
    picture: Callable[..., np.ndarray | None],
    output: str | os.PathLike[str] | None,
    estimator: Estimator,
    watch: Stopwatch | None = None,
    **options: Any,
) -> VideoJobResult:
    """`write_clip` with its options, timed; `watch`: of a job that began before."""
    watch = Stopwatch(estimator.load_seconds) if watch is None else watch
    written = write_clip(clip, items, picture, output, **options)
    times = watch.read()
    return VideoJobResult(
        clip.name,
        estimator.model,
        clip.width,
        clip.height,
        written.pictures,
        round(times.seconds, 3),
        round(written.pictures / times.seconds, 3),
        None if output is None else str(output),
        written.codec,
        written.sound,
        load_seconds=times.load_seconds,
        build_seconds=times.build_seconds,
    )


class _Scale:
    """Flow length in full colour [px]: given, measured beforehand, or growing with the clip; `least`: where it is not given."""

    def __init__(self, value: float | None, least: float):
        self.value, self.fixed, self.least = value, value is not None, least

    def include(self, flow: np.ndarray) -> float:
        """The scale, once this flow of the clip is counted."""
        if not self.fixed:
            self.value = max(self.value or 0.0, measured_scale(flow, self.least))
        return self.value or self.least
