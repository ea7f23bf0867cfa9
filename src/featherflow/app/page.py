"""The page: its files, and what its script asks for. A result stays in memory until newer ones need the room."""

import dataclasses
import io
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from PIL import Image

from .. import demo
from ..errors import InputError
from ..flow import (
    FlowErrors,
    FlowMetrics,
    automatic_scale,
    backward_warp,
    colour_wheel_legend,
    draw_arrows,
    draw_confidence,
    encode_flow,
    error_map,
    flow_to_rgb,
    mark,
    occlusion,
    overlay,
)
from .clips import ClipJob, Clips, write_within
from .guards import PAGE_HEADERS
from .queues import Options
from .uploads import Upload

_FILES = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml", "wheel.png": "image/png"}
_FOLDER = Path(__file__).parent / "static"
_EXAMPLE = {"frame1.png": demo.FRAME1, "frame2.png": demo.FRAME2, "flow.png": demo.TRUTH}
#: Formats of a true flow whose size is known before it is unpacked.
_TRUTH = (".flo", ".pfm", ".png")


@dataclass(frozen=True)
class Result:
    """One pair and all that is known about it; shapes as in `featherflow.estimate`."""

    frame1: np.ndarray
    frame2: np.ndarray
    flow: np.ndarray
    backward: np.ndarray
    confidence: np.ndarray
    truth: np.ndarray | None
    errors: FlowErrors | None
    #: Length [px] in full colour: of the truth, where there is one, so that both have the same colours.
    scale: float

    @property
    def pixels(self) -> int:
        return self.flow.shape[0] * self.flow.shape[1]


#: Pictures of a result by name; None where the result has no truth.
VIEWS: dict[str, Callable[[Result], np.ndarray | None]] = {
    "colour": lambda result: flow_to_rgb(result.flow, result.scale),
    "arrows": lambda result: draw_arrows(result.frame1, result.flow),
    "overlay": lambda result: overlay(result.frame1, result.flow, result.scale),
    "frame1": lambda result: result.frame1,
    "warped": lambda result: backward_warp(result.frame2, result.flow)[0],
    "occlusion": lambda result: mark(result.frame1, occlusion(result.flow, result.backward)),
    "confidence": lambda result: draw_confidence(result.frame1, result.confidence),
    "truth": lambda result: None if result.truth is None else flow_to_rgb(result.truth, result.scale),
    "error": lambda result: None if result.truth is None else error_map(result.flow, result.truth),
}
#: Flow files that can be saved.
_SAVED = {"flow.flo": "application/octet-stream", "flow.npz": "application/x-npz", "flow.png": "image/png"}


class Results:
    """The latest results by a name that nobody can guess, as many as hold four of the largest frames."""

    def __init__(self, max_pixels: int) -> None:
        self._most = 4 * max_pixels
        self._results: OrderedDict[str, Result] = OrderedDict()

    def add(self, result: Result) -> str:
        while self._results and sum(other.pixels for other in self._results.values()) + result.pixels > self._most:
            self._results.popitem(last=False)
        name = secrets.token_urlsafe(12)
        self._results[name] = result
        return name

    def get(self, name: str) -> Result:
        """Raises `HTTPException` 404 for one that is not there any more."""
        if name not in self._results:
            raise HTTPException(404)
        self._results.move_to_end(name)
        return self._results[name]


def add_page(app: FastAPI | APIRouter, engine) -> None:
    """Add the page's routes to the service's application, whose `Engine` does the work."""
    results = Results(engine.settings.max_pixels)
    clips = Clips(engine.settings.estimation)
    engine.at_end(clips.close)
    _add_clips(app, engine, clips)
    wheel = _png(colour_wheel_legend(192))

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response((_FOLDER / "index.html").read_bytes(), media_type="text/html", headers=PAGE_HEADERS)

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in _FILES:
            raise HTTPException(404)
        content = wheel if name == "wheel.png" else (_FOLDER / name).read_bytes()
        return Response(content, media_type=_FILES[name], headers=PAGE_HEADERS)

    @app.get("/page/example/{name}", include_in_schema=False)
    async def example(name: str) -> Response:
        if name not in _EXAMPLE:
            raise HTTPException(404)
        return Response(_EXAMPLE[name].read_bytes(), media_type="image/png", headers=PAGE_HEADERS)

    @app.post("/page/flow", include_in_schema=False)
    async def flow(
        request: Request, model: str | None = None, refine: Annotated[int | None, Query(ge=0, le=10)] = None
    ) -> dict[str, Any]:
        options = Options(engine.model(model), backward=True, refine=refine, confidence=True)
        files = await engine.uploads.files(request, ("frame1", "frame2"), ("truth",))
        deadline = engine.deadline()
        frame1, frame2 = await engine.frames(files["frame1"], files["frame2"], deadline)
        truth = None
        if "truth" in files:
            truth = await engine.decode("truth", files["truth"], _truth_name(files["truth"]), deadline)
            if truth.shape != (*frame1.shape[:2], 2):
                sizes = f"{truth.shape[1]}x{truth.shape[0]}, and the frames are {frame1.shape[1]}x{frame1.shape[0]}"
                raise InputError(f"The true flow is {sizes}; they must have one size.")
        estimate = await engine.estimate(request, options, frame1, frame2, deadline)
        result = await engine.run(_result, frame1, frame2, estimate, truth)
        length = np.hypot(estimate.flow[..., 0], estimate.flow[..., 1])
        return {
            "id": results.add(result),
            "model": options.model,
            "width": frame1.shape[1],
            "height": frame1.shape[0],
            "seconds": estimate.seconds,
            "mean": float(length.mean()),
            "longest": float(length.max()),
            "scale": result.scale,
            "errors": dataclasses.asdict(result.errors) if result.errors else None,
        }

    @app.get("/page/results/{identity}/{name}", include_in_schema=False)
    async def part(identity: str, name: str) -> Response:
        result = results.get(identity)
        headers = PAGE_HEADERS | {"Cache-Control": "private, max-age=86400, immutable"}
        if name in _SAVED:
            confidence = result.confidence if name.endswith(".npz") else None
            content = await engine.run(encode_flow, name, result.flow, None, confidence)
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
            return Response(content, media_type=_SAVED[name], headers=headers)
        if name == "truth.flo" and result.truth is not None:
            return Response(await engine.run(encode_flow, name, result.truth), headers=headers)
        view = VIEWS.get(name.removesuffix(".png"))
        picture = await engine.run(view, result) if view else None
        if picture is None:
            raise HTTPException(404)
        return Response(await engine.run(_png, picture), media_type="image/png", headers=headers)


def _add_clips(app: FastAPI | APIRouter, engine, clips: Clips) -> None:
    def found(identity: str) -> ClipJob:
        job = clips.get(identity)
        if job is None:
            raise HTTPException(404)
        return job

    @app.post("/page/clip", include_in_schema=False)
    async def start(request: Request, name: str, view: str = "colour", model: str | None = None) -> dict[str, str]:
        model, path, length = engine.model(model), clips.new_file(name), 0
        try:
            with path.open("wb") as file:

                async def write(chunk: bytes) -> None:
                    nonlocal length
                    length = await engine.run(write_within, file, chunk, length)

                await engine.uploads.clip(request, write)
            return {"id": (await engine.run(clips.start, path, view, model)).identity}
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    @app.get("/page/clip/{identity}", include_in_schema=False)
    async def progress(identity: str) -> dict[str, Any]:
        job = found(identity)
        return {"state": job.state, "done": job.done, "total": job.total, "error": job.error, "sentence": job.sentence}

    @app.delete("/page/clip/{identity}", include_in_schema=False)
    async def stop(identity: str) -> dict[str, Any]:
        found(identity)
        await engine.run(clips.stop)
        return {}

    @app.get("/page/clip/{identity}/flow.mp4", include_in_schema=False)
    async def video(identity: str) -> FileResponse:
        job = found(identity)
        if job.state != "done":
            raise HTTPException(404)
        return FileResponse(job.output, media_type="video/mp4", headers=PAGE_HEADERS)


def _result(frame1: np.ndarray, frame2: np.ndarray, estimate, truth: np.ndarray | None) -> Result:
    errors = None
    if truth is not None:
        errors = FlowMetrics().update(estimate.flow, truth).errors
    scale = automatic_scale(estimate.flow if errors is None or truth is None else truth)
    return Result(frame1, frame2, estimate.flow, estimate.backward, estimate.confidence, truth, errors, scale)


def _truth_name(upload: Upload) -> str:
    """A name that tells the format of a true flow.

    Raises:
        InputError: for another format.
    """
    suffix = Path(upload.name).suffix.lower()
    if suffix not in _TRUTH:
        raise InputError(f"A true flow is a {', '.join(_TRUTH[:-1])} or KITTI {_TRUTH[-1]} file, not '{upload.name[-80:]}'.")
    return f"truth{suffix}"


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=3)
    return file.getvalue()
