"""Built engines on disk: one folder each in the user's cache, complete and undamaged or taken for not there at all."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ... import __version__
from ...errors import FileError
from ...files import atomic_write, full_disk_told, sweep, temporary_path

_RECORD = "build.json"
_LOCKS = ".locks"
#: What decides a graph, and in 8 bits the pairs that it is calibrated on.
_SOURCES = ("networks/*.py", "ops/*.py", "data/*.py", "inference/fitting.py", "inference/runners/*.py")
_CHUNK = 1 << 20
_TIMES = {"ms", "torch_ms"}
_LONGEST = 1e9  # ms
# Exporters keep state of the process; threads that want different builds take turns.
_making = threading.RLock()


def folder() -> Path:
    """Where builds are kept: `engines` below FEATHERFLOW_HOME, or below the system's usual place for caches. May not exist yet."""
    if home := os.environ.get("FEATHERFLOW_HOME"):
        return Path(home).expanduser() / "engines"
    import platformdirs  # here, and locks below: training on a rented machine does without both

    return platformdirs.user_cache_path("featherflow", appauthor=False, opinion=False) / "engines"


def key(**facts: object) -> str:
    """Name of a build that these facts decide, besides featherflow's version and the code that makes it."""
    text = json.dumps({**facts, "featherflow": __version__, "code": _code()}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def find(name: str) -> Path | None:
    """The folder of a build, every file of which is as it was written; or None."""
    place = folder() / name
    return None if _sound(place) is None else place


def read(place: Path) -> dict:
    """What was recorded with a build.

    Raises:
        FileError: for a build that has been damaged or removed since it was found.
    """
    record = _sound(place)
    if record is None:
        raise FileError(f"The engine in {place} has been damaged; run again and it is built anew.")
    return record


def record_check(place: Path, conditions: str, check: dict) -> None:
    """Add to a build what was measured with it.

    Raises:
        FileError: as `read`, and for a cache folder that cannot be written.
    """
    with _failures_told(), _turn(place.name):
        record = read(place)
        record.setdefault("checks", {})[conditions] = check
        files = json.loads((place / _RECORD).read_text())["files"]
        with atomic_write(place / _RECORD) as file:
            file.write(_sealed(record, files))


def build(name: str, make: Callable[[Path], dict]) -> Path:
    """The folder of a build, made by `make` if it is not there yet, or damaged. One builds; the others wait and take that.

    Args:
        make: fills an empty folder and returns what to record.

    Raises:
        FileError: for a cache folder that cannot be written; and what `make` raises.
    """
    if (place := find(name)) is not None:
        return place
    with _failures_told():
        folder().mkdir(parents=True, exist_ok=True)
        with _turn(name):
            return find(name) or _build(name, make)


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"The engine cannot be kept in {folder()}: {error.strerror or error}.") from error


def _build(name: str, make: Callable[[Path], dict]) -> Path:
    sweep(folder())
    temporary, target = temporary_path(folder(), "folder"), folder() / name
    try:
        temporary.mkdir()
        with full_disk_told(folder()):
            record = make(temporary)
            digests = {path.name: _digest(path) for path in sorted(temporary.iterdir())}
            (temporary / _RECORD).write_bytes(_sealed(record, digests))
        if os.path.lexists(target):  # damaged
            damaged = temporary_path(folder(), "folder")
            os.replace(target, damaged)
            _remove(damaged)
        try:
            os.replace(temporary, target)
        except OSError:
            if find(name) is None:  # where locks do not work, another process may have been faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


@contextlib.contextmanager
def _turn(name: str) -> Iterator[None]:
    """Alone among all threads and processes with the build of this name; a lock ends with its process.

    On file systems that have no locks, processes may build the same at once: each in a folder of its own, of which one is kept.
    """
    from filelock import FileLock

    locks = folder() / _LOCKS
    with _making, contextlib.ExitStack() as stack:
        locks.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(NotImplementedError):
            stack.enter_context(FileLock(locks / name))
        yield


def _sound(place: Path) -> dict | None:
    """The record of a build whose files are all as they were written, or None."""
    try:
        content = json.loads((place / _RECORD).read_bytes())
        record, files = content["record"], content["files"]
        if content["seal"] != _seal(record, files) or not all(map(_is_check, record.get("checks", {}).values())):
            return None
        for name, digest in files.items():
            status = (place / name).stat()
            if _digest_of(place / name, status.st_size, status.st_mtime_ns, status.st_ino) != digest:
                return None
        return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_check(check: dict) -> bool:
    """Whether what was measured with a build is a table whose times are times [ms]."""
    return all(0 < value < _LONGEST for name, value in check.items() if name.endswith("ms")) and check.keys() >= _TIMES


def _sealed(record: dict, files: dict[str, str]) -> bytes:
    """A build's record and the digests of its files, with a seal over both, as JSON."""
    return json.dumps({"record": record, "files": files, "seal": _seal(record, files)}, indent=2).encode()


def _seal(record: dict, files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([record, files], sort_keys=True).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def _digest_of(path: Path, size: int, changed: int, number: int) -> str:
    """Digest of a file; read again only when the file is another one or was written to."""
    return _digest(path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@functools.cache
def _code() -> str:
    """Hash of the code that a build is made by."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> list[Path]:
    package = Path(__file__).parents[2]
    return sorted(path for part in _SOURCES for path in package.glob(part))
