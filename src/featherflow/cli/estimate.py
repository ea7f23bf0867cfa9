"""`featherflow estimate`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import ESTIMATION, Estimation


def estimate(
    *frames: str,
    output: Annotated[str | None, Parameter(alias="-o")] = None,
    picture: str | None = None,
    pairs: str | None = None,
    pairing: str = "auto",
    scale: float | None = None,
    legend: Annotated[bool, Parameter(negative="")] = False,
    backward: bool = False,
    occlusion: bool = False,
    confidence: bool = False,
    min_confidence: float | None = None,
    format: str | None = None,
    range: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    skip_existing: Annotated[bool, Parameter(negative="")] = False,
    keep_going: Annotated[bool, Parameter(negative="")] = False,
    summary: str | None = None,
    estimation: Estimation = ESTIMATION,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Estimate the flow between two frames, along a folder or glob of frames, or for a list of pairs.

    Example: featherflow estimate frame1.png frame2.png -o flow.flo --picture flow.png

    Example: featherflow estimate "clip/*.png" -o flows/ --picture pictures/ --model dis

    Example: featherflow estimate --pairs pairs.csv -o flows/ --format npz --skip-existing --keep-going --summary done.jsonl

    Parameters
    ----------
    frames
        Two image files; or one folder, quoted glob or file of several pictures (an animation, TIFF of many pages), taken in
        natural order (2 before 10), each folder for itself.
    output
        Flow file: .flo, .png (KITTI), .pfm, .npz, .npy, .flo5 or .exr (STMap: *stmap.exr). For a sequence: a folder; its files
        are named after the frames.
    picture
        Colour picture of the flow (.png), or a folder for a sequence.
    pairs
        In place of frames: a list of pairs, a .csv file with the columns frame1, frame2 and, if wanted, output (the name of what is
        made of the pair, without its ending); or a folder or quoted glob of frames that come in pairs.
    pairing
        How the frames of --pairs that is no list are paired: ab (by names that end in a and b, or img1 and img2), double (1-2,
        3-4), series (1-2, 2-3) or auto (ab where all names come in such pairs, else series).
    scale
        Flow length in pixels that is drawn in full colour; by default the longest, and for a sequence one for all pictures, the
        99th percentile of 8 pairs spread over it.
    legend
        Draw the wheel of colours and the scale into the pictures.
    backward
        Also the flow from the second frame to the first, in a file ending in _backward.
    occlusion
        Also a mask of the pixels of the first frame that the second does not show, in a file ending in _occlusion.png.
    confidence
        Also the probability, 0 to 1, that each pixel's flow is right to 1 px or 5 %: in .npz under that name, else as a 16-bit
        picture (65535 is 1) in a file ending in _confidence.png.
    min_confidence
        Leave out, as unknown, the flow of pixels of less confidence, in the flow file and the picture.
    format
        Of the flow files of a sequence or of pairs: flo, png16 (KITTI), npz, npy, pfm, flo5 or exr.
    range
        LOW,HIGH: the numbers that are black and white in pictures deeper than 8 bit, e.g. 0,4095. By default as many bits of 16 as
        both frames need, and of 32-bit pictures what both frames hold.
    overwrite
        Let the flow or picture take the place of one of the two frames.
    skip_existing
        Leave out pairs whose files are all there: goes on where a run was stopped.
    keep_going
        Note a pair that cannot be done, for instance of two sizes, and go on with the next; the exit code is then 1.
    summary
        JSON lines to write: one for each pair as soon as it is done, and one of totals at the end. With --skip-existing they are
        added to those of before.
    json
        Print what was done as JSON.
    """
    from ..jobs import estimate_files
    from .output import parse_range, show_job, show_progress

    with show_progress("pairs", quiet=json) as progress:
        job = estimate_files(
            frames,
            output,
            picture,
            pairs=pairs,
            pairing=pairing,
            scale=scale,
            legend=legend,
            backward=backward,
            occlusion=occlusion,
            confidence=confidence,
            min_confidence=min_confidence,
            format=format,
            value_range=parse_range(range),
            overwrite=overwrite,
            skip_existing=skip_existing,
            keep_going=keep_going,
            summary=summary,
            estimator=estimation.estimator(),
            progress=progress,
        )
    show_job(job, as_json=json)
