"""What this computer's processor does by itself."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX512-BF16 or AMX) and PyTorch uses it; others only imitate it, slowly."""
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.backends.mkldnn.is_available() and any(check() for check in checks if check is not None)


def cpu_imitates(dtype: str) -> bool:
    """Whether PyTorch has but a plain convolution in "bfloat16" or "float16" for this CPU, many times slower than float32."""
    names = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    supported = getattr(torch.ops.mkldnn, names[dtype], None) if dtype in names and torch.backends.mkldnn.is_available() else None
    return supported is not None and not supported()
