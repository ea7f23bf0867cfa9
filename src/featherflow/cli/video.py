"""`featherflow video`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def video(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    view: str = "colour",
    flow_dir: Path | None = None,
    format: str = "flo",
    start: float | None = None,
    end: float | None = None,
    stride: int = 1,
    fps: float | None = None,
    size: str | None = None,
    pixel_format: str = "rgb24",
    scale: float | None = None,
    codec: str | None = None,
    audio: bool = True,
    backward: bool = False,
    occlusion: bool = False,
    model: str | None = None,
    weights: Path | None = None,
    device: str | None = None,
    dtype: str = "auto",
    iterations: int | None = None,
    refine: int = 0,
    enlarge: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show the flow of a clip as a video, and write it as flow files. Ctrl-C keeps what is done.

    Example: featherflow video clip.mp4 -o flow.mp4 --view side-by-side

    Example: featherflow video "frames/*.png" -o flow.mp4 --fps 24 --flow-dir flows/ --format png16 --backward --occlusion

    Example: ffmpeg -i clip.mov -f rawvideo -pix_fmt rgb24 - | featherflow video - --size 1280x720 --fps 30 -o flow.mp4

    Parameters
    ----------
    source
        A video file, a folder or quoted glob of images, a camera's number (0), or - for raw frames on standard input.
    output
        Video to write: .mp4, .mkv or .webm.
    view
        What it shows: colour, arrows, side-by-side or overlay.
    flow_dir
        Folder to write flow files into, named by number of frame.
    format
        Of the flow files: flo, png16 (KITTI), npz, pfm or flo5.
    start
        Second at which to start.
    end
        Second at which to end.
    stride
        Take every so manieth frame.
    fps
        Of a video or camera: take at most so many frames a second, each at its own time. Of images and raw frames: how many are
        shown in a second, 25 by default.
    size
        Size of raw frames, as 640x480.
    pixel_format
        How raw frames store their pixels: rgb24, bgr24, gray, yuv420p, ...
    scale
        Flow length in pixels that is drawn in full colour; by default measured on pairs spread over the clip.
    codec
        vp9, av1, mpeg4 or h264; by default the first of these that is there, but never h264 (its encoder may be under the GPL).
    audio
        Copy the sound of the source, as it is.
    backward
        Also files with the flow from each frame to the one before.
    occlusion
        Also masks of what the next frame does not show; it is black in the video.
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
    from ..video import flow_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = flow_video(
            source, output, view=view, flow_dir=flow_dir, format=format, start=start, end=end, stride=stride, fps=fps, size=size,
            pixel_format=pixel_format, scale=scale, codec=codec, sound=audio, backward=backward, occlusion=occlusion, model=model,
            weights=weights, device=device, dtype=dtype, iterations=iterations, refine=refine, enlarge=enlarge, progress=progress,
        )
    show_results([result], as_json=json)
