"""A convolution and its leaky ReLU in one pass over memory, where PyTorch exposes it; and convolutions made ready for that."""

from collections.abc import Callable
from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .graphs import in_graph

_FUSED: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # oneDNN, where built in
_FUSED_DTYPES = (torch.float32, torch.bfloat16)
#: Positions of the largest map for which weights are laid out beforehand: for larger ones it saves nothing that could be measured.
_LARGEST_LAID_OUT = 150_000
#: For how many sizes of map weights are kept, fewest and most, and between these for how many numbers of a layer. A tied layer
#: meets a size at each level.
_FEW_SIZES, _MANY_SIZES, _NUMBERS = 4, 12, 1_000_000


def convolve_leaky(layer: nn.Conv2d, x: Tensor, slope: float = 0.1) -> Tensor:
    """`leaky_relu(layer(x), slope)`, as one operator of oneDNN on a CPU, with a gradient of its own.

    A leaky ReLU alone reads and writes a whole map to multiply half of it: a tenth of LiteFlowNet2's time. The values are the
    same to the last bit in float32. Under autocast to bfloat16 the fused operator rounds once where two operators round twice.

    Args:
        layer: a convolution with zero padding.
        x: `(B, C, H, W)`. slope: of negative values, above 0 where a gradient is wanted; 0 is a plain ReLU.

    Returns:
        `(B, C', H', W')` in the dtype that `layer` gives.
    """
    if _FUSED is None or in_graph():
        return F.leaky_relu(layer(x), slope)
    dtype = _dtype(layer, x)
    if not _can_fuse(layer, x, dtype):
        return F.leaky_relu(layer(x), slope)
    x = x.to(dtype)
    if isinstance(layer, ReadyConvolution) and dtype == torch.bfloat16 and not torch.is_grad_enabled():
        weight, bias = layer.operands(x)
    else:
        weight, bias = layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)
    operands = (x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups, slope)
    # Without a gradient the operator is called as it is: recording costs a tenth of a millisecond a layer.
    return _ConvolveLeaky.apply(*operands) if torch.is_grad_enabled() else _convolve_leaky(*operands)


class ReadyConvolution(nn.Conv2d):
    """A convolution that runs in bfloat16 and whose weights stay as they are: they are narrowed once, and laid out once for each
    size of map in the order in which oneDNN reads them, where PyTorch does both at each call.

    Made from a plain one, whose parameters it shares. Maps of other dtypes, and gradients, take the way of a plain one; the answers
    are the same to the last bit.
    """

    _narrow: tuple[Tensor, Tensor | None]
    _laid_out: dict[torch.Size, Tensor]

    @classmethod
    def of(cls, layer: nn.Conv2d) -> "ReadyConvolution":
        """`layer`, for which `can_make_ready` holds, made ready."""
        ready = copy(layer)
        ready.__class__ = cls
        assert isinstance(ready, cls)
        ready._parameters, ready._laid_out = dict(layer._parameters), {}
        with torch.inference_mode():
            ready._narrow = layer.weight.bfloat16(), None if layer.bias is None else layer.bias.bfloat16()
        return ready

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for a map `(B, C, H, W)` in bfloat16."""
        weight, bias = self._narrow
        if x.numel() > _LARGEST_LAID_OUT * x.shape[1]:
            return weight, bias
        laid_out = self._laid_out.get(x.shape)
        if laid_out is None:
            if len(self._laid_out) >= min(max(_FEW_SIZES, _NUMBERS // weight.numel()), _MANY_SIZES):
                self._laid_out.clear()
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            laid_out = reorder(weight, self.padding, self.stride, self.dilation, self.groups, list(x.shape))
            self._laid_out[x.shape] = laid_out
        return laid_out, bias

    def forward(self, x: Tensor) -> Tensor:
        dtype = _dtype(self, x)
        if dtype != torch.bfloat16 or torch.is_grad_enabled() or in_graph() or not _can_fuse(self, x, dtype):
            return super().forward(x)
        assert _FUSED is not None  # it is only made where there is one
        x = x.to(dtype)
        return _FUSED(x, *self.operands(x), self.padding, self.stride, self.dilation, self.groups, "none", [], "")


def can_make_ready(layer: nn.Module) -> bool:
    """Whether a module is a convolution for which there is a `ReadyConvolution` on this computer."""
    if _FUSED is None or not hasattr(torch.ops.mkldnn, "_reorder_convolution_weight") or type(layer) is not nn.Conv2d:
        return False
    return layer.weight.dtype == torch.float32 and _can_fuse(layer, layer.weight.detach(), torch.bfloat16)


def _convolve_leaky(x, weight, bias, stride, padding, dilation, groups, slope) -> Tensor:
    assert _FUSED is not None  # nobody comes here otherwise
    return _FUSED(x, weight, bias, padding, stride, dilation, groups, "leaky_relu", [slope], "")


class _ConvolveLeaky(torch.autograd.Function):
    """The operator with its gradient. The sign of an answer is that of what went into the leaky ReLU, so that is not kept."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation, groups, slope):
        answer = _convolve_leaky(x, weight, bias, stride, padding, dilation, groups, slope)
        ctx.save_for_backward(x, weight, answer)
        ctx.numbers = stride, padding, dilation, groups, slope, None if bias is None else list(bias.shape)
        return answer

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, weight, answer = ctx.saved_tensors
        stride, padding, dilation, groups, slope, bias_shape = ctx.numbers
        # In another layout than that of the answer both operators below take several times as long.
        if answer.is_contiguous(memory_format=torch.channels_last):
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        before = torch.ops.aten.leaky_relu_backward(gradient, answer, slope, True)
        wanted = [*ctx.needs_input_grad[:2], bias_shape is not None and ctx.needs_input_grad[2]]
        found = torch.ops.aten.convolution_backward(
            before, x, weight, bias_shape, stride, padding, dilation, False, [0, 0], groups, wanted
        )
        return (*found, *(None,) * 5)


def _dtype(layer: nn.Conv2d, x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled(x.device.type) else layer.weight.dtype


def _can_fuse(layer: nn.Conv2d, x: Tensor, dtype: torch.dtype) -> bool:
    if x.device.type != "cpu" or layer.weight.device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return False
    if type(x) is not Tensor:
        return False  # mere shapes, from which operations are counted
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or x.numel() == 0:
        return False
    return dtype in _FUSED_DTYPES and (dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
