"""`featherflow stabilise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import CLIP, ESTIMATION, Clip, Estimation


def stabilise(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    smoothness: float = 1.0,
    crop: float = 0.2,
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Take the shaking of the camera out of a clip. It is read twice: once for the motion, once for the pictures.

    Example: featherflow stabilise shaky.mp4 -o steady.mp4 --smoothness 2

    Parameters
    ----------
    source
        A video file, or a folder or quoted glob of images.
    output
        Video to write: .mp4, .mkv or .webm.
    smoothness
        Over how many seconds the camera's path is smoothed (the standard deviation of the weights).
    crop
        The most that may be lost of width and height to hide the borders; where more would be, the path is smoothed less.
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
            **clip.settings(),
            **estimation.settings(),
            progress=progress,
        )
    show_results([result], as_json=json)
