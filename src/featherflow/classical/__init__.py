"""Classical methods behind the same call as the networks: `estimate(..., model="dis")`.

Our own, in torch (`horn-schunck`, `lucas-kanade`, `brox`, `tv-l1`), are one coarse-to-fine driver (`pyramid.py`) with one
step each (`solvers.py`); the others are OpenCV's (`opencv.py`). Their numbers were chosen on the four Middlebury pairs of
our samples, so figures on those flatter them. `refinement.py` makes the flow of any method better below the pixel.
"""

from .methods import METHODS, ClassicalMethod, estimate

__all__ = ["METHODS", "ClassicalMethod", "estimate"]
