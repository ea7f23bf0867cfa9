"""Built engines on disk: one folder each in the user's cache, complete or not there at all."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ... import __version__
from ...errors import FileError
from ...files import atomic_write

_RECORD = "build.json"
_STALE = 24 * 3600  # s after which an unfinished build is taken for abandoned


def folder() -> Path:
    """Where builds are kept: `engines` below FEATHERFLOW_HOME, or below the system's usual place for caches. May not exist yet."""
    if home := os.environ.get("FEATHERFLOW_HOME"):
        return Path(home).expanduser() / "engines"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "featherflow" / "engines"


def key(**facts: object) -> str:
    """Name of a build that these facts decide, besides featherflow's version and the code of its networks."""
    text = json.dumps({**facts, "featherflow": __version__, "code": _code()}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def find(name: str) -> Path | None:
    """The folder of a complete build, or None."""
    place = folder() / name
    return place if (place / _RECORD).is_file() else None


def read(place: Path) -> dict:
    """What was recorded with a build."""
    return json.loads((place / _RECORD).read_text())


def record_check(place: Path, conditions: str, check: dict) -> None:
    """Add to a build what was measured with it. Of two that write at once one wins; the other measures again some time."""
    record = read(place)
    record["checks"][conditions] = check
    with atomic_write(place / _RECORD) as file:
        file.write(json.dumps(record, indent=2).encode())


def build(name: str, make: Callable[[Path], dict]) -> Path:
    """The folder of a build, made by `make` if it is not there yet.

    Args:
        make: fills an empty folder and returns what to record. It may run in several processes at once: each works in a folder
            of its own, the first to finish renames it into place, and the others take that one.

    Raises:
        FileError: for a cache folder that cannot be written; and what `make` raises.
    """
    if (place := find(name)) is not None:
        return place
    _remove_abandoned()
    temporary = folder() / f".unfinished-{secrets.token_hex(8)}"
    target = folder() / name
    try:
        temporary.mkdir(parents=True)
        record = make(temporary)
        (temporary / _RECORD).write_text(json.dumps(record, indent=2))
        try:
            os.replace(temporary, target)
        except OSError:
            if find(name) is None:
                raise
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"The engine cannot be kept in {folder()}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _remove_abandoned() -> None:
    """Folders that an interrupted program could not take away itself."""
    for left in folder().glob(".unfinished-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)


@functools.cache
def _code() -> str:
    """Hash of the code that a graph is made from."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    parts = ("networks/*.py", "ops/*.py", "inference/fitting.py", "inference/runners/*.py")
    for path in sorted(path for part in parts for path in package.glob(part)):
        digest.update(path.read_bytes())
    return digest.hexdigest()
