"""`featherflow evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def evaluate(
    samples: Path,
    *,
    model: list[str] | None = None,
    device: str | None = None,
    dtype: str = "auto",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compare methods on real pairs with ground truth: end-point error by group, aggregator per_image.

    Example: featherflow evaluate real-pairs/ --model liteflownet2 --model farneback --model dis

    Parameters
    ----------
    samples
        Folder with groups of pairs: middlebury, sintel, kitti2012, kitti2015, flyingchairs, piv.
    model
        Network or classical method; may be given several times. Default: the default network.
    device
        cpu, cuda, ...; by default a GPU if there is one.
    dtype
        Arithmetic of the convolutions: auto, float32, bfloat16 or float16.
    json
        Print the figures as JSON.
    """
    from functools import partial

    from .. import estimate
    from ..evaluation import compare, find_samples, markdown_table
    from ..weights import default_model
    from .output import print_json, show_progress

    methods = {name: partial(estimate, model=name, device=device, dtype=dtype) for name in model or [default_model()]}
    pairs = find_samples(samples)
    with show_progress("pairs", quiet=json) as progress:
        comparison = compare(methods, pairs, progress)
    if json:
        print_json({"metric": "EPE [px]", "aggregator": "per_image", "pairs": comparison.pairs, "epe": comparison.epe})
    else:
        print(markdown_table(comparison))
