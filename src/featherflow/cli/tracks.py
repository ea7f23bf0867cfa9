"""`featherflow tracks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def tracks(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    video: Path | None = None,
    point: list[str] | None = None,
    spacing: int = 32,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    codec: str | None = None,
    audio: bool = True,
    model: str | None = None,
    weights: Path | None = None,
    device: str | None = None,
    dtype: str = "auto",
    iterations: int | None = None,
    refine: int = 0,
    enlarge: float | None = None,
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
    start
        Second at which to start.
    end
        Second at which to end.
    fps
        Of a video: take at most so many frames a second. Of images: how many are shown in a second, 25 by default.
    codec
        vp9, av1, mpeg4 or h264; by default the first of these that is there, but never h264 (its encoder may be under the GPL).
    audio
        Copy the sound of the source, as it is.
    model
        A network (liteflownet2, liteflownet2:tag) or a classical method (brox, tv-l1, dis, farneback, ...).
    weights
        A .safetensors file to use in place of the model's own weights.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    dtype
        Arithmetic of the convolutions: auto, float32, bfloat16 or float16.
    iterations
        Number of updates of a network that iterates (raft, flowformer, ...); by default the network's own.
    refine
        Steps of variational refinement at full size after the estimate.
    enlarge
        Factor by which the network sees the frames enlarged.
    json
        Print what was done as JSON.
    """
    from ..transport import points_of, track_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = track_video(
            source, output, video=video, points=points_of(point), spacing=spacing, start=start, end=end, fps=fps, codec=codec,
            sound=audio, model=model, weights=weights, device=device, dtype=dtype, iterations=iterations, refine=refine,
            enlarge=enlarge, progress=progress,
        )
    show_results([result], as_json=json)
