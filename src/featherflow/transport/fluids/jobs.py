"""From particle images to velocity fields: one pair in memory, or many in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import FileError, InputError
from ...flow import forward_backward_consistency
from ...flow.fields import as_field, as_mask
from ...images import read_frames, read_image
from ...inference.estimator import Estimator, kept_estimator
from ...inference.timing import Stopwatch, Times, said_before
from ...outputs import check_outputs
from ...pairs import FramePair, find_pairs, folders_of
from ...pixels import Range, check_range
from .field import Calibration, Kind, VelocityField, calibrated, on_grid
from .pictures import check_picture, draw_quiver, draw_vorticity
from .validation import Validation, filled, rejected
from .writing import SUFFIXES_OF_ALL, check_suffix, write_field, write_netcdf

PIXELS = Calibration()
USUAL = Validation()
REFINE = 2  # steps, by which particle images gain
SPACING = 4  # px; what a flow resolves of turbulence is lost in larger squares


@dataclass(frozen=True)
class PairResult:
    """What was done for one pair."""

    frame1: str
    frame2: str
    time_s: float | None
    #: Columns and rows of the grid.
    nx: int
    ny: int
    measured: int
    replaced: int
    rejected: int
    masked: int
    velocity_unit: str
    mean_speed: float | None
    max_speed: float | None
    rate_unit: str
    #: Root mean square.
    vorticity_rms: float | None
    divergence_rms: float | None
    #: Estimation alone [s], without reading, writing, loading the weights or building an engine.
    seconds: float
    files: tuple[str, ...]
    #: Before the first pair, and 0 for the others: loading the weights, and building or loading an engine for the size [s].
    load_seconds: float = 0.0
    build_seconds: float = 0.0

    def sentence(self) -> str:
        """One line for a person."""
        kinds = (("replaced", self.replaced), ("rejected", self.rejected), ("masked", self.masked))
        others = "".join(f", {count} {name}" for name, count in kinds if count)
        speed = "no velocity" if self.mean_speed is None else f"mean speed {self.mean_speed:.4g}, largest {self.max_speed:.4g}"
        before = said_before(self.load_seconds, self.build_seconds)
        return (
            f"{Path(self.frame1).name} -> {Path(self.frame2).name}  {self.nx}x{self.ny} points{others}; {speed} "
            f"{self.velocity_unit}, {before}{self.seconds:.2f} s: {', '.join(self.files)}"
        )


def measure(
    frame1,
    frame2,
    *,
    calibration: Calibration = PIXELS,
    spacing: int = SPACING,
    mask=None,
    validation: Validation = USUAL,
    estimator: Estimator | None = None,
) -> VelocityField:
    """The velocities between two particle images.

    Args:
        frame1, frame2: as `featherflow.estimate` takes them.
        calibration: time, scale and axes. Default: pixels and frames, y up.
        spacing: of the grid [px], see `on_grid`.
        mask: `(H, W)`, true where nothing is to be measured: walls, bodies, reflections.
        validation: what velocities are held against.
        estimator: what estimates the flow. Default: `featherflow.Estimator(refine=2)`.

    Raises:
        InputError: for frames or options that cannot be used; FileError: for files that cannot be read.
    """
    flow, back = _flows(frame1, frame2, validation, estimator or kept_estimator(refine=REFINE))
    return from_flow(flow, calibration=calibration, spacing=spacing, mask=mask, validation=validation, backward=back)


def _flows(frame1, frame2, validation: Validation, estimator: Estimator) -> tuple:
    """The flow, and the backward flow where it is needed."""
    return estimator.both(frame1, frame2) if validation.max_disagreement is not None else (estimator(frame1, frame2), None)


def from_flow(
    flow,
    *,
    calibration: Calibration = PIXELS,
    spacing: int = SPACING,
    mask=None,
    validation: Validation = USUAL,
    backward=None,
) -> VelocityField:
    """The velocities that a flow between two frames says, `(H, W, 2)` or a tensor `(2, H, W)` [px], of whatever origin.

    Args: as `measure`; backward: the flow from frame 2 to frame 1, which `validation.max_disagreement` needs.
    """
    field = as_field(flow, dtype=np.float64)
    height = field.shape[0]
    if validation.max_disagreement is not None:
        if backward is None:
            raise InputError("A largest disagreement of there and back needs the backward flow.")
        with np.errstate(invalid="ignore"):  # what leaves the frame has no way back, and is not judged
            apart = forward_backward_consistency(field, backward) > validation.max_disagreement
        field = np.where(apart[..., None], np.nan, field)
    grid, x, y = on_grid(field, spacing, mask)
    kind = np.where(np.isnan(grid[..., 0]), Kind.REJECTED, Kind.MEASURED)
    masked = np.zeros(kind.shape, bool)
    if mask is not None:
        masked = np.isnan(on_grid(np.zeros_like(field), spacing, mask)[0][..., 0])
    kind[masked] = Kind.MASKED
    kind[rejected(grid, validation, calibration.velocity_per_px, -1.0 if calibration.y_up else 1.0) & ~masked] = Kind.REJECTED
    holes = kind == Kind.REJECTED
    grid[holes] = np.nan
    if validation.replace and holes.any():
        grid = np.stack([filled(grid[..., k], holes) for k in (0, 1)], axis=-1)
        kind[holes & ~np.isnan(grid[..., 0])] = Kind.REPLACED
    return calibrated(grid, x, y, kind, height, calibration)


def measure_files(
    sources: Sequence[str | os.PathLike[str]],
    outputs: Sequence[str | os.PathLike[str]] = (),
    *,
    quiver: str | os.PathLike[str] | None = None,
    vorticity: str | os.PathLike[str] | None = None,
    pairing: str = "auto",
    mask: str | os.PathLike[str] | None = None,
    calibration: Calibration = PIXELS,
    spacing: int = SPACING,
    validation: Validation = USUAL,
    value_range: Range | None = None,
    estimator: Estimator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[PairResult]:
    """The velocities of pairs of image files, written to files.

    Args:
        sources, pairing: see `find_pairs`.
        outputs: `.csv` and `.vti`, one file for each pair, and `.nc`, one for all. Files of one of several pairs are numbered
            (`field_0000.csv`, ...).
        quiver, vorticity: figures of arrows and of vorticity, `.png`, `.svg` or `.pdf`, numbered likewise.
        mask: image that is black (darker than half) where nothing is to be measured; a list may name one for each pair beside it.
        value_range: the numbers that are black and white in pictures deeper than 8 bit.
        calibration, spacing, validation, estimator: see `measure`.
        progress: called with (pairs done, pairs in all).

    Raises:
        InputError: for frames, names or options that cannot be used; FileError: for files that cannot be read or written.
    """
    pairs = find_pairs(sources, pairing)
    if not outputs and quiver is None and vorticity is None:
        raise InputError(
            "Nothing would be written: name a .csv, .nc or .vti file with -o, or a figure with --quiver or --vorticity."
        )
    check_range(value_range)
    of_one = [path for path in outputs if check_suffix(path) not in SUFFIXES_OF_ALL]
    of_all = [path for path in outputs if check_suffix(path) in SUFFIXES_OF_ALL]
    for figure in (quiver, vorticity):
        if figure is not None:
            check_picture(figure)
    plans = [_Plan.of(of_one, quiver, vorticity, index if len(pairs) > 1 else None) for index in range(len(pairs))]
    written = [("the file of all pairs", path) for path in of_all] + [entry for plan in plans for entry in plan.named()]
    masks = [pair.mask or mask for pair in pairs]
    read = [still.path for pair in pairs for still in (pair.first, pair.second)] + [path for path in masks if path is not None]
    named = [("the velocities", path) for path in of_one] + [("the arrows", quiver), ("the vorticity", vorticity)]
    check_outputs(named, sources, overwrite=None)  # a list may be the name by which numbered files are asked for
    check_outputs(written, [*read, *sources], overwrite=None, sequences=folders_of(sources))
    for path in read:
        if not os.path.exists(path):  # of thousands of pairs, not first when its turn comes
            raise FileError(f"There is no image file '{path}'.")
    estimator = estimator or kept_estimator(refine=REFINE)
    fields: list[VelocityField] = []
    results = []
    for index, (pair, plan) in enumerate(zip(pairs, plans, strict=True)):
        if progress:
            progress(index, len(pairs))
        field, times = _measure_pair(pair, masks[index], value_range, calibration, spacing, validation, estimator)
        if of_all:
            if fields and fields[0].u.shape != field.u.shape:
                raise InputError(f"'{pair.first}' is of another size than the frames before it; {of_all[0]} holds one grid.")
            fields.append(field)
        for path in plan.fields:
            write_field(path, field)
        if plan.quiver is not None:
            draw_quiver(plan.quiver, field)
        if plan.vorticity is not None:
            draw_vorticity(plan.vorticity, field)
        times = replace(times, load_seconds=0.0 if results else round(estimator.load_seconds, 4))
        results.append(_result(pair, field, times, [path for _, path in plan.named()] + of_all))
    times = [pair.time for pair in pairs if pair.time is not None]
    for path in of_all:
        names = [f"{pair.first} {pair.second}" for pair in pairs]
        write_netcdf(path, fields, times if len(times) == len(pairs) else None, names)
    if progress:
        progress(len(pairs), len(pairs))
    return results


@dataclass(frozen=True)
class _Plan:
    """Where what is made of one pair goes."""

    fields: tuple[Path, ...]
    quiver: Path | None
    vorticity: Path | None

    @classmethod
    def of(cls, fields, quiver, vorticity, index: int | None) -> _Plan:
        def numbered(path) -> Path | None:
            if path is None or index is None:
                return None if path is None else Path(path)
            return Path(path).with_name(f"{Path(path).stem}_{index:04d}{Path(path).suffix}")

        return cls(tuple(path for path in map(numbered, fields) if path is not None), numbered(quiver), numbered(vorticity))

    def named(self) -> list[tuple[str, Path]]:
        named = [("the velocities", path) for path in self.fields]
        return named + [(what, path) for what, path in (("the arrows", self.quiver), ("the vorticity", self.vorticity)) if path]


def _measure_pair(
    pair: FramePair,
    mask: str | os.PathLike[str] | None,
    value_range: Range | None,
    calibration: Calibration,
    spacing: int,
    validation: Validation,
    estimator: Estimator,
) -> tuple[VelocityField, Times]:
    """The velocities of a pair, and what their estimation took."""
    frame1, frame2 = read_frames([pair.first, pair.second], value_range)
    if frame1.shape != frame2.shape:
        sizes = f"{frame1.shape[1]}x{frame1.shape[0]} and {frame2.shape[1]}x{frame2.shape[0]}"
        raise InputError(f"'{pair.first}' and '{pair.second}' must have one size, got {sizes}.")
    covered = None
    if mask is not None:
        covered = as_mask(read_image(mask).max(axis=-1) < 128, frame1.shape[:2], f"the mask '{mask}'")
        if covered.all():
            raise InputError(f"The mask '{mask}' leaves nothing to be measured: all of it is darker than half of 255.")
    watch = Stopwatch()
    flow, back = _flows(frame1, frame2, validation, estimator)
    times = watch.read()
    field = from_flow(flow, calibration=calibration, spacing=spacing, mask=covered, validation=validation, backward=back)
    return field, times


def _result(pair: FramePair, field: VelocityField, times: Times, files: Sequence[str | os.PathLike[str]]) -> PairResult:
    def figure(values: np.ndarray, summary: Callable) -> float | None:
        known = values[~np.isnan(values)]
        return float(f"{summary(known):.6g}") if known.size else None

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt((values**2).mean()))

    ny, nx = field.u.shape
    return PairResult(
        frame1=str(pair.first),
        frame2=str(pair.second),
        time_s=pair.time,
        nx=nx,
        ny=ny,
        measured=field.count(Kind.MEASURED),
        replaced=field.count(Kind.REPLACED),
        rejected=field.count(Kind.REJECTED),
        masked=field.count(Kind.MASKED),
        velocity_unit=field.calibration.velocity_unit,
        mean_speed=figure(field.speed, np.mean),
        max_speed=figure(field.speed, np.max),
        rate_unit=field.calibration.rate_unit,
        vorticity_rms=figure(field.vorticity, rms),
        divergence_rms=figure(field.divergence, rms),
        seconds=times.seconds,
        files=tuple(str(path) for path in files),
        load_seconds=times.load_seconds,
        build_seconds=times.build_seconds,
    )
