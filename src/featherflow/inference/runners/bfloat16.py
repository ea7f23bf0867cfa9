"""An OpenVINO model with its convolutions, and what leads to them, in bfloat16; what must be exact stays in float32.

Types are written into the graph: OpenVINO's own hint for bfloat16 also rounds flow and coordinates, 0.35 px on average on a real
pair where this costs 0.005 px.
"""

from __future__ import annotations

from typing import Any

from .int8 import users

_MOVES = {"Reshape", "Transpose", "Slice", "StridedSlice", "Pad", "Concat", "Split", "VariadicSplit", "Squeeze", "Unsqueeze"}
_ENLARGES = "GroupConvolutionBackpropData"
_FEATURES = 8  # channels of maps that are features and no flows or colours, at least


def narrow(model: Any) -> None:
    """Change a model, so that in bfloat16 are its layers, which are convolutions with their bias and leaky ReLU; matching costs
    that only layers read; joined maps, and whatever else moves numbers without changing them, on the way to layers or from them.

    Between two of these nothing is widened and rounded again. Flow, coordinates, samples, statistics and answers stay in float32.
    """
    _Narrowing().run(model)
    model.validate_nodes_and_infer_types()


class _Narrowing:
    """One pass over a model from the frames on. Outputs are known by the name of their node and their number."""

    def __init__(self) -> None:
        self._narrow: dict[tuple[str, int], Any] = {}  # what is the same in bfloat16
        self._leads: dict[str, bool] = {}
        self._done: set[str] = set()  # bias and leaky ReLU of layers that were met

    def run(self, model: Any) -> None:
        for node in model.get_ordered_ops():
            kind = node.get_type_name()
            if _is_layer(node):
                self._convolve(node)
            elif node.get_friendly_name() in self._done:
                continue
            elif kind == "GridSample":
                self._lay_out(node)
            elif _hands_on(node) and (self._leads_to_layers(node) or (kind in _MOVES and self._moves_narrow(node))):
                self._hand_on(node)

    def _convolve(self, node: Any) -> None:
        """A layer in bfloat16, with its bias and leaky ReLU where these are constants and nothing else reads what comes before."""
        node.input(0).replace_source_output(self._narrowed(node.input_value(0)))
        node.input(1).replace_source_output(_converted(node.input_value(1), "bf16"))
        node.validate_and_infer_types()
        for kind in ("Add", "PRelu"):
            following = users(node)
            if len(following) != 1 or following[0].get_type_name() != kind:
                continue
            (last,) = following
            others = [operand for operand in last.inputs() if _key(operand.get_source_output()) != _key(node.output(0))]
            if not all(_is_constant(operand.get_source_output()) for operand in others):
                break
            for operand in others:
                operand.replace_source_output(_converted(operand.get_source_output(), "bf16"))
            last.validate_and_infer_types()
            self._done.add(last.get_friendly_name())
            node = last
        self._widen(node)

    def _hand_on(self, node: Any) -> None:
        """A node that takes and gives bfloat16."""
        for operand in node.inputs():
            if operand.get_element_type().is_real():
                operand.replace_source_output(self._narrowed(operand.get_source_output()))
        node.validate_and_infer_types()
        self._widen(node)

    def _widen(self, node: Any) -> None:
        """Let those who read a narrow node read it as float32, until they are met and turn out to take it narrow."""
        for output in node.outputs():
            targets = list(output.get_target_inputs())
            wide = _converted(output, "f32")
            for target in targets:
                target.replace_source_output(wide)
            self._narrow[_key(wide)] = output

    def _narrowed(self, output: Any) -> Any:
        if _key(output) not in self._narrow:
            self._narrow[_key(output)] = _converted(output, "bf16")
        return self._narrow[_key(output)]

    def _moves_narrow(self, node: Any) -> bool:
        """Whether all that a node moves is narrow already. Maps change their order in memory several times as fast that way."""
        moved = node.input_values() if node.get_type_name() == "Concat" else node.input_values()[:1]
        return all(source.get_node().get_type_name() == "Convert" and _key(source) in self._narrow for source in moved)

    def _leads_to_layers(self, node: Any) -> bool:
        """Whether all that a node gives is read by layers and by nothing else, at once or handed on."""
        name = node.get_friendly_name()
        if name not in self._leads:
            readers = [use.get_node() for output in node.outputs() for use in output.get_target_inputs()]
            self._leads[name] = all(_is_layer(reader) or (_passes(reader) and self._leads_to_layers(reader)) for reader in readers)
        return self._leads[name]

    def _lay_out(self, node: Any) -> None:
        """Features are sampled plane by plane; a detour over three dimensions brings them into that order before they widen."""
        from openvino import opset13 as ops

        source = node.input_value(0)
        shape = source.get_partial_shape()
        if not shape.is_static or list(shape)[1].get_length() < _FEATURES:
            return
        if not (self._leads_to_layers(node) or self._moves_narrow(node)):
            return
        batch, channels, height, width = source.shape
        planes = ops.reshape(self._narrowed(source), [batch, channels, height * width], False)
        wide = ops.reshape(_converted(planes.output(0), "f32"), [batch, channels, height, width], False)
        node.input(0).replace_source_output(wide.output(0))


def _is_layer(node: Any) -> bool:
    """Whether a node is a convolution, and not in 8 bits."""
    return node.get_type_name() == "Convolution" and node.input_value(0).get_node().get_type_name() != "FakeQuantize"


def _hands_on(node: Any) -> bool:
    """Whether a node moves real numbers, or makes matching costs: products of two maps, of a map and one number, a leaky ReLU."""
    if not node.get_output_element_type(0).is_real():
        return False  # sizes
    constants = [source.get_node() for source in node.input_values() if _is_constant(source)]
    match node.get_type_name():
        case "MatMul":
            return not constants
        case "Multiply":
            return any(constant.get_data().size == 1 for constant in constants)
        case kind:
            return kind in _MOVES or kind == "PRelu"


def _passes(node: Any) -> bool:
    """Whether a node may read what is rounded if its own answer is."""
    return _hands_on(node) or node.get_type_name() == _ENLARGES


def _is_constant(output: Any) -> bool:
    return output.get_node().get_type_name() == "Constant"


def _converted(output: Any, dtype: str) -> Any:
    from openvino import opset13 as ops

    return ops.convert(output, dtype).output(0)


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()
