"""`featherflow tracks`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import CLIP, ESTIMATION, Clip, Estimation
from .writing import WRITING, Writing


def tracks(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[str, Parameter(alias="-o")],
    video: str | None = None,
    point: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    spacing: int = 32,
    cuts: float = 0.65,
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    writing: Writing = WRITING,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Follow points through a clip, into a table of positions and confidences.

    Example: featherflow tracks clip.mp4 -o tracks.csv --video tracks.mp4 --spacing 24

    Example: featherflow tracks clip.mp4 -o tracks.json --point 120.5,80 --point 64,64

    Parameters
    ----------
    source
        A video file, or a folder or quoted glob of images.
    output
        Table to write: .csv (frame, time_s, point, x, y, confidence) or .json.
    video
        Also a video that shows the points and their way.
    point
        A point of the first frame as X,Y in pixels; may be given several times. By default a grid.
    spacing
        Of the grid, in pixels.
    cuts
        How alike two frames are along their flow, from 0 to 1, where there is no cut; below, there is one,
        where all points are lost; 0 finds none.
    json
        Print what was done as JSON.
    """
    from ..transport import points_of, track_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = track_video(
            source,
            output,
            video=video,
            points=points_of(point),
            spacing=spacing,
            cuts=cuts,
            **clip.settings(),
            **writing.settings(),
            estimator=estimation.estimator(),
            progress=progress,
        )
    show_results([result], as_json=json)
