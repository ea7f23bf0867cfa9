"""Where a Triton kernel stands in for a torch form: on a GPU, without gradients, and only once it was found equal.

`FEATHERFLOW_TRITON=0` in the environment keeps to the torch forms.
"""

import logging
import os
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from .graphs import in_graph
from .precision import full_precision

log = logging.getLogger("featherflow")

#: Most that a kernel may differ from its torch form in float64, by the dtype of its answer: absolute, and of the value.
TOLERANCES = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (1e-5, 2**-7), torch.float16: (1e-5, 2**-10)}

_TRIAL = (5, 37)  # height and width: three blocks of a kernel, the last not full
_answers: dict[tuple, torch.dtype | None] = {}  # in which dtype a kernel answers for what a key describes; None: not used


def by_kernel(name: str, torch_form: Callable[..., Tensor], tensors: tuple[Tensor, Tensor], *parameters: int) -> Tensor:
    """`torch_form(*tensors, *parameters)`, computed by the function `name` of `triton_kernels` where that can be.

    A kernel is tried when it is first wanted for such a device, dtypes, numbers of channels, memory formats and parameters: it
    has to agree with the torch form on small random maps to `TOLERANCES`. If it does not, or raises, or there is no Triton, one
    line is logged and the torch form is used from then on.

    Args:
        tensors: `(B, C, H, W)` each; C may differ.
    """
    if in_graph() or not _can_run(tensors):
        return torch_form(*tensors, *parameters)
    device = tensors[0].device
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    key = (name, device, autocast, parameters, *((tensor.dtype, tensor.shape[1], tensor.stride(1) == 1) for tensor in tensors))
    if key not in _answers:
        if tensors[0].is_cuda and torch.cuda.is_current_stream_capturing():
            return torch_form(*tensors, *parameters)  # a CUDA graph takes no comparison
        _answers[key] = _tried(name, torch_form, tensors, parameters)
    dtype = _answers[key]
    if dtype is not None:
        try:
            return _kernel(name)(*tensors, *parameters, dtype=dtype)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # for other strides it is compiled anew, and compilers raise whatever they stumble over
            _answers[key] = None
            _say(name, _first_line(error))
    return torch_form(*tensors, *parameters)


def _can_run(tensors: tuple[Tensor, ...]) -> bool:
    """Whether these are plain maps of one size on one GPU that no gradient is asked of, and kernels are wanted."""
    if not all(type(tensor) is Tensor and _on_gpu(tensor) and tensor.dtype in TOLERANCES for tensor in tensors):
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    alike = len({(tensor.device, tensor.shape[0], tensor.shape[2:]) for tensor in tensors}) == 1
    return alike and all(tensor.numel() for tensor in tensors) and os.environ.get("FEATHERFLOW_TRITON") != "0"


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _tried(
    name: str, torch_form: Callable[..., Tensor], tensors: tuple[Tensor, ...], parameters: tuple[int, ...]
) -> torch.dtype | None:
    """The dtype of the torch form's answer for such tensors, if the kernel gives the same; else None."""
    try:
        kernel = _kernel(name)
        generator = torch.Generator().manual_seed(0)
        trial = [_resembling(tensor, generator) for tensor in tensors]
        dtype = torch_form(*trial, *parameters).dtype
        found = kernel(*trial, *parameters, dtype=dtype)
        with full_precision(trial[0]):
            expected = torch_form(*(tensor.double() for tensor in trial), *parameters)
        absolute, relative = TOLERANCES[dtype]
        if torch.allclose(found.double(), expected, atol=absolute, rtol=relative):
            return dtype
        reason = f"differs from PyTorch by {float((found - expected).abs().max()):.2g}"
    except torch.OutOfMemoryError:
        raise
    except ImportError:
        name, reason = "", "Triton is not installed"
    except Exception as error:  # a compiler raises whatever it stumbles over
        reason = _first_line(error)
    _say(name, reason)
    return None


def _resembling(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Small random maps of the channels, dtype, device and memory format of `tensor`."""
    small = torch.randn(2, tensor.shape[1], *_TRIAL, generator=generator).to(tensor.device, tensor.dtype)
    return small.contiguous(memory_format=torch.channels_last) if tensor.stride(1) == 1 else small


def _kernel(name: str) -> Callable[..., Tensor]:
    from . import triton_kernels

    return getattr(triton_kernels, name)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0] or type(error).__name__


@lru_cache(maxsize=64)
def _say(name: str, reason: str) -> None:
    log.warning("%s not used, PyTorch's own operators are: %s", f"the GPU kernel {name} is" if name else "GPU kernels are", reason)
