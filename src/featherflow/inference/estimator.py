"""One model made ready once, then called on pairs of frames or on a stream of them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor

from .. import classical
from ..classical.refinement import refine as refined_flow
from ..errors import InputError
from ..flow import trust
from ..frames import as_batches
from ..networks import FlowNetwork, RunOptions, as_network
from ..ops import show_no_motion
from ..weights import default_model
from . import defaults, kept, streaming, tiling
from .few import Few
from .frame import Frame
from .runners import background, choice, processor, pytorch
from .runners.threads import survive_forks
from .settings import Dtype, Engine, EstimationSettings, Tile

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Unpack

    from .settings import Choices

    Path = str | os.PathLike[str]
    #: Forms of a frame, or of a batch of frames, whose flow is an array; of tensors it is a tensor.
    Picture = Path | np.ndarray | Image | list[Path] | list[np.ndarray] | list[Image]
    Tensors = Tensor | list[Tensor]
    Model = str | FlowNetwork | torch.nn.Module | None

log = logging.getLogger("featherflow")


class Estimator:
    """Flow by one model, made ready once.

        estimator = featherflow.Estimator("liteflownet2", refine=0)
        flow = estimator(frame1, frame2)
        forward, backward = estimator.both(frame1, frame2)
        for flow in estimator.stream(frames): ...

    It may be called by any number of threads at once, and gives each what it gives it alone. It changes nothing outside itself: not
    the network that it is given, not the number of threads, no generator of random numbers.

    Args:
        model: a network's name (`"liteflownet2"`, `"liteflownet2:tag"`), the name of a classical method (`"farneback"`, `"dis"`,
            ...), or a network object, which stays where it is and is run in evaluation mode as it is at the time of each call.
            Default: the best weights that come with featherflow.
        settings: keywords, see `EstimationSettings`.

    Raises:
        InputError: for settings that cannot be used, or not by this model. FileError, WeightsError: for weights that cannot be
            loaded.
    """

    #: As they were given, each in its usual form.
    settings: EstimationSettings
    #: What is called: the name of the model, or the class of a network object.
    model: str
    device: torch.device
    #: Of the convolutions of a network, "auto" made a choice.
    dtype: str
    #: Steps of variational refinement that follow an estimate.
    refine: int
    #: What making it ready took [s].
    load_seconds: float

    def __init__(self, model: Model = None, **settings: Unpack[Choices]) -> None:
        if model is None or isinstance(model, str):
            self._prepare(EstimationSettings(model=model, **settings), None)
        else:
            self._prepare(EstimationSettings(**settings), as_network(model))

    @classmethod
    def of(cls, settings: EstimationSettings, loaded: FlowNetwork | None = None) -> Estimator:
        """The estimator that settings describe.

        Args:
            loaded: the network that they name, with its weights and on its device, where it is there already.
        """
        estimator = cls.__new__(cls)
        estimator._prepare(settings, None, loaded)
        return estimator

    def _prepare(self, settings: EstimationSettings, given: FlowNetwork | None, loaded: FlowNetwork | None = None) -> None:
        survive_forks()
        started = time.perf_counter()
        self.settings = settings
        self._network: FlowNetwork | None = None
        self._ready: FlowNetwork | None = None  # what PyTorch runs
        self._identity: str | None = None
        self._is_given = given is not None
        self._builder: background.Builder | None = None
        if given is not None:
            self.model, self.device = type(given).__name__, _device_of(given, settings)
            if settings.weights is not None:
                raise InputError("weights are for a model that is named; a network object has its own.")
            self._network = given
        else:
            self.model, self.device = settings.model or default_model(), defaults.device_named(settings.device)
            if self.model in classical.METHODS:
                _check_classical(self.model, settings)
            else:
                defaults.check_model(self.model)
                self._network = loaded or kept.load(self.model, settings.weights, self.device)
        self.dtype = settings.dtype
        self.refine = settings.refine or 0
        if self._network is not None:
            RunOptions(settings.iterations, settings.octaves).keywords(self._network)  # refuses what the network does not have
            if settings.dtype == "auto":
                self.dtype = defaults.usual_dtype(self._network, self.device)
            if self.device.type == "cpu" and settings.engine in ("auto", "torch", "compile") and processor.cpu_imitates(self.dtype):
                log.warning("this CPU does not compute in %s: PyTorch imitates it, many times as slowly as float32", self.dtype)
            if settings.refine is None:
                self.refine = defaults.usual_refinement(self._network)
            # A network object may be changed between two calls.
            self._ready = self._network if self._is_given else pytorch.made_ready(self._network, self.dtype)
        if settings.prepare:
            self._builder = self._background()
        self.load_seconds = time.perf_counter() - started

    def _background(self) -> background.Builder:
        if self._network is None or self._is_given:
            what = f"'{self.model}' is a classical method" if self._network is None else "a network object may change"
            raise InputError(f"prepare builds an engine for a network that is named; {what}.")
        if self.device.type != "cpu":
            raise InputError(f"prepare builds an engine for the CPU, not for '{self.device}'; leave it out or take device='cpu'.")
        return background.Builder(replace(self.settings, model=self.model))

    @overload
    def __call__(self, frame1: Tensors, frame2: Tensors) -> Tensor: ...
    @overload
    def __call__(self, frame1: Picture, frame2: Picture) -> np.ndarray: ...
    def __call__(self, frame1: Any, frame2: Any) -> Any:
        """Optical flow from `frame1` to `frame2`.

        Args:
            frame1, frame2: two frames, or two batches of frames, of one size of at least 16x16 px: paths, NumPy arrays
                `(H, W, 3)` uint8 RGB, Pillow images, tensors `(3, H, W)`, or lists of these; see `featherflow.frames.as_batch`.
                Both are scaled alike where they are deeper than 8 bit. Two equal frames, and two of which one is of one colour,
                have a flow of exactly zero.

        Returns:
            Flow [px], x to the right, y down, on the first frame's grid: `(H, W, 2)` float32 NumPy, `(B, H, W, 2)` for batches;
            `(2, H, W)` or `(B, 2, H, W)` tensors on the first frame's device where the frames were tensors.

        Raises:
            InputError: for frames that cannot be used or do not fit each other. FileError: for image files that cannot be read.
            EngineError, MissingExtraError: for an engine that cannot run the network, or is not installed.
        """
        first, second = _pair(frame1, frame2)
        return as_given(self._flow(first, second), frame1)

    @overload
    def both(self, frame1: Tensors, frame2: Tensors, *, confidence: Literal[False] = False) -> tuple[Tensor, Tensor]: ...
    @overload
    def both(self, frame1: Tensors, frame2: Tensors, *, confidence: Literal[True]) -> tuple[Tensor, Tensor, Tensor]: ...
    @overload
    def both(self, frame1: Picture, frame2: Picture, *, confidence: Literal[False] = False) -> tuple[np.ndarray, np.ndarray]: ...
    @overload
    def both(self, frame1: Picture, frame2: Picture, *, confidence: Literal[True]) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
    @overload
    def both(self, frame1: Any, frame2: Any, *, confidence: bool = False) -> Any: ...
    def both(self, frame1: Any, frame2: Any, *, confidence: bool = False) -> Any:
        """Optical flow from `frame1` to `frame2`, and from `frame2` to `frame1`: as two calls, and what can be is computed once.

        Args:
            confidence: as a third, the probability that the flow is right at each pixel of `frame1`, `(H, W)` or `(B, H, W)`
                float32 NumPy, `(1, H, W)` or `(B, 1, H, W)` tensors, in [0, 1]: see `featherflow.flow.confidence`.
        """
        first, second = _pair(frame1, frame2)
        flows = self._flow(first, second), self._flow(second, first)
        forward, backward = (as_given(flow, frame1) for flow in flows)
        if not confidence:
            return forward, backward
        trusted = as_given(trust.confidence(first.batch, second.batch, *flows), frame1)
        return forward, backward, trusted if isinstance(trusted, Tensor) else trusted[..., 0]

    @overload
    def stream(
        self, frames: Iterable[Tensor], *, backward: Literal[False] = False, warm_start: bool = False
    ) -> Iterator[Tensor]: ...
    @overload
    def stream(
        self, frames: Iterable[Picture], *, backward: Literal[False] = False, warm_start: bool = False
    ) -> Iterator[np.ndarray]: ...
    @overload
    def stream(self, frames: Iterable[Any], *, backward: bool = False, warm_start: bool = False) -> Iterator[Any]: ...
    def stream(self, frames: Iterable[Any], *, backward: bool = False, warm_start: bool = False) -> Iterator[Any]:
        """Flow from each frame to the next, as frames come in; see `featherflow.stream`."""
        streaming.check_frames(frames)
        if not warm_start:
            return streaming.flows(frames, partial(self._flow, along_stream=True), backward)
        name = self.model if self._is_given else f"'{self.model}'"
        network = streaming.check_warm_start(name, self._network, self.settings)
        warm = streaming.Warm(self._ready or network)

        def between(first: Frame, second: Frame) -> Tensor:
            return self._refined(first, second, warm(self._spec(network, first), first, second))

        return streaming.flows(frames, between, backward)

    def build_engine(self, shape: tuple[int, ...]) -> None:
        """Build the engine that the settings name for frames `(B, 3, H, W)`, if it is not there, for whoever asks for it next.

        Raises:
            EngineError, MissingExtraError: for an engine that cannot run the network, or is not installed.
        """
        if self._network is not None:
            task = self._task(self._network, Frame(torch.zeros(shape)))
            choice.build(choice.choose(self.settings.engine, task), task)

    def _flow(self, first: Frame, second: Frame, along_stream: bool = False) -> Tensor:
        """Flow `(B, 2, H, W)` float32 [px] on the device of the frames."""
        network, settings = self._network, self.settings
        if network is None:
            flow = classical.estimate(self.model, first.batch.cpu(), second.batch.cpu(), self.device)
        else:
            tile = tiling.tile_for(settings.tile, first.size, defaults.largest_untiled(network.traits, settings.engine, self.dtype))
            if tile is None:
                flow = self._whole(network, first, second, along_stream)
            else:

                def one(a: Tensor, b: Tensor) -> Tensor:
                    return self._whole(network, Frame(a), Frame(b)).cpu()

                flow = tiling.estimate_in_tiles(one, first.batch.cpu(), second.batch.cpu(), tile)
        return self._refined(first, second, flow)

    def _refined(self, first: Frame, second: Frame, flow: Tensor) -> Tensor:
        if self.refine:
            flow = refined_flow(first.batch, second.batch, flow, self.refine, self.device)
        return _still_where_nothing_tells(flow.to(first.batch.device), first.batch, second.batch)

    def _task(self, network: FlowNetwork, frame: Frame, along_stream: bool = False) -> choice.Task:
        known = None if self._is_given else self._own_identity(network)
        return choice.Task(network, self._spec(network, frame), known, along_stream)

    def _whole(self, network: FlowNetwork, first: Frame, second: Frame, along_stream: bool = False) -> Tensor:
        task = self._task(network, first, along_stream)
        engine = choice.choose(self.settings.engine, task)
        if engine == "torch" and self._builder is not None and self._builder.has_for(task):
            engine = choice.choose(self.settings.engine, task)
        if engine == "torch":
            ready, spec = self._ready or network, task.spec
            if network.traits.shares_features:
                return pytorch.decode(ready, spec, first.encoded(ready, spec, 0), second.encoded(ready, spec, 1))
            return pytorch.run(ready, spec, first.batch, second.batch)
        return choice.runner(engine, task)(first.batch, second.batch)

    def _spec(self, network: FlowNetwork, frame: Frame) -> pytorch.InferenceSpec:
        """How the network is run on whole frames of this shape."""
        settings, traits = self.settings, network.traits
        enlarge = settings.enlarge or defaults.usual_enlargement(network, frame.size)
        octaves = settings.octaves
        if octaves is None:
            octaves = defaults.usual_octaves(traits, frame.size, enlarge)
        options = RunOptions(settings.iterations, octaves)
        return pytorch.InferenceSpec(tuple(frame.batch.shape), traits, self.device, self.dtype, options, enlarge)

    def _own_identity(self, network: FlowNetwork) -> str | None:
        """Of a network that nobody else has, found out once, and only if an engine other than PyTorch may be asked for it."""
        if self._identity is None and self.settings.engine not in ("torch", "compile"):
            self._identity = choice.identity(network)
        return self._identity


def _device_of(network: FlowNetwork, settings: EstimationSettings) -> torch.device:
    """Where a network object is.

    Raises:
        InputError: if that is not where the settings ask for.
    """
    tensors = [*network.parameters(), *network.buffers()]
    where = tensors[0].device if tensors else torch.device("cpu")
    asked = where if settings.device is None else defaults.device_named(settings.device)
    if (asked.type, asked.index or 0) != (where.type, where.index or 0):
        raise InputError(f"The network is on '{where}', not on '{asked}'; move it with .to('{asked}'), or leave the device out.")
    return where


def _check_classical(model: str, settings: EstimationSettings) -> None:
    for name, value in (
        ("weights", settings.weights),
        ("number of iterations", settings.iterations),
        ("enlargement", settings.enlarge),
        ("engine", None if settings.engine == "auto" else settings.engine),
        ("octaves", settings.octaves),
    ):
        if value is not None:
            raise InputError(f"'{model}' is a classical method and takes no {name}.")


def as_given(flow: Tensor, frame: Any) -> Any:
    """Flow `(B, 2, H, W)` in the form in which a frame was given."""
    flow = flow if isinstance(frame, list | tuple) or getattr(frame, "ndim", 0) == 4 else flow[0]
    is_tensor = isinstance(frame[0] if isinstance(frame, list | tuple) else frame, Tensor)
    return flow if is_tensor else flow.movedim(-3, -1).contiguous().cpu().numpy()


def _pair(frame1: Any, frame2: Any) -> tuple[Frame, Frame]:
    first, second = as_batches((frame1, frame2), ("frame1", "frame2"))
    if first.shape != second.shape:
        raise InputError(f"The two frames must have one size, got {_describe(first)} and {_describe(second)}.")
    return Frame(first), Frame(second.to(first.device))


def _still_where_nothing_tells(flow: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Flow `(B, 2, H, W)` of two batches of frames, and exactly zero for each two that show no motion."""
    still = [index for index, nothing in enumerate(show_no_motion(first, second)) if nothing]
    if still:
        flow = flow.clone()  # it may be an inference tensor
        flow[still] = 0
    return flow


def _describe(batch: Tensor) -> str:
    count = f" ({batch.shape[0]} frames)" if batch.shape[0] > 1 else ""
    return f"{batch.shape[-1]}x{batch.shape[-2]}{count}"


@overload
def estimate(
    frame1: Tensors,
    frame2: Tensors,
    model: Model = None,
    *,
    backward: Literal[False] = False,
    confidence: Literal[False] = False,
    **settings: Unpack[Choices],
) -> Tensor: ...
@overload
def estimate(
    frame1: Tensors,
    frame2: Tensors,
    model: Model = None,
    *,
    backward: Literal[False] = False,
    confidence: Literal[True],
    **settings: Unpack[Choices],
) -> tuple[Tensor, Tensor]: ...
@overload
def estimate(
    frame1: Tensors,
    frame2: Tensors,
    model: Model = None,
    *,
    backward: Literal[True],
    confidence: Literal[False] = False,
    **settings: Unpack[Choices],
) -> tuple[Tensor, Tensor]: ...
@overload
def estimate(
    frame1: Tensors,
    frame2: Tensors,
    model: Model = None,
    *,
    backward: Literal[True],
    confidence: Literal[True],
    **settings: Unpack[Choices],
) -> tuple[Tensor, Tensor, Tensor]: ...
@overload
def estimate(
    frame1: Picture,
    frame2: Picture,
    model: Model = None,
    *,
    backward: Literal[False] = False,
    confidence: Literal[False] = False,
    **settings: Unpack[Choices],
) -> np.ndarray: ...
@overload
def estimate(
    frame1: Picture,
    frame2: Picture,
    model: Model = None,
    *,
    backward: Literal[False] = False,
    confidence: Literal[True],
    **settings: Unpack[Choices],
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def estimate(
    frame1: Picture,
    frame2: Picture,
    model: Model = None,
    *,
    backward: Literal[True],
    confidence: Literal[False] = False,
    **settings: Unpack[Choices],
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def estimate(
    frame1: Picture,
    frame2: Picture,
    model: Model = None,
    *,
    backward: Literal[True],
    confidence: Literal[True],
    **settings: Unpack[Choices],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
@overload
def estimate(
    frame1: Any, frame2: Any, model: Model = None, *, backward: bool = False, confidence: bool = False, **settings: Unpack[Choices]
) -> Any: ...
def estimate(
    frame1: Any,
    frame2: Any,
    model: Model = None,
    *,
    backward: bool = False,
    confidence: bool = False,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    dtype: Dtype = "auto",
    iterations: int | None = None,
    refine: int | None = None,
    enlarge: float | None = None,
    engine: Engine = "auto",
    tile: Tile = "auto",
    octaves: int | None = None,
    prepare: bool = False,
) -> Any:
    """Optical flow from `frame1` to `frame2`: what an `Estimator` with these settings gives. The last few of them are kept, so that
    asking again costs nothing; of a weight file that has changed since, the new weights are taken.

    Args:
        frame1, frame2: two frames, or two batches of frames, of one size of at least 16x16 px: paths, NumPy arrays
            `(H, W, 3)` uint8 RGB, Pillow images, tensors `(3, H, W)`, or lists of these; see `featherflow.frames.as_batch`; both
            are scaled alike where they are deeper than 8 bit. Two equal frames, and two of which one is of one colour, have a flow
            of exactly zero.
        model: a network's name (`"liteflownet2"`, `"liteflownet2:tag"`), the name of a classical method
            (`"farneback"`, `"dis"`, ...) or a network object. Default: the best weights that come with featherflow.
        backward: also the flow from `frame2` to `frame1`.
        confidence: also the probability that the flow is right at each pixel, see `featherflow.flow.confidence`; takes both flows.
        weights: a `.safetensors` file to use in place of the model's own weights.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, ... Default: the first GPU if there is one; of a network object, where that is.
        dtype: of the convolutions: `"float32"`, `"bfloat16"`, `"float16"`, or by the engine `"openvino"` `"int8"`; flow stays
            in float32. Default `"auto"`: bfloat16 where the CPU computes in it and its cost in accuracy was measured to be below
            1 % for the network, else float32.
        iterations: number of updates of a network that iterates (RAFT, FlowFormer, ...). Default: the network's own.
        refine: steps of variational refinement at full size after the estimate, see `featherflow.classical.refinement`. Default:
            one for the weights that come with featherflow, else none.
        enlarge: factor by which a network sees the frames enlarged; the flow comes back at their own size. Default: as the
            weights ask (2 for frames of fewer pixels than their `enlarge_below`, else 1).
        engine: what runs a network: `"torch"`, `"compile"` (PyTorch's compiler), `"openvino"` or `"onnx"` (built once for each
            network and frame size, and kept). Default `"auto"`: the fastest that has been built, else PyTorch as it is.
        tile: (height, width) [px] of overlapping tiles in which a network runs, so that memory does not grow with the frames;
            None: never. Default `"auto"`: tiles for frames of more than 2.2 million pixels, see `featherflow.inference.tiling`; the
            LiteFlowNet family by PyTorch sees far larger ones whole (`liteflownet-tied` up to 7680x4320), in bounded memory.
        octaves: how many times a network of the LiteFlowNet family first looks at the frames at half their size and starts from
            what it finds there: each doubles the motions in reach, the first for a quarter more operations. Default: as the
            weights ask (0 for official ones; 1 for those of `liteflownet2` and its like that come with featherflow, and one more
            for about each fourfold of pixels beyond 450,000). `liteflownet-tied` takes none: its levels grow with the frames.
        prepare: once several pairs of one size have come, build the engine `"openvino"` in another process, and go on with it if it
            turns out faster: for long work on a CPU, by a network that is named.

    Returns:
        Flow [px], x to the right, y down, on the first frame's grid: `(H, W, 2)` float32 NumPy, `(B, H, W, 2)` for batches;
        `(2, H, W)` or `(B, 2, H, W)` tensors on the first frame's device where the frames were tensors. With `backward`, a pair of
        these; with `confidence`, that follows as the last, `(H, W)` or `(1, H, W)` and likewise for batches, in [0, 1].

    Raises:
        InputError: for frames that cannot be used or do not fit each other, or an unknown model, device or dtype.
        FileError: for image files that cannot be read. WeightsError: for a model without weights.
    """
    made = kept_estimator(
        model,
        weights=weights,
        device=device,
        dtype=dtype,
        iterations=iterations,
        refine=refine,
        enlarge=enlarge,
        engine=engine,
        tile=tile,
        octaves=octaves,
        prepare=prepare,
    )
    if confidence:
        forward, *others = cast(tuple[Any, ...], made.both(frame1, frame2, confidence=True))
        return (forward, *others) if backward else (forward, others[1])
    return cast(Any, made.both(frame1, frame2) if backward else made(frame1, frame2))


@overload
def stream(
    frames: Iterable[Tensor],
    model: Model = None,
    *,
    backward: Literal[False] = False,
    warm_start: bool = False,
    **settings: Unpack[Choices],
) -> Iterator[Tensor]: ...
@overload
def stream(
    frames: Iterable[Picture],
    model: Model = None,
    *,
    backward: Literal[False] = False,
    warm_start: bool = False,
    **settings: Unpack[Choices],
) -> Iterator[np.ndarray]: ...
@overload
def stream(
    frames: Iterable[Any], model: Model = None, *, backward: bool = False, warm_start: bool = False, **settings: Unpack[Choices]
) -> Iterator[Any]: ...
def stream(
    frames: Iterable[Any],
    model: Model = None,
    *,
    backward: bool = False,
    warm_start: bool = False,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    dtype: Dtype = "auto",
    iterations: int | None = None,
    refine: int | None = None,
    enlarge: float | None = None,
    engine: Engine = "auto",
    tile: Tile = "auto",
    octaves: int | None = None,
    prepare: bool = False,
) -> Iterator[Any]:
    """Flow from each frame to the next, as frames come in.

        for flow in featherflow.stream(frames): ...

    The flows equal those of `estimate` on each two neighbours to 1e-4 px, unless `warm_start` is asked for. With weights of the
    LiteFlowNet family, each frame's features are computed once for each colour mean: the weights that come with featherflow have
    one mean for both frames of a pair, the official ones have two (then there is something to reuse with `backward` only). Pair
    by pair go other models, frames that are estimated in tiles, and engines other than PyTorch.

    Args:
        frames: single frames of one size, one at a time, as `estimate` takes them. Nothing is read ahead.
        backward: both directions, (frame to next, next to frame).
        warm_start: start each pair but the first from the flow of the pair before, carried along itself. For networks that update a
            flow (RAFT, FlowFormer, RAFT-Stereo), run by PyTorch and on whole frames ("auto" makes no tiles then). Each direction
            starts from its own flow. After a cut the start is a wrong one.
        model, weights, device, dtype, iterations, refine, enlarge, engine, tile, octaves, prepare: as `estimate`.

    Yields:
        One flow less than there are frames: `(H, W, 2)` float32 NumPy [px], or `(2, H, W)` tensors on the frames' device where the
        frames are tensors; with `backward`, a pair of these.

    Raises:
        InputError: at once for settings that cannot be used, later for the frame that cannot be used; others as `estimate`.
    """
    streaming.check_frames(frames)
    made = kept_estimator(
        model,
        weights=weights,
        device=device,
        dtype=dtype,
        iterations=iterations,
        refine=refine,
        enlarge=enlarge,
        engine=engine,
        tile=tile,
        octaves=octaves,
        prepare=prepare,
    )
    return made.stream(frames, backward=backward, warm_start=warm_start)


def kept_estimator(model: Model = None, **settings: Unpack[Choices]) -> Estimator:
    """What `estimate` calls: of a name an estimator that is kept, of a network object a new one, which keeps nothing alive."""
    if model is not None and not isinstance(model, str):
        return Estimator(model, **settings)
    chosen = EstimationSettings(model=model, **settings)
    if (chosen.model or default_model()) in classical.METHODS:
        return Estimator.of(chosen)
    defaults.check_model(chosen.model or default_model())
    file = kept.weight_file(chosen.model or default_model(), chosen.weights)

    def make() -> Estimator:
        return Estimator.of(chosen, kept.shared(chosen.model or default_model(), file, defaults.device_named(chosen.device)))

    return _ESTIMATORS.get((chosen, file.digest), make)


_ESTIMATORS: Few[Estimator] = Few(4)
