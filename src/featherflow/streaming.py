"""Until all callers take an `Estimator`."""

from .inference import stream

__all__ = ["stream"]
