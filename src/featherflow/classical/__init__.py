"""Classical methods behind the same call as the networks: `estimate(..., model="dis")`."""

from .opencv import METHODS, estimate

__all__ = ["METHODS", "estimate"]
