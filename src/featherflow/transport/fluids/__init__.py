"""Fluids (PIV): from pairs of particle images to velocities on a grid, checked, in laboratory units, and their derivatives.

`measure` does it for one pair, `measure_files` for files. The parts: `field` holds velocities with their axes and units,
`validation` finds what cannot be right and replaces it, `writing` and `pictures` write files. `featherflow.pairs` finds which
frames belong together.
"""

from ...pairs import PAIRINGS, FramePair, find_pairs
from .field import Calibration, Kind, VelocityField, on_grid
from .jobs import PairResult, from_flow, measure, measure_files
from .validation import Validation, filled, universal_outliers

__all__ = [
    "PAIRINGS",
    "Calibration",
    "FramePair",
    "Kind",
    "PairResult",
    "Validation",
    "VelocityField",
    "filled",
    "find_pairs",
    "from_flow",
    "measure",
    "measure_files",
    "on_grid",
    "universal_outliers",
]
