"""Whether operators are computed or only written down."""

import torch


def in_graph() -> bool:
    """Whether what runs now is recorded, by `torch.compile`, `torch.export` or a trace.

    A graph is to hold plain operators, whose names other engines know, and nothing that depends on how a map lies in memory.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]  # public, but not listed
