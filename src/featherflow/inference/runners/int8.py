"""An OpenVINO model with its convolutions in 8 bits, by NNCF's quantisation after training.

The ranges of weights and of what flows between them are taken from the pairs that it is handed. Features survive 8 bits; what
answers with a flow, a distance or anything else that is not passed on through an activation does not, and stays in float32, as do
the coarsest maps, where long motions are found.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence

from torch import Tensor

from ...errors import EngineError, MissingExtraError
from .graphs import quiet

COARSE = 2000  # positions of the largest maps that stay in float32: about a tenth of the operations
#: Most that the flow may change on average, as a share of its mean length; and what is always allowed [px].
LIMIT, ALLOWED = 0.1, 0.1
_LEAVES = {"Constant", "Parameter", "Result"}
_HIDES = {"PRelu", "Relu", "Gelu", "Sigmoid", "Tanh", "MVN", "BatchNormInference"}


def version() -> str:
    return f"nncf {_nncf().__version__}"


def quantize(model, pairs: Sequence):
    """`model` with its hidden convolutions on finer maps in 8 bits, and no more.

    Args:
        pairs: two arrays each, as the model takes them; all are looked at.
    """
    nncf = _nncf()
    nodes = model.get_ordered_ops()
    kinds = {node.get_type_name() for node in nodes} - _LEAVES - {"Convolution"}
    convolutions = [node for node in nodes if node.get_type_name() == "Convolution"]
    wide = [node.get_friendly_name() for node in convolutions if not _is_hidden(node) or _positions(node) <= COARSE]
    with contextlib.redirect_stdout(sys.stderr), quiet():  # its progress is no result
        return nncf.quantize(
            model,
            nncf.Dataset(pairs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pairs),
            ignored_scope=nncf.IgnoredScope(types=sorted(kinds), names=wide, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),  # twice the time, no nearer
        )


def _is_hidden(convolution) -> bool:
    """Whether an activation or a normalisation follows, past the bias."""

    def users(node):
        return [use.get_node() for use in node.output(0).get_target_inputs()]

    following = users(convolution)
    if len(following) == 1 and following[0].get_type_name() == "Add":
        following = users(following[0])
    return all(node.get_type_name() in _HIDES for node in following)


def _positions(convolution) -> int:
    height, width = list(convolution.output(0).shape)[-2:]
    return height * width


def check(flow: Tensor, expected: Tensor) -> None:
    """Refuse a flow that is not the network's any more.

    Args:
        flow: in 8 bits. expected: by PyTorch in float32, of the same shape.

    Raises:
        EngineError: for a mean difference of more than `LIMIT` of the mean length and `ALLOWED`.
    """
    change, length = (float(field.abs().mean()) for field in (flow - expected, expected))
    if not change <= max(LIMIT * length, ALLOWED):
        raise EngineError(f"In int8 the flow changes by {change:.2g} px on average, of {length:.2g} px; not used.")


def _nncf():
    """NNCF, whose import would make all loggers that come after it of its own class."""
    kind = logging.getLoggerClass()
    try:
        import nncf
    except ImportError:
        raise MissingExtraError('The dtype int8 needs NNCF: pip install "featherflow[int8]".') from None
    finally:
        logging.setLoggerClass(kind)
    return nncf
