"""`featherflow check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import ESTIMATION, Estimation


def check(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    flow_from: str | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    cuts: float = 0.65,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    estimation: Estimation = ESTIMATION,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure how steady a clip is: the warp error of each frame and the next, with occlusions masked.

    Example: featherflow check clip.mp4 -o check.csv

    Example: featherflow check edited.mp4 --flow-from original.mp4

    Parameters
    ----------
    source
        A video file, or a folder or quoted glob of images.
    flow_from
        The clip that it was made from, frame by frame: motion and occlusions are taken from it.
    output
        Table to write (.csv: frame, time_s, warp_error, compared, cut); without it, the table is printed.
    cuts
        How alike two frames are along their flow, from 0 to 1, where there is no cut; below, they are left out; 0 finds none.
    start
        Second at which to start.
    end
        Second at which to end.
    fps
        Take at most so many frames a second of a video; of images, how many are shown in a second, 25 by default.
    json
        Print all figures as JSON.
    """
    from ..video import check_clip
    from .output import print_table, show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = check_clip(
            source,
            output,
            flow_from=flow_from,
            cuts=cuts,
            start=start,
            end=end,
            fps=fps,
            estimator=estimation.estimator(),
            progress=progress,
        )
    if output is None and not json:
        rows = [
            [
                str(frame.frame),
                f"{frame.time_s:.3f}",
                "cut" if frame.cut else "" if frame.warp_error is None else f"{frame.warp_error:.6f}",
                f"{100 * frame.compared:.1f} %",
            ]
            for frame in result.frames
        ]
        print_table(["frame", "time [s]", "warp error", "compared"], rows)
    show_results([result], as_json=json)
