"""The same verbs for archives, over the cores of one machine or the machines of a cluster (extra `scale`).

`run` finds the items of a list, folder or pattern, hands them to workers of Ray Data, which hold one `Estimator` each, and says
what became of every one. Ray and fsspec are imported with the first call.
"""

from __future__ import annotations

from .job import ScaleJob
from .summary import ItemFailure, ScaleResult
from .verbs import VERBS

__all__ = ["VERBS", "ItemFailure", "ScaleJob", "ScaleResult", "run"]


def run(*arguments, **keywords) -> ScaleResult:
    """See `featherflow.scale.cluster.run`."""
    from .cluster import run as run_on_ray

    return run_on_ray(*arguments, **keywords)
