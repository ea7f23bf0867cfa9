"""`featherflow stabilise`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import CLIP, ESTIMATION, Clip, Estimation
from .writing import WRITING, Writing


def stabilise(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[str, Parameter(alias="-o", allow_leading_hyphen=True)],
    smoothness: float = 1.0,
    crop: float = 0.2,
    cuts: float = 0.65,
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    writing: Writing = WRITING,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Take the shaking of the camera out of a clip. It is read twice: once for the motion, once for the pictures.

    Example: featherflow stabilise shaky.mp4 -o steady.mp4 --smoothness 2

    Parameters
    ----------
    source
        A video file, or a folder or quoted glob of images.
    output
        Video to write: .mp4, .mkv, .webm or .mov (ProRes); - for frames on standard output (YUV4MPEG2); or numbered PNG files,
        e.g. out/%06d.png.
    smoothness
        Over how many seconds the camera's path is smoothed (the standard deviation of the weights).
    crop
        The most that may be lost of width and height to hide the borders; where more would be, the path is smoothed less.
    cuts
        How alike two frames are along their flow, from 0 to 1, where there is no cut; below, there is one,
        where a new path begins; 0 finds none.
    json
        Print what was done as JSON.
    """
    from ..transport import stabilise_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = stabilise_video(
            source,
            output,
            smoothness=smoothness,
            crop=crop,
            cuts=cuts,
            **clip.settings(),
            **writing.settings(),
            estimator=estimation.estimator(),
            progress=progress,
        )
    show_results([result], as_json=json, to_error=str(output) == "-")
