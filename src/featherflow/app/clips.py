"""Clips on the page: one at a time, followed in a process of its own beside the queue of pairs."""

import importlib.util
import secrets
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from ..errors import FeatherflowError, LimitError, MissingExtraError
from .settings import MEBIBYTE
from .workers import StoppedError, Worker, WorkerDiedError, WorkerFailedError

#: Most bytes of a clip.
MAX_BYTES = 1024 * MEBIBYTE


@dataclass
class ClipJob:
    """What has become of a clip. `state` is "running", "done", "failed" or "stopped"."""

    identity: str
    output: Path
    state: str = "running"
    done: int = 0
    total: int | None = None
    #: When it failed.
    error: str | None = None
    #: When it is done.
    sentence: str | None = None


class Clips:
    """The clip that is being followed, or was last; a new one takes its place."""

    def __init__(self, estimation: dict[str, str | bool | None]) -> None:
        """`estimation`: what the worker is told beside the model."""
        self._estimation = estimation
        self._folder = tempfile.TemporaryDirectory(prefix="featherflow-clip-", ignore_cleanup_errors=True)
        self._job: ClipJob | None = None
        self._starting = threading.Lock()
        self._worker = Worker()
        self._thread: threading.Thread | None = None

    def new_file(self, name: str) -> Path:
        """A path for a clip that is about to come in; only the suffix is taken from its name."""
        _check_extra()
        suffix = Path(name).suffix[:10]
        return Path(self._folder.name) / f"{secrets.token_hex(8)}{suffix if suffix[1:].isalnum() else ''}"

    def start(self, source: Path, view: str, model: str) -> ClipJob:
        """Follow the clip at `source`, which is deleted afterwards; the clip before is stopped and forgotten."""
        with self._starting:
            self.stop()
            if self._job is not None:
                self._job.output.unlink(missing_ok=True)
            self._job = ClipJob(secrets.token_urlsafe(12), Path(self._folder.name) / f"{secrets.token_hex(8)}.mp4")
            arguments = (self._job, source, view, model)
            self._thread = threading.Thread(target=self._run, args=arguments, name="featherflow-clip", daemon=True)
            self._thread.start()
            return self._job

    def get(self, identity: str) -> ClipJob | None:
        return self._job if self._job is not None and self._job.identity == identity else None

    def stop(self) -> None:
        """Stop the clip that is being followed, if there is one, and wait until it has."""
        if self._thread is not None:
            while self._thread.is_alive():  # again, where it had not begun
                self._worker.stop()
                self._thread.join(0.2)

    def close(self) -> None:
        self.stop()
        self._worker.close()
        self._folder.cleanup()

    def _run(self, job: ClipJob, source: Path, view: str, model: str) -> None:
        def progress(content: dict) -> None:
            job.done, job.total = content["done"], content["total"]

        content = {"source": str(source), "output": str(job.output), "view": view, "model": model, **self._estimation}
        try:
            facts = self._worker.call("clip", content, progress=progress)[0]
            sound = " with sound" if facts["sound"] else ""
            scale = "" if facts["scale_px"] is None else f"full colour is {facts['scale_px']:.1f} px; "
            job.sentence = f"{facts['frames']} frames in {facts['seconds']:.1f} s; {scale}{facts['codec']}{sound}."
            job.state = "done"
        except StoppedError:
            job.state = "stopped"
        except FeatherflowError as error:
            job.error, job.state = str(error).replace(f"'{source}'", "The clip").replace(f"'{job.output}'", "the video"), "failed"
            job.error = job.error.replace(f"{self._folder.name}/", "")
        except WorkerDiedError:
            job.error, job.state = "A decoder broke down over the clip; it cannot be followed.", "failed"
        except MemoryError:
            job.error, job.state = "There is not enough memory for frames of this size.", "failed"
        except WorkerFailedError:
            job.error, job.state = "The clip could not be followed; the service's log says why.", "failed"
        except BaseException:
            job.error, job.state = "The clip could not be followed; the service's log says why.", "failed"
            raise
        finally:
            source.unlink(missing_ok=True)


def write_within(file, chunk: bytes, so_far: int) -> int:
    """Write a chunk of a clip that comes in, and return the bytes so far.

    Raises:
        LimitError: beyond `MAX_BYTES`.
    """
    if so_far + len(chunk) > MAX_BYTES:
        raise LimitError(f"The clip is too large: at most {MAX_BYTES // MEBIBYTE} MiB are taken; `featherflow video` takes any.")
    return so_far + file.write(chunk)


def _check_extra() -> None:
    if importlib.util.find_spec("av") is None:
        raise MissingExtraError("Clips need PyAV; install it with: pip install 'featherflow[video]'")
