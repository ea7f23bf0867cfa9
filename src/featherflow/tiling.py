"""Until all callers take an `Estimator`."""

from .inference.settings import checked_tile as parse_tile

__all__ = ["parse_tile"]
