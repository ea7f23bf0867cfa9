"""Files here and elsewhere. A place is a path, or a URI that fsspec knows (`s3://`, `gs://`, `sftp://`, `memory://`, ...)."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError, MissingExtraError
from ..files import atomic_write
from ..outputs import make_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_BLOCK = 1 << 20
#: What file systems call the time or mark of a file's last change.
_CHANGES = ("mtime", "LastModified", "last_modified", "updated", "etag", "ETag", "md5Hash", "created")


def absolute(place: str | os.PathLike) -> str:
    """A path from the root, since workers run in folders of their own; a URI as it is, or as the path that it stands for."""
    text = os.fspath(place)
    if "://" not in text and "::" not in text:
        return os.path.abspath(text)
    system, path = _locate(text)
    return path if _is_local(system) else text


def joined(folder: str, *names: str) -> str:
    """A place in a folder."""
    return "/".join([folder.rstrip("/") or "/", *names])


def name_of(place: str) -> str:
    """The last part of a place: of `zip://a/b.png::s3://bucket/c.zip`, b.png."""
    return place.partition("::")[0].rstrip("/").rpartition("/")[2]


@contextmanager
def told(place: str, what: str = "read") -> Iterator[None]:
    """What file systems raise becomes a `FileError` that names the place."""
    try:
        yield
    except FileError:
        raise
    except FileNotFoundError:
        raise FileError(f"There is no file or folder '{place}'.") from None
    except Exception as error:  # each service has errors of its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FileError(f"'{place}' cannot be {what}: {reason}") from error


def matches(pattern: str) -> list[str]:
    """All places that a glob pattern matches, or the place itself where it is no pattern."""
    with told(pattern):
        system, path = _locate(pattern)
        if system.exists(path) or not any(letter in path for letter in "*?["):
            return [pattern]
        return [_named(system, str(found)) for found in system.glob(path)]


def is_folder(place: str) -> bool:
    with told(place):
        system, path = _locate(place)
        return system.isdir(path)


def files_in(folder: str) -> list[str]:
    """The files of a folder, not of those in it."""
    with told(folder):
        system, path = _locate(folder)
        return [_named(system, entry["name"]) for entry in system.ls(path, detail=True) if entry["type"] == "file"]


def read_bytes(place: str) -> bytes:
    """
    Raises:
        FileError: if it cannot be read.
    """
    with told(place):
        system, path = _locate(place)
        content = system.cat_file(path)
        return content if isinstance(content, bytes) else content.encode()


def state(place: str) -> dict[str, object]:
    """What tells that a source has changed, without reading it: its size, and the time or mark of its last change.

    Raises:
        FileError: if it is not there.
    """
    with told(place):
        system, path = _locate(place)
        info = system.info(path)
        changed = next((str(info[key]) for key in _CHANGES if info.get(key) is not None), None)
        return {"place": place, "size": info.get("size"), "changed": changed}


def fetch(place: str, folder: Path) -> Path:
    """The file as one of this machine: itself where it is one, else a copy of its name in `folder`, which is made.

    Raises:
        FileError: if it cannot be read.
    """
    with told(place):
        system, path = _locate(place)
        if _is_local(system):
            return Path(path)
        copy = make_folder(folder) / name_of(place)
        system.get_file(path, str(copy))
        return copy


def deliver(file: Path, place: str) -> dict[str, object]:
    """Copy a file of this machine to a place, under a name that is there whole or not at all; gives its size and SHA-256.

    Raises:
        FileError: if it cannot be written.
    """
    with told(place, "written"):
        system, path = _locate(place)
        with open(file, "rb") as source:
            digest = _digest(source)
            if _is_local(system):
                source.seek(0)
                make_folder(Path(path).parent)
                with atomic_write(path) as copy:
                    shutil.copyfileobj(source, copy, _BLOCK)
            else:
                folder, _, name = path.rpartition("/")
                system.makedirs(folder, exist_ok=True)
                # A name that is always the same: what a killed worker left is replaced by the next, and does not add up.
                system.put_file(str(file), f"{folder}/.{name}.part")
                system.mv(f"{folder}/.{name}.part", path)
        return {"size": file.stat().st_size, "sha256": digest}


def is_intact(place: str, size: int, sha256: str) -> bool:
    """Whether a file is there with this content."""
    try:
        system, path = _locate(place)
        if system.info(path)["size"] != size:
            return False
        with system.open(path, "rb") as file:
            return _digest(file) == sha256
    except Exception:  # whatever the reason, it is made again, and a place that cannot be used is told then
        return False


def _digest(file) -> str:
    digest = hashlib.sha256()
    for block in iter(functools.partial(file.read, _BLOCK), b""):
        digest.update(block)
    return digest.hexdigest()


def _locate(place: str) -> tuple[AbstractFileSystem, str]:
    """The file system, and the path within it."""
    check_extra()
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(place)
    except ImportError as error:  # s3fs, gcsfs, ...
        raise FileError(f"'{place}' needs a package that is not installed: {error}") from None
    except ValueError as error:
        raise FileError(f"'{place}' cannot be used: {error}") from None


def _is_local(system: AbstractFileSystem) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(system, LocalFileSystem)


def _named(system: AbstractFileSystem, path: str) -> str:
    return path if _is_local(system) else system.unstrip_protocol(path)


def check_extra() -> None:
    """
    Raises:
        MissingExtraError: without the extra `scale`.
    """
    try:
        for part in ("fsspec", "pyarrow", "ray.data"):
            import_module(part)
    except ImportError:
        raise MissingExtraError("Work on many items needs Ray Data; install it with: pip install 'featherflow[scale]'") from None
