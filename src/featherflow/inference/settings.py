"""How flow is estimated: eleven choices, each checked once, where they are made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypedDict

from ..errors import InputError
from ..pixels import parse_size

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")
ENGINES = ("auto", "torch", "compile", "openvino", "onnx")
#: Part of a tile that its neighbour sees too, and the least side of a tile [px].
OVERLAP = 128
SMALLEST_TILE = 2 * OVERLAP

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
Engine = Literal["auto", "torch", "compile", "openvino", "onnx"]
Tile = str | tuple[int, int] | None


class Choices(TypedDict, total=False):
    """Keywords of `featherflow.Estimator`; those that are left out are as in `EstimationSettings`."""

    weights: str | os.PathLike[str] | None
    device: str | None
    dtype: Dtype
    iterations: int | None
    refine: int | None
    enlarge: float | None
    engine: Engine
    tile: Tile
    octaves: int | None
    prepare: bool


@dataclass(frozen=True, kw_only=True)
class EstimationSettings:
    """How flow is estimated.

    Raises:
        InputError: for a value that no model can use.
    """

    #: A network (`"liteflownet2"`, `"liteflownet2:tag"`) or a classical method (`"farneback"`, `"dis"`, ...). None: the best
    #: weights that come with featherflow.
    model: str | None = None
    #: A `.safetensors` file to use in place of the model's own weights.
    weights: str | os.PathLike[str] | None = None
    #: `"cpu"`, `"cuda"`, `"cuda:1"`, ... None: the first GPU if there is one; of a network object, where that is.
    device: str | None = None
    #: Of the convolutions; one of `DTYPES`. "auto": bfloat16 where the CPU computes in it and its cost in accuracy was measured
    #: to be below 1 % for the network, else float32. Flow stays in float32.
    dtype: str = "auto"
    #: Updates of a network that iterates (RAFT, FlowFormer, ...). None: the network's own number.
    iterations: int | None = None
    #: Steps of variational refinement at full size after the estimate. None: one, of weights that were measured to gain by it, else
    #: none.
    refine: int | None = None
    #: Factor by which a network sees the frames enlarged, from 0.25 to 4. None: as the weights ask.
    enlarge: float | None = None
    #: What runs a network; one of `ENGINES`. "auto": the fastest that has been built, else PyTorch.
    engine: str = "auto"
    #: (height, width) of overlapping tiles [px], or `"WIDTHxHEIGHT"`; None or "none": never tiled; "auto": large frames only.
    tile: str | tuple[int, int] | None = "auto"
    #: How many times a network of the LiteFlowNet family first looks at the frames at half their size. None: as the weights and
    #: the size of the frames ask.
    octaves: int | None = None
    #: Once several pairs of one size have come, build a faster engine (OpenVINO) in another process, and go on with it if it turns
    #: out faster. For networks that are named, on the CPU, with the engine "auto".
    prepare: bool = False

    def __post_init__(self) -> None:
        if self.model is not None and not isinstance(self.model, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers err
            raise InputError(f"A model in settings is a name, got {type(self.model).__name__}.")
        if self.model == "":
            raise InputError("The name of the model is empty; `featherflow models` lists those that there are.")
        for name, known in (("dtype", DTYPES), ("engine", ENGINES)):
            if not isinstance(value := getattr(self, name), str) or value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
        if self.weights is not None and not isinstance(self.weights, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"weights is the path of a file, got {self.weights!r}.")
        if self.iterations is not None and not _whole(self.iterations, 1):
            raise InputError(f"The number of iterations must be a whole number of at least 1, got {self.iterations!r}.")
        if self.refine is not None and not _whole(self.refine, 0):
            raise InputError(f"refine is a number of steps, 0 or more, got {self.refine!r}.")
        if self.octaves is not None and not _whole(self.octaves, 0):
            raise InputError(f"octaves is a whole number, 0 or more, got {self.octaves!r}.")
        if self.enlarge is not None and not (_real(self.enlarge) and 0.25 <= self.enlarge <= 4):
            raise InputError(f"enlarge is a factor from 0.25 to 4, got {self.enlarge!r}.")
        if not isinstance(self.prepare, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers err
            raise InputError(f"prepare is True or False, got {self.prepare!r}.")
        if self.prepare and self.engine != "auto":
            raise InputError(f"prepare is for the engine auto; {self.engine} is made ready when it is first used.")
        plain = {
            "weights": None if self.weights is None else os.fsdecode(self.weights),
            "device": None if self.device is None else str(self.device),
            "iterations": None if self.iterations is None else int(self.iterations),
            "refine": None if self.refine is None else int(self.refine),
            "enlarge": None if self.enlarge is None else float(self.enlarge),
            "octaves": None if self.octaves is None else int(self.octaves),
            "tile": checked_tile(self.tile),
        }
        for name, value in plain.items():  # in one form, so that equal settings are equal
            object.__setattr__(self, name, value)


def checked_tile(tile: Tile) -> Tile:
    """None, "auto" or (height, width), from any form of `EstimationSettings.tile`.

    Raises:
        InputError: for anything else, or tiles below `SMALLEST_TILE`.
    """
    chosen: object = tile
    if tile is None:
        return None
    if isinstance(tile, str):
        if tile in ("auto", "none"):
            return None if tile == "none" else tile
        chosen = parse_size(tile)
        if chosen is None:
            raise InputError(f"Tiles are given as auto, none or WIDTHxHEIGHT in pixels, e.g. 1024x768, got '{tile}'.")
    if not isinstance(chosen, list | tuple) or len(chosen) != 2 or not all(_whole(side, 1) for side in chosen):
        raise InputError(f"tile must be None, 'auto' or (height, width) in pixels, got {tile!r}.")
    if min(chosen) < SMALLEST_TILE:
        raise InputError(f"Tiles overlap by {OVERLAP} px and have sides of at least {SMALLEST_TILE} px, got {min(chosen)}.")
    return int(chosen[0]), int(chosen[1])


def _whole(value: object, least: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def _real(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)
