"""How good a flow is: real pairs with ground truth, methods compared on them, tables."""

from .comparison import compare, markdown_table
from .samples import Sample, find_samples

__all__ = ["Sample", "compare", "find_samples", "markdown_table"]
