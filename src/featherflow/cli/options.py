"""Options that several verbs share: how flow is estimated, and which part of a clip is taken and how it is written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..inference.settings import EstimationSettings

if TYPE_CHECKING:
    from ..inference import Estimator


@dataclass(frozen=True, kw_only=True)
class EstimationOptions(EstimationSettings):
    """How flow is estimated.

    Parameters
    ----------
    model
        A network (liteflownet2, liteflownet2:tag, the path of a .safetensors file) or a classical method (brox, tv-l1, dis,
        farneback, ...).
    weights
        A .safetensors file to use in place of the model's own weights.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    dtype
        Arithmetic of the convolutions: auto, float32, bfloat16, float16, or int8 with --engine openvino. By default bfloat16 on a
        CPU that computes in it, for networks that were measured to lose less than 1 % by it, else float32.
    iterations
        Number of updates of a network that iterates (raft, flowformer, ...); by default the network's own.
    refine
        Steps of variational refinement at full size after the estimate, for accuracy below the pixel; by default 1 for the weights
        that come with featherflow, else 0.
    enlarge
        Factor by which the network sees the frames enlarged; by default 2 for very small frames where the weights ask for it.
    engine
        What runs a network: torch, compile, openvino or onnx. The last two are built once for each network and frame size. By
        default the fastest that has been built, else torch.
    tile
        Width and height of overlapping tiles for a network, e.g. 1024x768, or none. By default frames of more than 2.2 million
        pixels are tiled; the LiteFlowNet family run by PyTorch sees far larger ones whole.
    octaves
        How many times a network of the LiteFlowNet family first looks at the frames at half their size, for longer motions; by
        default as the weights ask (of liteflownet2 and its like 1, more for frames larger than about 1024x436; the default takes
        none).
    prepare
        For long work on a CPU: once several pairs of one size have come, build the engine openvino in another process, and go on
        with it if it turns out faster.
    verbose
        Say on standard error which engine and arithmetic were taken.
    """

    weights: Path | None = None
    tile: str = "auto"
    prepare: Annotated[bool, Parameter(negative="")] = False
    verbose: Annotated[bool, Parameter(negative="")] = False

    def plain(self) -> EstimationSettings:
        """The settings alone, for another process."""
        return EstimationSettings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(EstimationSettings)})

    def estimator(self) -> Estimator:
        """The estimator that is asked for; from here on what `verbose` asks for is said.

        Raises: as `featherflow.Estimator`.
        """
        from ..inference import Estimator
        from .output import show_log

        if self.verbose:
            show_log()
        return Estimator.of(self)


@dataclass(frozen=True)
class NetworkOptions:
    """A network that is written as a file.

    Parameters
    ----------
    weights
        A .safetensors file to use in place of the model's own weights.
    iterations
        Number of updates of a network that iterates.
    octaves
        How many times a network of the LiteFlowNet family first looks at the frames at half their size; by default as for
        estimate, and where sizes are free as the weights ask.
    """

    weights: Path | None = None
    iterations: int | None = None
    octaves: int | None = None


@dataclass(frozen=True)
class WaysOptions:
    """Ways to run a network, which are timed in turn.

    Parameters
    ----------
    engine
        Engines to run networks by: torch, compile, openvino, onnx; may be given several times. Default: torch.
    dtype
        Arithmetic of the convolutions: float32, bfloat16, float16, int8 (openvino); may be given several times. Default: float32.
    octaves
        Octaves of the LiteFlowNet family, 0 as published; by default as the weights ask for.
    """

    engine: list[str] | None = None
    dtype: list[str] | None = None
    octaves: int | None = None


@dataclass(frozen=True)
class ComputationOptions:
    """Where and in which arithmetic methods are evaluated.

    Parameters
    ----------
    device
        cpu, cuda, ...; by default a GPU if there is one.
    dtype
        Arithmetic of the convolutions: float32 (the same figures on every machine), auto, bfloat16 or float16.
    """

    device: str | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class ClipOptions:
    """Which part of a clip is taken, and how it is written.

    Parameters
    ----------
    start
        Second at which to start.
    end
        Second at which to end.
    fps
        Of a video or camera: take at most so many frames a second, each at its own time. Of images and raw frames: how many are
        shown in a second, 25 by default.
    codec
        vp9, av1, mpeg4 or h264; by default the first of these that is there, but never h264 (its encoder may be under the GPL).
    sound
        Copy the sound of the source, as it is.
    range
        LOW,HIGH: of images deeper than 8 bit, the numbers that are black and white, e.g. 0,4095. By default as many bits of 16 as
        all images need, and of 32-bit images what all of them hold.
    """

    start: float | None = None
    end: float | None = None
    fps: float | None = None
    codec: str | None = None
    sound: Annotated[bool, Parameter(name="audio")] = True
    range: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None

    def settings(self) -> dict[str, Any]:
        """Keywords of `featherflow.video.flow_video` and its like.

        Raises:
            InputError: for a range that is none.
        """
        from .output import parse_range

        settings = dataclasses.asdict(self)
        return settings | {"value_range": parse_range(settings.pop("range"))}


#: As parameters of a verb, whose fields become its options; and their defaults.
Estimation = Annotated[EstimationOptions, Parameter(name="*")]
Clip = Annotated[ClipOptions, Parameter(name="*")]
Network = Annotated[NetworkOptions, Parameter(name="*")]
Ways = Annotated[WaysOptions, Parameter(name="*")]
Computation = Annotated[ComputationOptions, Parameter(name="*")]
ESTIMATION, CLIP, NETWORK = EstimationOptions(), ClipOptions(), NetworkOptions()
WAYS, COMPUTATION = WaysOptions(), ComputationOptions()
