"""How good a flow is: benchmarks with ground truth, methods compared on them, tables and reports."""

from .benchmark import Dataset, Evaluation, evaluate, method_named
from .comparison import compare, markdown_table
from .samples import Sample, find_samples

__all__ = ["Dataset", "Evaluation", "Sample", "compare", "evaluate", "find_samples", "markdown_table", "method_named"]
