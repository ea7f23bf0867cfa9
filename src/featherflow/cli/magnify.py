"""`featherflow magnify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import CLIP, ESTIMATION, Clip, Estimation


def magnify(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    factor: float = 5.0,
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make small motions visible: what has moved since the first frame moves several times as far. Needs a still camera.

    Example: featherflow magnify beam.mp4 -o larger.mp4 --factor 10

    Parameters
    ----------
    source
        A video file, or a folder or quoted glob of images.
    output
        Video to write: .mp4, .mkv or .webm.
    factor
        How many times as far.
    json
        Print what was done as JSON.
    """
    from ..transport import magnify_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = magnify_video(source, output, factor=factor, **clip.settings(), **estimation.settings(), progress=progress)
    show_results([result], as_json=json)
