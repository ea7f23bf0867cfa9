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
    to_fps: str | None = None,
    factor: int | None = None,
    slower: str = "1",
    stretch_sound: Annotated[bool, Parameter(negative="")] = False,
    duplicates: Annotated[bool, Parameter(negative="")] = False,
    cuts: float = 0.65,
    bits: int | None = None,
    also: str = "auto",
    size: str | None = None,
    pixel_format: str = "rgb24",
    estimation: Estimation = ESTIMATION,
    clip: Clip = CLIP,
    writing: Writing = WRITING,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Give a clip another number of pictures a second, or make it slower. Ctrl-C keeps what is done.

    Example: featherflow interpolate clip.mp4 -o smooth.mp4 --to-fps 60

    Example: featherflow interpolate clip.mp4 -o slow.mp4 --slower 4

    Parameters
    ----------
    source
        A video file, a folder or quoted glob of images, a camera's number, or - for frames on standard input: YUV4MPEG2, or raw
        with --size.
    output
        Video to write: .mp4, .mkv, .webm or .mov (ProRes); - for frames on standard output (YUV4MPEG2); or numbered PNG files,
        e.g. out/%06d.png.
    to_fps
        So many pictures a second, at even times: any number, 60000/1001, or 59.94, which means the same. Sound and duration stay.
    factor
        So many pictures for each one there is, 2 to 64, at times between theirs; by default 2, where neither --to-fps nor --slower
        is given.
    slower
        Slow motion: the clip takes so many times as long, with as many pictures a second as it has or --to-fps says. The sound is
        left out.
    stretch_sound
        Stretch the sound with --slower, at its pitch.
    duplicates
        Leave out frames that repeat the one before, as pulldown makes them (24 a second in 30 or 60), and interpolate across them.
    cuts
        How alike two frames are along their flow, from 0 to 1, where there is no cut; below, there is one,
        where the nearer one is repeated; 0 finds none.
    bits
        10: write a clip of 8 bit in 10, with --codec av1, prores or ffv1, or on standard output.
    also
        A method whose motion is taken where the frames fit it clearly better: small and thin things that move fast. By default dis,
        where OpenCV is there and the model is a network; none for none.
    size
        Of raw frames, as in 640x480.
    pixel_format
        Of raw frames: FFmpeg's name of how pixels are stored.
    json
        Print what was done as JSON.
    """
    from ..transport import interpolate_video
    from .output import show_progress, show_results

    with show_progress("frames", quiet=json) as progress:
        result = interpolate_video(
            source,
            output,
            to_fps=to_fps,
            factor=factor,
            slower=slower,
            stretch_sound=stretch_sound,
            duplicates=duplicates,
            cuts=cuts,
            bits=bits,
            size=size,
            pixel_format=pixel_format,
            **clip.settings(),
            **writing.settings(),
            estimator=estimation.estimator(),
            also=also,
            progress=progress,
        )
    show_results([result], as_json=json, to_error=str(output) == "-")
