"""A worker process of the service: decodes images, estimates flow, follows clips; one task at a time, until its input ends.

It is where native code meets what strangers sent. The service may kill it at any moment, and goes on when it dies.
Started as `python -m featherflow.app.worker`; tasks come on standard input and results leave on standard output (see `messages`).
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import FeatherflowError, is_out_of_memory
from . import messages

Arrays = list[np.ndarray]
Tell = Callable[[dict[str, Any]], None]


def ready(content: dict[str, Any], arrays: Arrays, tell: Tell) -> tuple[dict[str, Any], Arrays]:
    """Nothing but what decoding needs, loaded."""
    from PIL import Image

    from .. import frames  # noqa: F401

    Image.init()
    return {}, []


def image(content: dict[str, Any], arrays: Arrays, tell: Tell) -> tuple[dict[str, Any], Arrays]:
    """An image file as `decode_image` gives it."""
    from ..images import decode_image

    return {}, [decode_image(arrays[0].tobytes(), content["name"], content["max_pixels"])]


def alike(content: dict[str, Any], arrays: Arrays, tell: Tell) -> tuple[dict[str, Any], Arrays]:
    """Images that belong together, deeper than 8 bit, each as `(H, W, 3)` uint8."""
    from ..images import alike as scaled
    from ..pixels import eight_bits

    return {}, [eight_bits(frame) for frame in scaled(arrays, content["names"])]


def truth(content: dict[str, Any], arrays: Arrays, tell: Tell) -> tuple[dict[str, Any], Arrays]:
    """A flow file as `(H, W, 2)` float32."""
    from ..flow import decode_flow

    return {}, [decode_flow(content["name"], arrays[0].tobytes(), max_pixels=content["max_pixels"])]


def _estimator(content: dict[str, Any], **choices: Any):
    """What the content's model, device and `prepare` ask for; a classical method has nothing to prepare."""
    from .. import classical
    from ..inference.estimator import kept_estimator

    prepare = content["prepare"] and content["model"] not in classical.METHODS
    return kept_estimator(content["model"], device=content["device"], prepare=prepare, **choices)


def load(content: dict[str, Any], arrays: Arrays, tell: Tell) -> tuple[dict[str, Any], Arrays]:
    """Make a model ready."""
    _estimator(content)
    return {}, []


def flow(content: dict[str, Any], arrays: Arrays, tell: Tell) -> tuple[dict[str, Any], Arrays]:
    """Flows `(B, H, W, 2)` of frames `(B, H, W, 3)`, and the backward flows, and the confidences, where they are asked for."""
    estimator = _estimator(content, **{name: content[name] for name in ("iterations", "refine", "enlarge")})
    first: list[np.ndarray]
    second: list[np.ndarray]
    first, second = (list(array) for array in arrays)
    if content["backward"] or content["confidence"]:
        return {}, list(estimator.both(first, second, confidence=content["confidence"]))
    return {}, [estimator(first, second)]


def clip(content: dict[str, Any], arrays: Arrays, tell: Tell) -> tuple[dict[str, Any], Arrays]:
    """Follow a video file into another; tells of every frame."""
    from ..video import flow_video

    result = flow_video(
        Path(content["source"]),
        Path(content["output"]),
        view=content["view"],
        estimator=_estimator(content),
        progress=lambda done, total: tell({"done": done, "total": total}),
    )
    facts = {"frames": result.frames, "seconds": result.seconds, "scale_px": result.scale_px, "codec": result.codec}
    return facts | {"sound": bool(result.sound)}, []


TASKS = {task.__name__: task for task in (ready, image, alike, truth, load, flow, clip)}


def work(tasks: io.BufferedReader, results: IO[bytes]) -> None:
    """Do tasks until there are no more."""

    def tell(content: dict[str, Any]) -> None:
        messages.send(results, {"state": "progress", **content})

    while True:
        try:
            content, arrays = messages.receive(tasks)
        except EOFError:
            return
        try:
            answer, found = TASKS[content["task"]](content, arrays, tell)
            messages.send(results, {"state": "done", **answer}, found)
        except FeatherflowError as error:
            messages.send(results, {"state": "refused", "kind": type(error).__name__, "message": str(error)})
        except BrokenPipeError:
            return
        except Exception as error:
            no_memory = is_out_of_memory(error)
            if not no_memory:
                traceback.print_exc()
            messages.send(results, {"state": "no memory" if no_memory else "failed"})
        arrays = found = answer = None  # an idle worker holds no frames


def limit_memory(most: int) -> None:
    """Take no more address space than `most` bytes, where the system can do that."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    tasks, results = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get among the results
    if len(sys.argv) > 1:
        limit_memory(int(sys.argv[1]))
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        work(tasks, results)
    os._exit(0)  # nothing is left to be tidied up, and a library's threads may not end


if __name__ == "__main__":
    main()
