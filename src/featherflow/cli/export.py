"""`featherflow export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import NETWORK, Network


def export(
    model: str,
    *,
    output: Annotated[str, Parameter(alias="-o")],
    to: str | None = None,
    height: int | None = None,
    width: int | None = None,
    dynamic: Annotated[bool, Parameter(negative="")] = False,
    with_frames: Annotated[bool, Parameter(negative="")] = False,
    dtype: str = "float32",
    network: Network = NETWORK,
    untrained: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a network as a file that other programs run, and compare what it gives with PyTorch.

    Example: featherflow export liteflownet-tied --to onnx --height 436 --width 1024 --with-frames -o flow.onnx

    Parameters
    ----------
    model
        A network (liteflownet2, liteflownet2:tag, the path of a .safetensors file).
    output
        The file: .onnx, .xml (OpenVINO, with a .bin beside it), .pt (TorchScript) or .pt2 (PyTorch's exported program).
    to
        onnx, openvino, torchscript or exported-program; by default as the suffix of the file says.
    height
        Height of the frames [px]; by default 448.
    width
        Width of the frames [px]; by default 1024.
    dynamic
        Leave height and width free (multiples of the network's), for onnx, openvino and exported-program; not every network can.
    with_frames
        Take uint8 frames (1, H, W, 3) and give flow (1, H, W, 2), with resizing and scaling inside the file.
    dtype
        float32, or for openvino also bfloat16 or int8, of the convolutions.
    untrained
        Write a network that has no weights with random ones, to try a file out.
    json
        Print what was written as JSON.
    """
    import dataclasses

    from ..inference.exporting import USUAL_SIZE, named_network
    from ..inference.exporting import export as write
    from ..networks import RunOptions
    from ..outputs import check_outputs
    from .output import print_json, say

    beside = Path(output).with_suffix(".bin") if Path(output).suffix == ".xml" else None
    check_outputs([("the numbers of the network", beside), ("the network", output)], [network.weights or ""], overwrite=None)

    size = USUAL_SIZE[0] if height is None else height, USUAL_SIZE[1] if width is None else width
    result = write(
        named_network(model, network.weights, untrained),
        output,
        to,
        name=model,
        options=RunOptions(network.iterations, network.octaves),
        size=None if height is None and width is None else size,
        dynamic=dynamic,
        with_frames=with_frames,
        dtype=dtype,
    )
    if json:
        print_json(dataclasses.asdict(result))
    else:
        say(result.sentence())
