"""How good a flow is: benchmarks with ground truth, methods compared on them, tables and reports."""

from .benchmark import Dataset, Evaluation, evaluate, method_named
from .samples import Sample, find_samples

__all__ = ["Dataset", "Evaluation", "Sample", "evaluate", "find_samples", "method_named"]
