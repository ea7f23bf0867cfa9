"""From frames to flow: the high-level interface, for frames of any form and size.

    estimator = featherflow.Estimator("liteflownet2", refine=0)
    flow = estimator(frame1, frame2)
    for flow in estimator.stream(frames): ...

A frame goes this way: `estimator` makes it a tensor and decides what is to be done (`settings`, `defaults`); large frames go tile
by tile (`tiling`); `runners` fit it to the network's grid (`fitting`), run the network there, and bring the flow back to its size.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .settings import DTYPES, ENGINES, EstimationSettings

if TYPE_CHECKING:
    from .estimator import Estimator, estimate, stream
    from .exporting import FORMATS, export
    from .fitting import Fitting

_LAZY = {
    "Estimator": "estimator",
    "estimate": "estimator",
    "stream": "estimator",
    "Fitting": "fitting",
    "export": "exporting",
    "FORMATS": "exporting",
}

__all__ = [
    "DTYPES",
    "ENGINES",
    "FORMATS",
    "EstimationSettings",
    "Estimator",
    "Fitting",
    "estimate",
    "export",
    "stream",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
