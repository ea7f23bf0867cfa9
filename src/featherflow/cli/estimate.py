"""`featherflow estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import ESTIMATION, Estimation


def estimate(
    *frames: str,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    picture: Path | None = None,
    scale: float | None = None,
    backward: bool = False,
    occlusion: bool = False,
    estimation: Estimation = ESTIMATION,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Estimate the flow between two frames, or along a folder or glob of frames.

    Example: featherflow estimate frame1.png frame2.png -o flow.flo --picture flow.png

    Example: featherflow estimate "clip/*.png" -o flows/ --picture pictures/ --model dis

    Parameters
    ----------
    frames
        Two image files, or one folder or quoted glob whose images are taken in order of name.
    output
        Flow file: .flo, .png (KITTI), .pfm, .npz, .npy or .flo5. For a folder or glob: a folder, filled with .flo files.
    picture
        Colour picture of the flow (.png), or a folder for a folder or glob.
    scale
        Flow length in pixels that is drawn in full colour; by default the longest of each flow.
    backward
        Also the flow from the second frame to the first, in a file ending in _backward.
    occlusion
        Also a mask of the pixels of the first frame that the second does not show, in a file ending in _occlusion.png.
    json
        Print what was done as JSON.
    """
    from ..jobs import estimate_files
    from .output import show_progress, show_results

    with show_progress("pairs", quiet=json) as progress:
        results = estimate_files(
            frames,
            output,
            picture,
            scale=scale,
            backward=backward,
            occlusion=occlusion,
            **estimation.settings(),
            progress=progress,
        )
    show_results(results, as_json=json)
