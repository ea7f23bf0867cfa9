"""An engine built by another process, `python -m featherflow.inference.runners.background`, while this one goes on with PyTorch.

What is to be built comes there as a line of JSON on standard input, whose end means that nobody waits for it any more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from importlib.util import find_spec

from ...errors import FeatherflowError, MissingExtraError
from ..settings import EstimationSettings
from . import choice

log = logging.getLogger("featherflow")

ENGINE = "openvino"
#: Pairs of one shape after which more of them are expected.
PAIRS = 8


class Builder:
    """Builds the engine for frames of each shape that is met often, one after the other, and each once.

    Each build is then compared with PyTorch by the process that wants it, when nothing else of it computes; from there on `choice`
    takes it, if it was found faster. A process that builds ends with this one, however that ends.

    Raises:
        MissingExtraError: if OpenVINO is not installed.
    """

    def __init__(self, settings: EstimationSettings):
        if find_spec("openvino") is None:
            raise MissingExtraError('An engine is built in the background by OpenVINO: pip install "featherflow[openvino]".')
        self._settings = settings
        self._met: dict[tuple[int, ...], int] = {}
        self._built: set[tuple[int, ...]] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._shape: tuple[int, ...] = ()  # that is being built
        self._lock = threading.Lock()

    def has_for(self, task: choice.Task) -> bool:
        """Whether an engine for what is about to be run by PyTorch has just been built and compared."""
        shape = task.spec.shape
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                if self._ended_well(self._process):
                    self._built.add(self._shape)
                self._process = None
            self._met[shape] = self._met.get(shape, 0) + 1
            if self._process is None and self._met[shape] >= PAIRS:
                self._met[shape], self._shape = -sys.maxsize, shape  # once
                self._process = self._begun(shape)
            if shape not in self._built:
                return False
            self._built.remove(shape)
        try:
            choice.runner(ENGINE, task)
        except FeatherflowError as error:
            _say_why_not(str(error))
            return False
        return True

    def wait(self) -> None:
        """Until no process builds."""
        if (process := self._process) is not None:
            process.wait()

    def _begun(self, shape: tuple[int, ...]) -> subprocess.Popen[bytes]:
        height, width = shape[-2:]
        log.info("building the engine %s for frames of %dx%d px in the background", ENGINE, width, height)
        self._said = tempfile.TemporaryFile()  # a pipe that nobody reads yet would fill up
        process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said
        )
        assert process.stdin is not None
        fields = (field.name for field in dataclasses.fields(EstimationSettings))
        settings = {name: getattr(self._settings, name) for name in fields} | {"engine": ENGINE, "prepare": False}
        job = {"settings": settings, "shape": shape}
        with contextlib.suppress(BrokenPipeError):  # how it ended is told later
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        return process

    def _ended_well(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        with self._said as file:
            file.seek(0)
            said = file.read().decode(errors="replace").strip().splitlines()
        if process.returncode:
            _say_why_not(said[-1] if said else f"the process ended with {process.returncode}")
        return process.returncode == 0


def _say_why_not(reason: str) -> None:
    log.warning("the engine %s was not built in the background, PyTorch goes on: %s", ENGINE, reason)


def _end_with_standard_input() -> None:
    while os.read(0, 1):  # not of `sys.stdin`, whose lock a daemon thread would hold when the interpreter ends
        pass
    os._exit(1)


def main() -> int:
    """Build one engine, on one core: the others are busy."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    import torch

    from ..estimator import Estimator

    torch.set_num_threads(1)
    try:
        Estimator.of(EstimationSettings(**job["settings"])).build_engine(tuple(job["shape"]))
    except FeatherflowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
