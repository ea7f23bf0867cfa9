"""`featherflow demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def demo(
    folder: Path = Path("featherflow-demo"), *, model: str | None = None, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Estimate the flow of a bundled pair of frames, offline, and show what came out.

    Example: featherflow demo my-first-flow/

    Parameters
    ----------
    folder
        Where to write flow.flo, flow.png and overview.png.
    model
        Network or classical method; by default the best that comes with featherflow.
    json
        Print the result as JSON.
    """
    import dataclasses

    from .. import demo as demonstration
    from .output import print_json, say

    result = demonstration.run(folder, model)
    if json:
        print_json(dataclasses.asdict(result))
        return
    say(
        f"{result.model} on a pair of {result.width}x{result.height} px: loaded in {result.load_seconds:.2f} s, "
        f"estimated in {result.seconds:.2f} s on this machine."
    )
    say(f"End-point error {result.epe_px:.2f} px (per_image); the true flow is {result.mean_length_px:.2f} px long on average.")
    say(f"  {result.flow}      the flow field")
    say(f"  {result.picture}      in colour: hue is direction, saturation is length")
    say(f"  {result.overview}  frame 1, true flow; error (blue small, red large), estimated flow")
