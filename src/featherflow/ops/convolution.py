"""A convolution and its leaky ReLU in one pass over memory, where PyTorch exposes it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .graphs import in_graph

_FUSED: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # oneDNN, where built in
_FUSED_DTYPES = (torch.float32, torch.bfloat16)


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
    bias = None if layer.bias is None else layer.bias.to(dtype)
    operands = (x.to(dtype), layer.weight.to(dtype), bias, layer.stride, layer.padding, layer.dilation, layer.groups, slope)
    # Without a gradient the operator is called as it is: recording costs a tenth of a millisecond a layer.
    return _ConvolveLeaky.apply(*operands) if torch.is_grad_enabled() else _convolve_leaky(*operands)


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
