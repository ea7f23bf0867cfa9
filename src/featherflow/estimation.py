"""Until all callers take an `Estimator`."""

from .inference import Estimator, estimate

__all__ = ["estimate", "method_for"]


def method_for(model=None, **settings):
    return Estimator(model, **settings)
