"""Points followed through a clip."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..errors import InputError, counted
from ..files import atomic_write
from ..flow import flow_to_rgb
from ..inference import Estimator
from ..pixels import Range
from ..video import (
    THRESHOLD,
    DamagedClipError,
    Picture,
    Step,
    Stopped,
    VideoJobResult,
    change,
    check_clip_outputs,
    check_threshold,
    open_clip,
    steps,
    video_job,
)

#: `(N, 2)`, x and y [px].
Points: TypeAlias = "Sequence[Sequence[float]] | np.ndarray"

#: A point whose way there and back ends farther from its start is lost (the tolerance of `featherflow.flow.occlusion`).
_ALPHA, _BETA = 0.01, 0.5
_TRAIL = 12  # frames that a drawn track reaches back


@dataclass(frozen=True)
class Tracks:
    """N points through T frames."""

    #: `(T, N, 2)` float64, x and y [px], pixel centres at whole numbers; NaN from where a point is lost on.
    positions: np.ndarray
    #: `(T, N)` in [0, 1]: how well the least certain step so far agreed with the way back; 1 at the start, 0 once lost.
    confidence: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """`(T, N)` boolean: not lost yet."""
        return self.confidence > 0


def grid(width: int, height: int, spacing: int) -> np.ndarray:
    """Points `(N, 2)` on a regular grid, centred in the frame.

    Raises:
        InputError: for a spacing below 1 px.
    """
    if spacing < 1:
        raise InputError(f"The spacing of points is a number of pixels, 1 or more, got {spacing}.")
    x, y = (np.arange((side - 1) % spacing // 2, side, spacing) for side in (width, height))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float64)


def points_of(texts: Sequence[str] | None) -> np.ndarray | None:
    """Points `(N, 2)` written as "X,Y"; None for none.

    Raises:
        InputError: for a text that is no point.
    """
    if not texts:
        return None
    try:
        return np.array([[float(part) for part in text.split(",")] for text in texts]).reshape(len(texts), 2)
    except ValueError:
        raise InputError(f"A point is written as X,Y, for instance 120.5,80; got {' '.join(texts)}.") from None


def track(frames: Iterable, points: Sequence, estimator: Estimator | None = None) -> Tracks:
    """Follow points of the first frame through a clip.

    Each step adds the flow at the point. The backward flow at the place where it ends tells how far the way back misses the
    start; a point is lost, for good, where it misses by more than an occluded pixel would (see `featherflow.flow.occlusion`), and
    where it leaves the frame.

    Args:
        frames: as `featherflow.stream` takes them; points: `(N, 2)`, x and y [px].
        estimator: what estimates. Default: `featherflow.Estimator()`.

    Raises:
        InputError: for points that are none; others as `featherflow.stream`.
    """
    estimator = Estimator() if estimator is None else estimator
    states = list(follow(estimator.stream(frames, backward=True), points))
    return Tracks(np.stack([position for position, _ in states]), np.stack([confidence for _, confidence in states]))


def follow(flows: Iterable[tuple[np.ndarray, np.ndarray]], points: Points) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions `(N, 2)` and confidences `(N,)` of points in each frame, the first included, along flows of both directions."""
    position = np.array(points, dtype=np.float64)
    if position.ndim != 2 or position.shape[1] != 2 or not np.isfinite(position).all():
        raise InputError(f"Points are pairs of finite numbers x, y, (N, 2) in all; got the shape {position.shape}.")
    confidence = np.ones(len(position))
    yield position, confidence
    for flow, backward in flows:
        step = sample(flow, position)
        position = position + step
        returned = sample(backward, position)
        missed = ((step + returned) ** 2).sum(axis=1)
        allowed = _ALPHA * ((step**2).sum(axis=1) + (returned**2).sum(axis=1)) + _BETA
        lost = ~(missed <= allowed)  # so that NaN is lost too
        confidence = np.where(lost, 0, np.minimum(confidence, np.exp(-np.where(lost, 0, missed / allowed))))
        position = np.where(confidence[:, None] > 0, position, np.nan)
        yield position, confidence


def sample(field: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Bilinear values `(N, C)` of a field `(H, W, C)` at places `(N, 2)`; NaN outside the frame."""
    height, width = field.shape[:2]
    x, y = places.T
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = np.where(inside, x, 0), np.where(inside, y, 0)
    left, top = x.astype(int), y.astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    share_x, share_y = (x - left)[:, None], (y - top)[:, None]
    upper = field[top, left] * (1 - share_x) + field[top, right] * share_x
    lower = field[bottom, left] * (1 - share_x) + field[bottom, right] * share_x
    return np.where(inside[:, None], upper * (1 - share_y) + lower * share_y, np.nan)


def track_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    video: str | os.PathLike[str] | None = None,
    points: Points | None = None,
    spacing: int = 32,
    cuts: float = THRESHOLD,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    codec: str | None = None,
    crf: int | None = None,
    sound: bool = True,
    overwrite: bool = False,
    value_range: Range | None = None,
    estimator: Estimator | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> VideoJobResult:
    """Follow points through a clip, into a table and, if asked for, a video that shows them.

    Args:
        output: `.csv` with the columns frame, time_s, point, x, y, confidence, one line for each point in each frame until it is
            lost; or `.json` with the same as lists.
        video: shows each point with its way through the last frames, coloured by direction.
        points: `(N, 2)`, x and y [px]. Default: a grid of this spacing [px].
        cuts: likeness below which two frames are two scenes, see `featherflow.video.change`; all points are lost then. 0: never.
        others: as `featherflow.video.flow_video`.

    Raises:
        InputError: for another suffix or points that are none; others as `featherflow.video.flow_video`.
    """
    kind = _table(output)
    check_threshold(cuts)
    clip = open_clip(source, start=start, end=end, fps=fps, value_range=value_range)
    check_clip_outputs(clip, [("the table", output), ("the video", video)], overwrite)
    estimator = Estimator() if estimator is None else estimator
    places = grid(clip.width, clip.height, spacing) if points is None else _inside(points, clip.width, clip.height)
    found, held = 0, None
    trail: deque[np.ndarray] = deque(maxlen=_TRAIL)
    left = len(places)

    def items():
        nonlocal held
        line: deque[Step] = deque()

        def flows():
            nonlocal found
            for step in steps(clip, estimator, backward=True):
                line.append(step)
                if change(step.first.image, step.second.image, step.flow, cuts).breaks:
                    found += 1
                    nowhere = np.full_like(step.flow, np.nan)
                    yield nowhere, nowhere
                else:
                    yield step.both()

        states = follow(flows(), places)
        state = next(states)
        for index, following in enumerate(states):
            step = line.popleft()
            yield step.first.time, index, step.first, *state
            state = following
        yield step.second.time, index + 1, step.second, *state
        held = step.second.duration

    def picture(index: int, shown: Picture, position: np.ndarray, confidence: np.ndarray) -> np.ndarray | None:
        nonlocal left
        table.add(index, float(shown.time), position, confidence)
        left = int((confidence > 0).sum())
        trail.append(position)
        return draw_tracks(shown.shown, np.stack(trail)) if video is not None else None

    cut_short = None
    with atomic_write(output) as file:
        table = kind(file)
        try:
            result = video_job(
                clip,
                items(),
                picture,
                video,
                estimator,
                codec=codec,
                crf=crf,
                sound=sound,
                hold=lambda: held,
                keeps_colour=False,
                total=clip.expected,
                progress=progress,
            )
            result = replace(result, cuts=found)
        except (Stopped, DamagedClipError) as reason:  # what was done until then is worth keeping
            cut_short = reason
        table.finish()
    if cut_short is not None:
        raise cut_short
    return TracksResult(
        **{field.name: getattr(result, field.name) for field in fields(result)}, table=str(output), points=len(places), left=left
    )


@dataclass(frozen=True)
class TracksResult(VideoJobResult):
    """What was done to follow points; a cut loses them all."""

    table: str = ""
    points: int = 0
    #: Points that were not lost until the end.
    left: int = 0

    def sentence(self) -> str:
        shown = f" and {self.output}" if self.output else ""
        cuts = f" ({counted(self.cuts, 'cut')}, at each of which all are lost)" if self.cuts else ""
        return (
            f"{Path(self.source).name} -> {self.table}{shown}: {counted(self.points, 'point')} through "
            f"{counted(self.frames, 'frame')}, {self.left} to the end{cuts}, {self.model}, {self.times()}"
        )


def _inside(points: Points, width: int, height: int) -> np.ndarray:
    """The same points.

    Raises:
        InputError: for one outside the frame, which could not be followed anywhere.
    """
    places = np.array(points, dtype=np.float64).reshape(-1, 2)
    for x, y in places:
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            raise InputError(
                f"The point {x:g},{y:g} lies outside of the frame, whose pixels reach from 0,0 to {width - 1},{height - 1}."
            )
    return places


def draw_tracks(image: np.ndarray, trail: np.ndarray) -> np.ndarray:
    """A frame `(H, W, 3)` uint8 with points and their way: trail `(T, N, 2)` [px], the last being now; lost ones are left out."""
    from PIL import Image, ImageDraw

    fine = 2  # drawn larger and scaled down, for smooth edges
    canvas = Image.fromarray(image).resize((image.shape[1] * fine, image.shape[0] * fine), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(canvas)
    radius = max(image.shape[:2]) / 300 * fine
    way = np.nan_to_num(trail[-1] - trail[0])
    hues = flow_to_rgb((way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1))[None].astype(np.float32), 1.0)[0]
    for points, hue in zip((trail + 0.5).transpose(1, 0, 2) * fine, hues, strict=True):
        if not np.isfinite(points[-1]).all():
            continue
        ink = tuple(int(c) for c in hue)
        if len(points) > 1:
            pen.line([tuple(point) for point in points], fill=ink, width=max(round(radius), 1))
        pen.ellipse([*(points[-1] - radius), *(points[-1] + radius)], fill=ink, outline=(0, 0, 0))
    return np.asarray(canvas.resize((image.shape[1], image.shape[0]), Image.Resampling.BOX)).copy()


class _Csv:
    """One line for each point in each frame."""

    def __init__(self, file):
        self.file = file
        self.file.write(b"frame,time_s,point,x,y,confidence\n")

    def add(self, index: int, time: float, position: np.ndarray, confidence: np.ndarray) -> None:
        for point in np.flatnonzero(confidence > 0):
            x, y = position[point]
            self.file.write(f"{index},{time:.6f},{point},{x:.4f},{y:.4f},{confidence[point]:.4f}\n".encode())

    def finish(self) -> None:
        pass


class _Json:
    """A list with an object for each frame, its points as [point, x, y, confidence]."""

    def __init__(self, file):
        self.file, self.before = file, b"[\n"

    def add(self, index: int, time: float, position: np.ndarray, confidence: np.ndarray) -> None:
        points = [
            [int(k), round(float(position[k, 0]), 4), round(float(position[k, 1]), 4), round(float(confidence[k]), 4)]
            for k in np.flatnonzero(confidence > 0)
        ]
        self.file.write(self.before + json.dumps({"frame": index, "time_s": time, "points": points}).encode())
        self.before = b",\n"

    def finish(self) -> None:
        self.file.write(b"\n]\n")


def _table(path: str | os.PathLike[str]):
    """The kind of table that a file name asks for."""
    kinds = {".csv": _Csv, ".json": _Json}
    if Path(path).suffix.lower() not in kinds:
        raise InputError(f"'{path}' is no table that can be written; its name must end in {' or '.join(kinds)}.")
    return kinds[Path(path).suffix.lower()]
