"""`featherflow interpolate`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import CLIP, ESTIMATION, Clip, Estimation
from .writing import WRITING, Writing


def interpolate(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[str, Parameter(alias="-o", allow_leading_hyphen=True)],
    factor: int = 2,
    cuts: float = 0.65,
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    writing: Writing = WRITING,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Give a clip more pictures a second, so that it moves more smoothly or can be slowed down. Ctrl-C keeps what is done.

    Example: featherflow interpolate clip.mp4 -o smooth.mp4 --factor 4

    Parameters
    ----------
    source
        A video file, or a folder or quoted glob of images.
    output
        Video to write: .mp4, .mkv, .webm or .mov (ProRes); - for frames on standard output (YUV4MPEG2); or numbered PNG files,
        e.g. out/%06d.png.
    factor
        So many pictures for each one there is: 2, 4 or 8.
    cuts
        How alike two frames are along their flow, from 0 to 1, where there is no cut; below, there is one,
        where the nearer one is repeated; 0 finds none.
    json
        Print what was done as JSON.
    """
    from ..transport import interpolate_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = interpolate_video(
            source,
            output,
            factor=factor,
            cuts=cuts,
            **clip.settings(),
            **writing.settings(),
            estimator=estimation.estimator(),
            progress=progress,
        )
    show_results([result], as_json=json, to_error=str(output) == "-")
