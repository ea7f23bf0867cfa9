"""One item, done so that doing it again changes nothing: what is there and intact is left, what is made appears whole.

When the files of an item are in their places, a record follows, `NAME.done.json`: what was asked for (a digest), the sources'
sizes and times, the outputs' sizes and SHA-256. Without it, or with one that does not fit, the item is made again.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import __version__, classical
from ..errors import FeatherflowError, FileError
from ..files import sweep, temporary_path
from ..inference import Estimator
from ..inference.kept import weight_file
from .job import Item, ScaleJob
from .places import deliver, fetch, is_intact, joined, name_of, read_bytes, remove, state, told
from .verbs import VERBS, pair_files

RECORD = ".done.json"


@dataclass(frozen=True)
class Outcome:
    """What became of an item: "done" in this run, "skipped" because it was there, or "failed"."""

    name: str
    status: str
    error: str | None = None
    frames: int = 0
    seconds: float = 0.0
    worker: str = ""


class Worker:
    """Does items, one after the other, with one estimator.

    Args:
        run: what this run is called; items that it did itself before, in a worker that was killed, count as done, not as skipped.
    """

    def __init__(self, job: ScaleJob, run: str):
        self.job, self.run = job, run
        self.name = f"{platform.node()}/{os.getpid()}"
        self._estimator: Estimator | None = None
        self._weights: str | None = None
        sweep(Path(tempfile.gettempdir()))  # folders of workers that were killed

    def __call__(self, item: Item) -> Outcome:
        """Never raises: what goes wrong, also by a fault of a library, is the outcome of this item alone."""
        try:
            status, frames, seconds = self._do(item)
        except FeatherflowError as error:
            return Outcome(item.name, "failed", str(error), worker=self.name)
        except Exception as error:
            text = str(FeatherflowError(f"{type(error).__name__}: {error}"))
            return Outcome(item.name, "failed", text, worker=self.name)
        return Outcome(item.name, status, None, frames, seconds, self.name)

    def _do(self, item: Item) -> tuple[str, int, float]:
        """What became of it, the number of flows, and the seconds that these took."""
        estimator = self._ready()
        digest = self.job.digest(item, self._weights)
        sources = [state(source) for source in item.sources]
        if (record := self._record(item, digest, sources)) is not None:
            return ("done" if record["run"] == self.run else "skipped"), record["frames"], record["seconds"]
        started = time.perf_counter()
        with _folder() as folder:
            made = folder / "made"
            base = made / item.name
            base.parent.mkdir(parents=True, exist_ok=True)
            frames = self._make(item, folder / "read", base, estimator)
            files = sorted(path for path in made.rglob("*") if path.is_file())
            outputs = []
            for file in files:
                name = file.relative_to(made).as_posix()
                outputs.append({"name": name, **deliver(file, joined(self.job.target, name))})
            self._remove_others(item, {output["name"] for output in outputs})
            record = {
                "item": digest,
                "verb": self.job.verb,
                "sources": sources,
                "outputs": outputs,
                "frames": frames,
                "seconds": round(time.perf_counter() - started, 4),
                "run": self.run,
                "worker": self.name,
                "model": estimator.model,
                "featherflow": __version__,
            }
            (folder / "record").write_text(json.dumps(record, indent=1))
            deliver(folder / "record", self._record_place(item))  # last: it says that all the others are there
        return "done", frames, record["seconds"]

    def _ready(self) -> Estimator:
        if self._estimator is None:
            settings = self.job.settings
            self._estimator = Estimator.of(settings)
            if self._estimator.model not in classical.METHODS:
                self._weights = weight_file(self._estimator.model, settings.weights).digest
        return self._estimator

    def _record_place(self, item: Item) -> str:
        return joined(self.job.target, item.name + RECORD)

    def _remove_others(self, item: Item, kept: Set[str]) -> None:
        """What an earlier run made of the item and this one does not: more frames, other kinds of files."""
        try:
            made = [str(output["name"]) for output in json.loads(read_bytes(self._record_place(item)))["outputs"]]
        except (FileError, ValueError, KeyError, TypeError):
            return
        for name in made:
            its_own = name.startswith(tuple(item.name + mark for mark in "._/")) and ".." not in name.split("/")
            if its_own and name not in kept:  # a record may have been written by anyone
                remove(joined(self.job.target, name))

    def _record(self, item: Item, digest: str, sources: Sequence[Mapping]) -> Mapping | None:
        """The record of an item that is there as asked for; None where it is to be made."""
        try:
            record = json.loads(read_bytes(self._record_place(item)))
            asked = record["item"] == digest and record["sources"] == list(sources) and (record["outputs"] or not record["frames"])
            places = [(joined(self.job.target, output["name"]), output["size"], output["sha256"]) for output in record["outputs"]]
            fits = (
                asked
                and isinstance(record["run"], str)
                and isinstance(record["frames"], int)
                and isinstance(record["seconds"], float)
            )
        except (FileError, ValueError, KeyError, TypeError):
            return None
        return record if fits and all(is_intact(*place) for place in places) else None

    def _make(self, item: Item, read: Path, base: Path, estimator: Estimator) -> int:
        options, count = {**self.job.options, **item.part}, len(item.sources)
        if item.is_pair(self.job.verb):
            # Folders of their own: two frames may have one name.
            frames = [fetch(source, read / str(number)) for number, source in enumerate(item.sources)]
            return pair_files(frames, base, estimator, options)
        if count == 1:
            return VERBS[self.job.verb].make(fetch(item.sources[0], read), base, estimator, options)
        return VERBS[self.job.verb].make(self._gathered(item.sources, read), base, estimator, options)

    @staticmethod
    def _gathered(frames: Sequence[str], folder: Path) -> Path:
        """A folder that holds these frames alone."""
        folder.mkdir(parents=True)
        for frame in frames:
            found, wanted = fetch(frame, folder), folder / name_of(frame)
            if found != wanted:
                with told(frame):
                    try:
                        wanted.symlink_to(found)
                    except OSError:  # a system that grants links to few
                        shutil.copyfile(found, wanted)
        return folder


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the time of one item, whose name tells its owner, so that one that a killed worker left is found and removed."""
    folder = temporary_path(Path(tempfile.gettempdir()), "folder")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
