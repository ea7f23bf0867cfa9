"""Whole jobs, files in and files out: what the command line, the page and the service have in common."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import FileError, InputError
from .estimation import estimate
from .flow import SUFFIXES, save_flow_picture, write_flow
from .flow import occlusion as find_occlusion
from .frames import image_files, read_image, write_image


@dataclass(frozen=True)
class FlowJobResult:
    """What was done for one pair."""

    frame1: str
    frame2: str
    model: str
    width: int
    height: int
    #: Estimation alone, without reading and writing [s].
    seconds: float
    mean_length_px: float
    max_length_px: float
    flow: str | None = None
    picture: str | None = None
    #: Flow length drawn in full colour [px].
    picture_scale_px: float | None = None
    backward: str | None = None
    occlusion: str | None = None

    def sentence(self) -> str:
        """One line for a person."""
        files = [name for name in (self.flow, self.picture, self.backward, self.occlusion) if name]
        return (
            f"{Path(self.frame1).name} -> {Path(self.frame2).name}  {self.width}x{self.height} px, {self.model}, "
            f"{self.seconds:.2f} s, mean length {self.mean_length_px:.2f} px, longest {self.max_length_px:.1f} px: "
            + ", ".join(files)
        )


def estimate_files(
    frames: Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    *,
    model: str | None = None,
    scale: float | None = None,
    backward: bool = False,
    occlusion: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **settings: object,
) -> list[FlowJobResult]:
    """Flow between image files, written to files.

    Args:
        frames: two image files, or one folder or glob pattern whose images are paired in order of name.
        output: flow file, or a folder where `frames` is a folder or glob (files named after each pair's first frame).
        picture: colour picture of the flow, or a folder likewise; scale: flow length in full colour [px].
        backward: also write the backward flow; occlusion: also write the mask of pixels that frame 2 does not show.
        progress: called with (pairs done, pairs in all).
        settings: weights, device, dtype, iterations, refine, enlarge, engine, tile, octaves, as `featherflow.estimate`.

    Raises:
        InputError: for frames or names that cannot be used; FileError: for files that cannot be read or written.
    """
    pairs, many = _pairs(frames)
    if output is None and picture is None:
        raise InputError("Nothing would be written: name a flow file with -o, or a picture with --picture, or both.")
    if (backward or occlusion) and output is None:
        raise InputError("--backward and --occlusion write beside the flow file: name one with -o.")
    if scale is not None and not scale > 0:
        raise InputError(f"The scale of a picture is a positive length in pixels, got {scale}.")
    for target in (output, picture):
        _check_target(target, many)
    if not many and output is not None and Path(output).suffix.lower() not in SUFFIXES:
        raise InputError(f"'{output}' is no flow file that can be written; its name must end in {', '.join(SUFFIXES)}.")
    results = []
    for index, (path1, path2) in enumerate(pairs):
        if progress:
            progress(index, len(pairs))
        flow_path = _target(output, path1, ".flo", many)
        picture_path = _target(picture, path1, ".png", many)
        frame1, frame2 = read_image(path1), read_image(path2)
        if frame1.shape != frame2.shape:
            sizes = f"{frame1.shape[1]}x{frame1.shape[0]} and {frame2.shape[1]}x{frame2.shape[0]}"
            raise InputError(f"'{path1}' and '{path2}' must have one size, got {sizes}.")
        started = time.perf_counter()
        both = estimate(frame1, frame2, model=model, backward=backward or occlusion, **settings)
        seconds = time.perf_counter() - started
        flow, flow_back = both if backward or occlusion else (both, None)
        results.append(
            _write(path1, path2, flow, flow_back, flow_path, picture_path, scale, backward, occlusion, _name(model), seconds)
        )
    if progress:
        progress(len(pairs), len(pairs))
    return results


def _write(path1, path2, flow, flow_back, flow_path, picture_path, scale, backward, occlusion, model, seconds) -> FlowJobResult:
    written: dict[str, str] = {}
    picture_scale = None
    if flow_path is not None:
        write_flow(flow_path, flow)
        written["flow"] = str(flow_path)
    if picture_path is not None:
        picture_scale = save_flow_picture(picture_path, flow, scale)
        written["picture"] = str(picture_path)
    if backward:
        target = flow_path.with_name(f"{flow_path.stem}_backward{flow_path.suffix}")
        write_flow(target, flow_back)
        written["backward"] = str(target)
    if occlusion:
        target = flow_path.with_name(f"{flow_path.stem}_occlusion.png")
        write_image(target, find_occlusion(flow, flow_back).astype(np.uint8) * 255)
        written["occlusion"] = str(target)
    length = np.hypot(flow[..., 0], flow[..., 1])
    return FlowJobResult(
        str(path1),
        str(path2),
        model,
        flow.shape[1],
        flow.shape[0],
        round(seconds, 4),
        round(float(length.mean()), 4),
        round(float(length.max()), 4),
        picture_scale_px=picture_scale,
        **written,
    )


def _name(model: str | None) -> str:
    from .weights import default_model

    return model or default_model()


def _pairs(frames: Sequence[str | os.PathLike]) -> tuple[list[tuple[Path, Path]], bool]:
    """Pairs of files, and whether they come from a folder or glob."""
    if len(frames) == 2:
        return [(Path(frames[0]), Path(frames[1]))], False
    if len(frames) != 1:
        raise InputError(f"Name two frames, or one folder or quoted glob of frames; got {len(frames)}.")
    return list(itertools.pairwise(image_files(frames[0]))), True


def _check_target(target: str | os.PathLike | None, many: bool) -> None:
    if target is None:
        return
    if many and Path(target).is_file():
        raise FileError(f"'{target}' is a file; many flows are written into a folder.")
    if not many and Path(target).is_dir():
        raise FileError(f"'{target}' is a folder; one flow is written to a file, for example {Path(target) / 'flow.flo'}.")


def _target(folder_or_file: str | os.PathLike | None, frame: Path, suffix: str, many: bool) -> Path | None:
    if folder_or_file is None:
        return None
    path = Path(folder_or_file)
    if not many:
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder '{path}' cannot be made: {error.strerror}.") from None
    return path / f"{frame.stem}{suffix}"
