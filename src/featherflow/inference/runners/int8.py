"""An OpenVINO model with its convolutions in 8 bits, by NNCF's quantisation after training.

The ranges of weights and of what flows between them are taken from the pairs that it is handed. Most features survive 8 bits.
What does not stays in float32:

- what answers with a flow, a distance or anything else that is not passed on through an activation;
- flows and distances that are read beside features, in other units than these: one range for both would leave features a few steps;
- the coarsest maps, where long motions are found, and the features that are compared there, which come from those at a quarter
  of the size;
- on maps of half the size what follows a unit's first convolution: its answer is not looked at again, and should be
  right to hundredths of a pixel.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ...errors import EngineError, MissingExtraError
from .graphs import quiet

COARSE = 2000  # positions of the largest maps that stay in float32: about a tenth of the operations
#: Most that the flow may change on average, as a share of its mean length; and what is always allowed [px].
LIMIT, ALLOWED = 0.1, 0.1
_FEW = 3  # channels of a flow, or of a flow and a distance: fewer than any features have
_LEAVES = {"Constant", "Parameter", "Result"}
_HIDES = {"PRelu", "Relu", "Gelu", "Sigmoid", "Tanh", "MVN", "BatchNormInference"}


def version() -> str:
    return f"nncf {_nncf().__version__}"


def quantize(model, pairs: Sequence, grid: tuple[int, int]):
    """`model` with those of its convolutions in 8 bits that bear it, and no more.

    Args:
        model: changed as well.
        pairs: two arrays each, as the model takes them; all are looked at.
        grid: (height, width) at which the network sees frames [px].
    """
    nncf = _nncf()
    _part_flows(model)
    nodes = model.get_ordered_ops()
    kinds = {node.get_type_name() for node in nodes} - _LEAVES - {"Convolution"}
    with contextlib.redirect_stdout(sys.stderr), quiet():  # its progress is no result
        return nncf.quantize(
            model,
            nncf.Dataset(pairs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pairs),
            ignored_scope=nncf.IgnoredScope(types=sorted(kinds), names=_wide(nodes, grid[0] * grid[1]), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE,  # weights in 7 bits: without VNNI, sums of two products would be clipped
                disable_bias_correction=True,  # twice the time, no nearer
            ),
        )


def _part_flows(model) -> None:
    """Give what a convolution reads beside features a convolution of its own, and add the two."""
    from openvino import opset13 as ops

    for convolution in model.get_ordered_ops():
        if convolution.get_type_name() != "Convolution":
            continue
        read, weights = (convolution.input_value(index).get_node() for index in (0, 1))
        followers = users(convolution)
        kinds = [node.get_type_name() for node in (read, weights, *followers)]
        if kinds != ["Concat", "Constant", "Add"] or read.get_attributes()["axis"] != 1:
            continue
        channels = [list(source.shape)[1] for source in read.input_values()]
        flows = [count <= _FEW for count in channels]
        if all(flows) or not any(flows):
            continue
        (biased,) = followers
        targets = list(biased.output(0).get_target_inputs())
        of_flows = _of_some(convolution, flows).output(0)
        for target in convolution.output(0).get_target_inputs():
            target.replace_source_output(of_flows)
        both = ops.add(_of_some(convolution, [not few for few in flows]), biased)
        for target in targets:
            target.replace_source_output(both.output(0))
    model.validate_nodes_and_infer_types()


def _of_some(convolution, chosen: Sequence[bool]):
    """A convolution of what `convolution` reads, of those maps alone that are chosen of the ones that were joined for it."""
    from openvino import opset13 as ops

    maps = convolution.input_value(0).get_node().input_values()
    ends = list(itertools.accumulate(list(source.shape)[1] for source in maps))
    kept = np.repeat(chosen, np.diff(ends, prepend=0))
    joined = ops.concat(list(itertools.compress(maps, chosen)), 1)
    numbers = (convolution.get_attributes()[name] for name in ("strides", "pads_begin", "pads_end", "dilations"))
    return ops.convolution(joined, convolution.input_value(1).get_node().get_data()[:, kept], *numbers)


def _wide(nodes: Sequence, pixels: int) -> list[str]:
    """Names of the convolutions that stay in float32, of a model's nodes in order and the pixels that its network sees."""
    seen: dict[str, frozenset[str]] = {}  # by name of a node, the frames that it depends on
    wide = []
    for node in nodes:
        name = node.get_friendly_name()
        sources = [source.get_node() for source in node.input_values()]
        seen[name] = frozenset({name} if node.get_type_name() == "Parameter" else ())
        seen[name] = seen[name].union(*(seen[source.get_friendly_name()] for source in sources))
        if node.get_type_name() != "Convolution":
            continue
        positions = _positions(node)
        compared = len(seen[name]) == 1 and positions <= pixels // 16
        last = len(seen[name]) > 1 and positions >= pixels // 4 and sources[0].get_type_name() != "Concat"
        if not _is_hidden(node) or positions <= COARSE or compared or last:
            wide.append(name)
    return wide


def users(node) -> list:
    """The nodes that read what a node of a model gives."""
    return [use.get_node() for use in node.output(0).get_target_inputs()]


def _is_hidden(convolution) -> bool:
    """Whether an activation or a normalisation follows, past the bias."""
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
