"""`featherflow magnify`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import CLIP, ESTIMATION, Clip, Estimation
from .writing import WRITING, Writing


def magnify(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[str, Parameter(alias="-o", allow_leading_hyphen=True)],
    factor: float = 5.0,
    limit: float = 40.0,
    band: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    cuts: float = 0.65,
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    writing: Writing = WRITING,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make small motions visible: what has moved since the first frame moves several times as far. Needs a still camera.

    Example: featherflow magnify beam.mp4 -o larger.mp4 --factor 10

    Parameters
    ----------
    source
        A video file, or a folder or quoted glob of images.
    output
        Video to write: .mp4, .mkv, .webm or .mov (ProRes); - for frames on standard output (YUV4MPEG2); or numbered PNG files,
        e.g. out/%06d.png.
    factor
        How many times as far.
    limit
        How far anything is carried at most, in pixels; farther, pictures tear.
    band
        LOW,HIGH: make larger only what moves to and fro between so many times a second, e.g. 0.5,3 for breath and pulse.
    cuts
        How alike two frames are along their flow, from 0 to 1, where there is no cut; below, there is one,
        where motion is counted anew; 0 finds none.
    json
        Print what was done as JSON.
    """
    from ..transport import magnify_video
    from .output import parse_range, show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = magnify_video(
            source,
            output,
            factor=factor,
            limit=limit,
            band=parse_range(band, "band", "0.5,3"),
            cuts=cuts,
            **clip.settings(),
            **writing.settings(),
            estimator=estimation.estimator(),
            progress=progress,
        )
    show_results([result], as_json=json, to_error=str(output) == "-")
