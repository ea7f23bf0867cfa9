"""A convolution and its leaky ReLU in one pass over memory, where PyTorch exposes it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .graphs import in_graph

_FUSED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # oneDNN; only in builds for CPUs that have it
_FUSED_DTYPES = (torch.float32, torch.bfloat16)


def convolve_leaky(layer: nn.Conv2d, x: Tensor, slope: float = 0.1) -> Tensor:
    """`leaky_relu(layer(x), slope)`, as one operator of oneDNN in inference mode on a CPU.

    A leaky ReLU alone reads and writes a whole map to multiply half of it: a tenth of LiteFlowNet2's time. The values are the
    same to the last bit in float32. Under autocast to bfloat16 the fused operator rounds once where two operators round twice.

    Args:
        layer: a convolution with zero padding.
        x: `(B, C, H, W)`. slope: of negative values; 0 is a plain ReLU.

    Returns:
        `(B, C', H', W')` in the dtype that `layer` gives.
    """
    if _FUSED is None or in_graph():
        return F.leaky_relu(layer(x), slope)
    dtype = _dtype(layer, x)
    if not _can_fuse(layer, x, dtype):
        return F.leaky_relu(layer(x), slope)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    return _FUSED(
        x.to(dtype),
        layer.weight.to(dtype),
        bias,
        layer.padding,
        layer.stride,
        layer.dilation,
        layer.groups,
        "leaky_relu",
        [slope],
        "",
    )


def _dtype(layer: nn.Conv2d, x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled(x.device.type) else layer.weight.dtype


def _can_fuse(layer: nn.Conv2d, x: Tensor, dtype: torch.dtype) -> bool:
    if not torch.is_inference_mode_enabled():
        return False  # the operator has no gradient
    if x.device.type != "cpu" or layer.weight.device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return False
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or x.numel() == 0:
        return False
    return dtype in _FUSED_DTYPES and (dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
