"""`featherflow estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def estimate(
    *frames: str,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    picture: Path | None = None,
    model: str | None = None,
    weights: Path | None = None,
    scale: float | None = None,
    backward: bool = False,
    occlusion: bool = False,
    device: str | None = None,
    dtype: str = "auto",
    iterations: int | None = None,
    refine: int = 0,
    enlarge: float | None = None,
    engine: str = "auto",
    tile: str = "auto",
    verbose: Annotated[bool, Parameter(negative="")] = False,
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
    model
        A network (liteflownet2, liteflownet2:tag) or a classical method (brox, tv-l1, dis, farneback, ...).
    weights
        A .safetensors file to use in place of the model's own weights.
    scale
        Flow length in pixels that is drawn in full colour; by default the longest of each flow.
    backward
        Also the flow from the second frame to the first, in a file ending in _backward.
    occlusion
        Also a mask of the pixels of the first frame that the second does not show, in a file ending in _occlusion.png.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    dtype
        Arithmetic of the convolutions: auto, float32, bfloat16 or float16. By default bfloat16 on a CPU that computes in it, for
        networks that were measured to lose less than 1 % by it, else float32.
    iterations
        Number of updates of a network that iterates (raft, flowformer, ...); by default the network's own.
    refine
        Steps of variational refinement at full size after the estimate, for accuracy below the pixel; 3 is a good number.
    enlarge
        Factor by which the network sees the frames enlarged; by default 2 for very small frames where the weights ask for it.
    engine
        What runs a network: torch, compile, openvino or onnx. The last two are built once for each network and frame size. By
        default the fastest that has been built, else torch.
    tile
        Width and height of overlapping tiles for a network, e.g. 1024x768, or none. By default frames of more than 2.2 million
        pixels are tiled.
    verbose
        Say on standard error which engine and arithmetic were taken.
    json
        Print what was done as JSON.
    """
    from ..jobs import estimate_files
    from ..tiling import parse_tile
    from .output import show_log, show_progress, show_results

    if verbose:
        show_log()
    with show_progress("pairs", quiet=json) as progress:
        results = estimate_files(
            frames, output, picture, model=model, weights=weights, scale=scale, backward=backward, occlusion=occlusion,
            device=device, dtype=dtype, iterations=iterations, refine=refine, enlarge=enlarge, engine=engine,
            tile=parse_tile(tile), progress=progress,
        )
    show_results(results, as_json=json)
