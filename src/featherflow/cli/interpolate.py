"""`featherflow interpolate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import CLIP, ESTIMATION, Clip, Estimation


def interpolate(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    factor: int = 2,
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Give a clip more pictures a second, so that it moves more smoothly or can be slowed down. Ctrl-C keeps what is done.

    Example: featherflow interpolate clip.mp4 -o smooth.mp4 --factor 4

    Parameters
    ----------
    source
        A video file, or a folder or quoted glob of images.
    output
        Video to write: .mp4, .mkv or .webm.
    factor
        So many pictures for each one there is: 2, 4 or 8.
    json
        Print what was done as JSON.
    """
    from ..transport import interpolate_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = interpolate_video(source, output, factor=factor, **clip.settings(), **estimation.settings(), progress=progress)
    show_results([result], as_json=json)
