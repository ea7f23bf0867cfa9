"""What is taken where nobody says otherwise: device, arithmetic, enlargement, octaves, and when frames need tiles."""

from __future__ import annotations

import difflib
import math

import torch

from .. import classical, networks
from ..errors import InputError
from ..networks import FlowNetwork, Traits
from ..weights.catalogue import says_where
from .runners.processor import cpu_has_bfloat16
from .tiling import LARGEST_WHOLE

#: About the frames of Sintel and KITTI [px]: what networks with octaves were trained for.
_USUAL_PIXELS = 450_000
#: Networks whose end-point errors on real pairs were measured, with weights of the modern recipes: to grow by less than 1 % in
#: bfloat16 (docs/speed.md), in which these recipes train; and to shrink by a step of refinement (docs/evaluation.md).
MEASURED = frozenset({"liteflownet-tied", "liteflownet2-slim", "liteflownet2", "liteflownet2-kitti", "liteflownet", "liteflownetx"})


def check_model(name: str) -> None:
    """Refuse what names no network, classical method or weight file, with the nearest name.

    Raises:
        InputError: for such a name.
    """
    known = [*networks.names(), *classical.METHODS]
    if name.partition(":")[0] not in known and not says_where(name):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "`featherflow models` lists all."
        raise InputError(f"There is no network named '{name}' and no classical method; {hint}")


def device_named(device: str | None) -> torch.device:
    """The device of a name; without one the first GPU, or else the CPU.

    Raises:
        InputError: for a device that is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError):
        raise InputError(f"The device '{device}' is not available here; 'cpu' always is.") from None
    return where


def usual_dtype(network: FlowNetwork, device: torch.device) -> str:
    """What `dtype="auto"` stands for: bfloat16 where the CPU computes in it and its cost in accuracy was measured, else float32."""
    return "bfloat16" if _was_measured(network) and device.type == "cpu" and cpu_has_bfloat16() else "float32"


def usual_refinement(network: FlowNetwork) -> int:
    """Steps of refinement that `refine=None` stands for: one, of weights that were measured to gain by it."""
    return int(_was_measured(network))


def _was_measured(network: FlowNetwork) -> bool:
    """Whether a network is one of `MEASURED`, with weights of the modern recipes."""
    info = network.weights_info
    return info is not None and info.architecture in MEASURED and info.recipe.startswith("modern/")


def usual_enlargement(network: FlowNetwork, size: tuple[int, int]) -> float:
    """Factor by which a network sees frames of (height, width) enlarged: as its weights ask."""
    info = network.weights_info
    return 2.0 if info is not None and size[0] * size[1] < info.enlarge_below else 1.0


def usual_octaves(traits: Traits, size: tuple[int, int], enlarge: float = 1.0) -> int | None:
    """Octaves for whole frames of (height, width) [px]; None for a network that takes none.

    The reach of weights with octaves grows with the frames: another for about each fourfold of pixels. Weights without any are
    left as they are, up to `tiling.LARGEST_WHOLE`.
    """
    if not traits.has_octaves:
        return None
    pixels = size[0] * size[1] * enlarge**2
    if traits.usual_octaves == 0 and pixels <= LARGEST_WHOLE:
        return 0
    return traits.usual_octaves + max(round(math.log(pixels / _USUAL_PIXELS, 4)), 0)


def largest_untiled(traits: Traits, engine: str, dtype: str) -> int:
    """Pixels of the largest frames that are estimated whole: what networks that bound their memory say (in float32 a third of it),
    by PyTorch; else `tiling.LARGEST_WHOLE`."""
    own = traits.max_untiled_pixels if engine in ("auto", "torch") else 0
    return max(own // 3 if dtype == "float32" else own, LARGEST_WHOLE)
