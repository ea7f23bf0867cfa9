"""`featherflow video`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import CLIP, ESTIMATION, Clip, Estimation
from .writing import WRITING, Writing


def video(
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    output: Annotated[str | None, Parameter(alias="-o", allow_leading_hyphen=True)] = None,
    view: str = "colour",
    flow_dir: Path | None = None,
    format: str = "flo",
    stride: int = 1,
    size: str | None = None,
    pixel_format: str = "rgb24",
    scale: float | None = None,
    backward: bool = False,
    occlusion: bool = False,
    confidence: bool = False,
    min_confidence: float | None = None,
    warm_start: bool = False,
    cuts: float = 0.65,
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    writing: Writing = WRITING,
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
        Video to write: .mp4, .mkv, .webm or .mov (ProRes); - for frames on standard output (YUV4MPEG2); or numbered PNG files,
        e.g. out/%06d.png.
    view
        What it shows: colour, arrows, side-by-side, overlay, or confidence (frames in grey, yellow to red where the flow is not
        to be trusted).
    flow_dir
        Folder to write flow files into, named by number of frame.
    format
        Of the flow files: flo, png16 (KITTI), npz, pfm, flo5 or exr.
    stride
        Take one frame of so many.
    size
        Size of raw frames, as 640x480.
    pixel_format
        How raw frames store their pixels: rgb24, bgr24, gray, yuv420p, ...
    scale
        Flow length in pixels that is drawn in full colour; by default measured on pairs spread over the clip.
    backward
        Also files with the flow from each frame to the one before.
    occlusion
        Also masks of what the next frame does not show; it is black in the video.
    confidence
        Also the probability, 0 to 1, that each pixel's flow is right to 1 px or 5 %: in npz files under that name, else as 16-bit
        pictures.
    min_confidence
        Leave out, as unknown and black in the video, the flow of pixels of less confidence.
    warm_start
        Start each pair of frames from the flow of the pair before, carried along itself. For networks that update a flow (raft,
        flowformer, ...).
    cuts
        How alike two frames are along their flow, from 0 to 1, where there is no cut; below, there is one,
        over which nothing moves; 0 finds none.
    json
        Print what was done as JSON.
    """
    from ..video import flow_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = flow_video(
            source,
            output,
            view=view,
            flow_dir=flow_dir,
            format=format,
            stride=stride,
            size=size,
            pixel_format=pixel_format,
            scale=scale,
            backward=backward,
            occlusion=occlusion,
            confidence=confidence,
            min_confidence=min_confidence,
            warm_start=warm_start,
            cuts=cuts,
            **clip.settings(),
            **writing.settings(),
            estimator=estimation.estimator(),
            progress=progress,
        )
    show_results([result], as_json=json, to_error=str(output) == "-")
