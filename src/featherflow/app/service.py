"""The application: `POST /v1/flow`, `GET /v1/models`, `/healthz`, `/metrics`. Every refusal is one sentence, `{"error": ...}`."""

import asyncio
import contextlib
import dataclasses
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..errors import FeatherflowError, InputError, LimitError
from ..flow import encode_flow, encode_flow_picture, occlusion
from .guards import Headers, KnownHosts, SameOrigin, Token, refusal
from .metrics import Metrics
from .offer import Model, models_on_offer
from .queues import BusyError, Estimate, Options, PairQueue
from .settings import Settings
from .uploads import Upload, Uploads
from .workers import DeadlineError, WorkerDiedError, Workers

FLO, PICTURE, NPZ, KITTI = "application/octet-stream", "image/png", "application/x-npz", "image/x-kitti-png"
#: Types of answer, the one that is given when any will do first, and the file name of each.
ANSWERS = {FLO: "flow.flo", PICTURE: "flow-picture.png", NPZ: "flow.npz", KITTI: "flow.png"}


#: s that a pair which has its turn is given beyond its deadline, for the worker to be ended.
_GRACE = 2.0


class Error(BaseModel):
    """What was wrong, in one sentence."""

    error: str


class Health(BaseModel):
    """That the service answers, and how many pairs wait."""

    status: Literal["ok"]
    version: str
    waiting: int


class ModelEntry(BaseModel):
    """A model on offer."""

    name: str
    kind: Literal["network", "classical"]
    summary: str
    paper: str
    licence: str | None = Field(description="licence of a network's weights")
    default: bool


class FlowQuery(BaseModel):
    """Parameters of `POST /v1/flow`."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="a name that `GET /v1/models` lists")
    backward: bool = Field(False, description="also the flow from frame 2 to frame 1 and the occlusion; NPZ only")
    confidence: bool = Field(False, description="also the probability of each pixel's flow to be right to 1 px or 5 %; NPZ only")
    min_confidence: float | None = Field(None, ge=0, le=1, description="pixels of less confidence are unknown")
    refine: int | None = Field(None, ge=0, le=10, description="steps of variational refinement; without it as the model asks")
    iterations: int | None = Field(None, ge=1, le=64, description="updates of a network that iterates")
    enlarge: float | None = Field(None, ge=0.25, le=4, description="factor by which a network sees the frames enlarged")
    scale: float | None = Field(None, gt=0, le=1e6, description="flow length in pixels that the picture draws in full colour")


class Engine:
    """What the routes share: limits, models, reading, estimating."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models: dict[str, Model] = models_on_offer(settings.models)
        self.metrics = Metrics(lambda: self.queue.waiting)
        self.queue = PairQueue(settings, self.metrics.observe_batch)
        self.uploads = Uploads(settings)
        # Decoding and encoding run beside the estimation, a few at a time, so that they cannot fill the memory. Files are decoded
        # in processes of their own, small ones apart from large ones.
        self._pool = ThreadPoolExecutor(2, "featherflow-files")
        self._decoders = [_Decoders(2, settings), _Decoders(1, settings)]
        self._endings: list[Callable[[], None]] = []
        self._started = False

    def at_end(self, ending: Callable[[], None]) -> None:
        """Call `ending` when the service ends."""
        self._endings.append(ending)

    async def run(self, function, *arguments):
        """`function(*arguments)` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def deadline(self) -> float:
        """When an answer to a request that is complete now must be ready, of `time.monotonic`."""
        return time.monotonic() + self.settings.seconds

    async def decode(self, task: str, upload: Upload, name: str, deadline: float) -> np.ndarray:
        """The array in a file, by a task of `worker` in a process of its own.

        Raises `HTTPException` 422 for a file that takes too long or breaks a decoder, 503 beyond `deadline` or the memory; and as
        the task.
        """
        content = {"name": name, "max_pixels": self.settings.max_pixels}
        return (await self._decoded(task, content, [np.frombuffer(upload.data, np.uint8)], name, deadline))[0]

    async def _decoded(self, task: str, content: dict[str, Any], arrays: list[np.ndarray], name: str, deadline: float):
        large = 8 * sum(array.nbytes for array in arrays) > self.settings.max_bytes
        seconds = min(self.settings.decode_seconds, max(deadline - time.monotonic(), 0))
        try:
            return await self._decoders[large].run(task, content, arrays, seconds)
        except DeadlineError:
            if seconds < self.settings.decode_seconds:
                raise self._late() from None
            raise HTTPException(422, f"{name} takes more than {seconds:g} s to decode; save it again as a usual file.") from None
        except WorkerDiedError:
            raise HTTPException(422, f"{name} cannot be read: its decoder broke down over it.") from None
        except MemoryError:
            raise _no_memory() from None

    async def frames(self, first: Upload, second: Upload, deadline: float) -> tuple[np.ndarray, np.ndarray]:
        """Two frames `(H, W, 3)` uint8 RGB of one size; those that are deeper are scaled alike.

        Raises `HTTPException` 429 where nothing would come of it, as `decode`, `LimitError` or `FileError` as `decode_image`, and
        `InputError`.
        """
        if self.queue.full:
            raise _busy()
        names = ("frame1", "frame2")
        frames = [await self.decode("image", upload, name, deadline) for name, upload in zip(names, (first, second), strict=True)]
        if frames[0].shape[:2] != frames[1].shape[:2]:
            sizes = " and ".join(f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames)
            raise InputError(f"frame1 and frame2 must have one size, got {sizes}.")
        if any(frame.dtype != np.uint8 for frame in frames):
            frames = await self._decoded("alike", {"names": names}, frames, " and ".join(names), deadline)
        return frames[0], frames[1]

    def model(self, name: str | None) -> str:
        """A name that is on offer; without a name, the default.

        Raises `InputError` for another one.
        """
        name = name or next(iter(self.models))
        if name not in self.models:
            raise InputError(f"There is no model '{name}' here; GET /v1/models lists those on offer.")
        return name

    async def estimate(
        self, request: Request, options: Options, frame1: np.ndarray, frame2: np.ndarray, deadline: float
    ) -> Estimate:
        """Wait for a turn, and for the flow. A client that goes away gives its turn up.

        Raises `HTTPException` 429 when the queue is full, 503 when it takes too long or too much memory; and as
        `featherflow.estimate`.
        """
        try:
            result = asyncio.wrap_future(self.queue.submit(options, frame1, frame2, deadline))
        except BusyError:
            raise _busy() from None
        watch = asyncio.create_task(_disconnection(request))
        try:
            # The worker's own clock comes first; this one is for pairs that never had their turn.
            left = max(deadline - time.monotonic(), 0) + _GRACE
            await asyncio.wait((result, watch), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if watch.done():
                raise HTTPException(400, "The client went away before its answer was ready.")
            raise self._late()
        except DeadlineError:
            raise self._late() from None
        except MemoryError:
            raise _no_memory() from None
        finally:
            result.cancel()
            watch.cancel()

    def _late(self) -> HTTPException:
        sentence = f"The flow was not ready within {self.settings.seconds:g} s; try again later or with smaller frames."
        return HTTPException(503, sentence, {"Retry-After": "10"})

    def start(self) -> None:
        """Start the processes and load the default model, unless that is done.

        Raises:
            WeightsError: for a model without weights, and whatever else keeps it from being loaded.
        """
        if not self._started:
            for model in self._first_models():
                self.queue.prepare(model)
            for decoders in self._decoders:
                decoders.start()
            self._started = True

    def _first_models(self) -> list[str]:
        """What is loaded at the start: the default, and for engines to be built a network, so that what is missing is said."""
        if not self.settings.prepare:
            return [self.model(None)]
        networks = [name for name, model in self.models.items() if model.kind == "network"]
        if not networks:
            raise InputError("prepare builds engines for networks, and no network is on offer.")
        return list(dict.fromkeys((self.model(None), networks[0])))

    def close(self) -> None:
        """Finish what is waiting, and end all threads and processes."""
        for ending in self._endings:
            ending()
        self.queue.close()
        self._pool.shutdown()
        for decoders in self._decoders:
            decoders.close()


class _Decoders:
    """Worker processes that decode, and a thread for each that waits for it."""

    def __init__(self, count: int, settings: Settings) -> None:
        # One frame takes up to some 40 bytes for each pixel while it is decoded.
        self._workers = Workers(count, memory=(1 << 30) + 48 * settings.max_pixels + 4 * settings.max_bytes, threads=1)
        self._pool = ThreadPoolExecutor(count, "featherflow-decoder")

    async def run(self, task: str, content: dict[str, Any], arrays: list[np.ndarray], seconds: float) -> list[np.ndarray]:
        """The arrays that a task makes of others, within so many seconds of its turn."""

        def call() -> list[np.ndarray]:
            return self._workers.call(task, content, arrays, seconds=seconds)[1]

        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def start(self) -> None:
        self._workers.start()

    def close(self) -> None:
        self._workers.close()
        self._pool.shutdown()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_memory() -> HTTPException:
    return HTTPException(503, "There is not enough memory for frames of this size; try smaller ones.")


def _busy() -> HTTPException:
    return HTTPException(429, "As many pairs wait as may; try again in a moment.", {"Retry-After": "1"})


def create_app(settings: Settings) -> FastAPI:
    """See `featherflow.app.create_app`. The default model is loaded when it starts, so that the first request finds it ready."""
    engine = Engine(settings)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI):
        try:
            await asyncio.to_thread(engine.start)
            yield
        finally:
            await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="featherflow",
        version=__version__,
        summary="Dense optical flow: how every pixel moves from one frame to the next.",
        license_info={"name": "Apache-2.0"},
        lifespan=life,
        docs_url=None,
        redoc_url=None,  # their pages would load scripts from elsewhere
        responses={500: {"model": Error, "description": "A fault of the service"}},
    )
    app.state.engine = engine
    if settings.token:
        app.add_middleware(Token, token=settings.token, free=frozenset({"/healthz", "/openapi.json"}))
    app.add_middleware(SameOrigin)
    app.add_middleware(KnownHosts, settings=settings)
    app.add_middleware(engine.metrics.wrap)
    app.add_middleware(Headers)
    _answer_errors_in_sentences(app)
    # The token itself is looked at before a request gets here; this is for the document.
    scheme = HTTPBearer(auto_error=False, description="The token that the service was started with")
    guard = [Depends(scheme)] if settings.token else []
    refused: dict[int | str, dict[str, Any]] = {401: _refusal("No token, or not the right one")} if settings.token else {}

    @app.get("/healthz", summary="Does it answer?")
    async def health() -> Health:
        return Health(status="ok", version=__version__, waiting=engine.queue.waiting)

    @app.get(
        "/metrics",
        summary="For Prometheus",
        dependencies=guard,
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **refused},
    )
    async def metrics() -> Response:
        return Response(engine.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", summary="Models on offer, the default first", dependencies=guard, responses=refused)
    async def models() -> list[ModelEntry]:
        return [ModelEntry(**dataclasses.asdict(model)) for model in engine.models.values()]

    @app.post(
        "/v1/flow",
        summary="Flow between two frames",
        dependencies=guard,
        response_class=Response,
        responses=_FLOW_RESPONSES | refused,
        openapi_extra={"requestBody": _FLOW_BODY},
    )
    async def flow(request: Request, query: Annotated[FlowQuery, Query()]) -> Response:
        """The flow from frame 1 to frame 2 on frame 1's grid, in pixels, x to the right and y down.

        The header `Accept` chooses the answer: a Middlebury `.flo` file (`application/octet-stream`), a colour picture
        (`image/png`), a NumPy archive (`application/x-npz`) or a KITTI PNG in steps of 1/64 px (`image/x-kitti-png`).
        Frames are PNG, JPEG, WebP, TIFF, BMP or PPM, of one size, at least 16x16.
        """
        answer = negotiate(request.headers.get("accept"))
        for what, asked in (("backward flow", query.backward), ("confidence", query.confidence)):
            if asked and answer != NPZ:
                raise InputError(f"The {what} fits into an NPZ only; send 'Accept: {NPZ}'.")
        trusted = query.confidence or query.min_confidence is not None
        options = Options(engine.model(query.model), query.backward, query.refine, query.iterations, query.enlarge, trusted)
        files = await engine.uploads.files(request, ("frame1", "frame2"))
        deadline = engine.deadline()
        frames = await engine.frames(files["frame1"], files["frame2"], deadline)
        estimate = await engine.estimate(request, options, *frames, deadline)
        content, headers = await engine.run(_encode, answer, estimate, query)
        headers |= {"X-Flow-Model": options.model, "X-Flow-Seconds": f"{estimate.seconds:.4f}"}
        return Response(content, media_type=answer, headers=headers)

    if settings.page:
        from .page import add_page

        add_page(app, engine)
    return app


def _encode(answer: str, estimate: Estimate, query: FlowQuery) -> tuple[bytes, dict[str, str]]:
    headers = {"Content-Disposition": f'attachment; filename="{ANSWERS[answer]}"', "Vary": "Accept"}
    flow, confidence = estimate.flow, estimate.confidence
    if query.min_confidence is not None and confidence is not None:
        flow = np.where(confidence[..., None] >= query.min_confidence, flow, np.float32(np.nan))
    if answer == PICTURE:
        content, scale = encode_flow_picture(flow, query.scale)
        return content, headers | {"X-Flow-Scale-Px": f"{scale:g}"}
    if not query.backward:
        return encode_flow(ANSWERS[answer], flow, confidence=confidence if query.confidence else None), headers
    buffer = io.BytesIO()
    assert estimate.backward is not None  # it was asked for
    arrays: dict[str, Any] = {
        "flow": flow,
        "backward": estimate.backward,
        "occlusion": occlusion(estimate.flow, estimate.backward),
    }
    arrays |= {"valid": ~np.isnan(flow[..., 0])} if query.min_confidence is not None else {}
    arrays |= {"confidence": confidence} if query.confidence else {}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue(), headers


def negotiate(accept: str | None) -> str:
    """The type of answer that the header `Accept` prefers, of those in `ANSWERS`; without the header, the first.

    Raises `HTTPException` 406 when it takes none of them.
    """
    best, best_quality = None, 0.0
    for part in (accept or "*/*").split(","):
        wanted, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        matches = [kind for kind in ANSWERS if wanted in (kind, "*/*", f"{kind.partition('/')[0]}/*")]
        if matches and quality > best_quality:
            best, best_quality = matches[0], quality
    if best is None:
        raise HTTPException(406, f"The flow can be sent as {', '.join(ANSWERS)}; the header Accept takes none of these.")
    return best


def _answer_errors_in_sentences(app: FastAPI) -> None:
    @app.exception_handler(FeatherflowError)
    async def of_featherflow(_: Request, error: FeatherflowError) -> JSONResponse:
        return refusal(str(error), 413 if isinstance(error, LimitError) else 422)

    @app.exception_handler(RequestValidationError)
    async def of_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
        first: dict[str, Any] = error.errors()[0]
        sentence = f"The parameter '{first['loc'][-1]}' cannot be used: {first['msg'][:1].lower()}{first['msg'][1:]}."
        return refusal(sentence, 422)

    @app.exception_handler(AnyHTTPException)
    async def of_http(request: Request, error: AnyHTTPException) -> JSONResponse:
        sentence = {
            404: f"There is nothing at {request.url.path}.",
            405: f"{request.method} is not possible at {request.url.path}.",
        }.get(error.status_code, error.detail)
        return refusal(sentence, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def of_clients_that_left(_: Request, error: ClientDisconnect) -> JSONResponse:
        return refusal("The client went away before its request was complete.", 400)

    @app.exception_handler(Exception)
    async def of_ours(_: Request, error: Exception) -> JSONResponse:
        return refusal("The service failed on this request; its log says why.", 500)


def _refusal(description: str) -> dict[str, Any]:
    return {"model": Error, "description": description}


_FILE = {"type": "string", "format": "binary"}
_TEXT = {"type": "string", "format": "byte", "description": "an image file in base64 or as a data URL of it"}


def _object(frame: dict[str, Any]) -> dict[str, Any]:
    properties = {"frame1": frame, "frame2": frame}
    return {"schema": {"type": "object", "required": [*properties], "properties": properties, "additionalProperties": False}}


_FLOW_BODY = {"required": True, "content": {"multipart/form-data": _object(_FILE), "application/json": _object(_TEXT)}}
_FLOW_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The flow, as the header Accept asks", "content": {kind: {"schema": _FILE} for kind in ANSWERS}},
    400: _refusal("The client went away"),
    406: _refusal("None of the types in Accept can be sent"),
    408: _refusal("The request took too long to arrive"),
    413: _refusal("Too many bytes, or frames of too many pixels"),
    415: _refusal("Neither a form nor JSON"),
    421: _refusal("Another host is asked for"),
    422: _refusal("Parameters or files that cannot be used"),
    429: _refusal("Too many pairs wait, or too many requests are under way"),
    503: _refusal("Not ready in time, or not enough memory"),
}
