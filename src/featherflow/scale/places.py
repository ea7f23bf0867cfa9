"""Files here and elsewhere. A place is a path, or a URI that fsspec knows (`s3://`, `gs://`, `sftp://`, `memory://`, ...)."""

from __future__ import annotations

import functools
import hashlib
import mimetypes
import os
import posixpath
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import FileError, MissingExtraError
from ..files import atomic_write
from ..outputs import make_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_BLOCK = 1 << 20
#: What file systems call the time or mark of a file's last change.
_CHANGES = ("mtime", "LastModified", "last_modified", "updated", "etag", "ETag", "md5Hash", "created")


def absolute(place: str | os.PathLike) -> str:
    """A path from the root, since workers run in folders of their own; a URI as its file system writes it, in one form for all."""
    text = os.fspath(place)
    if "://" not in text and "::" not in text:
        return os.path.abspath(text)
    return _named(*_locate(text), text)


def joined(folder: str, *names: str) -> str:
    """A place in a folder."""
    return (folder if folder.endswith("/") else f"{folder}/") + "/".join(names)


def beside(place: str, name: str) -> str:
    """The place of a name that stands in a file: a path from the root or a URI as `absolute` has it, else relative to the file."""
    if "://" in name or os.path.isabs(name):
        return absolute(name)
    head, chain, rest = place.partition("::")  # of zip://a/list.csv::s3://bucket/c.zip, the first is the file
    protocol, mark, path = head.rpartition("://")
    return f"{protocol}{mark}{posixpath.normpath(posixpath.join(posixpath.dirname(path), name))}{chain}{rest}"


def parts_of(place: str) -> tuple[str, ...]:
    """The folders that lead to a place, and its own name, without what stands for a file system or its root."""
    return PurePosixPath(place.partition("::")[0].rpartition("://")[2].lstrip("/")).parts


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


def matches(pattern: str) -> dict[str, bool]:
    """All places that a glob pattern matches, or the place itself where it is no pattern; and of each, whether it is a folder."""
    with told(pattern):
        system, path = _locate(pattern)
        if system.exists(path) or not any(letter in path for letter in "*?["):
            return {pattern: system.isdir(path)}
        found = cast("dict[str, dict]", system.glob(path, detail=True))
        return {_named(system, name, pattern): _kind(system, info) == "directory" for name, info in found.items()}


def is_folder(place: str) -> bool:
    """Whether it is a folder; not asked of what has the name of a video, since an archive has many and each answer takes time."""
    if (mimetypes.guess_type(name_of(place))[0] or "").startswith("video/"):
        return False
    with told(place):
        system, path = _locate(place)
        return system.isdir(path)


def files_in(folder: str) -> list[str]:
    """The files of a folder, not of those in it."""
    with told(folder):
        system, path = _locate(folder)
        return [_named(system, info["name"], folder) for info in system.ls(path, detail=True) if _kind(system, info) == "file"]


def read_bytes(place: str) -> bytes:
    """
    Raises:
        FileError: if it cannot be read.
    """
    with told(place):
        system, path = _locate(place)
        content = system.cat_file(path)
        return content if isinstance(content, bytes) else content.encode()


def opened(place: str) -> BinaryIO:
    """The file, open for reading.

    Raises:
        FileError: if it cannot be read.
    """
    with told(place):
        system, path = _locate(place)
        file = cast("BinaryIO", system.open(path, "rb"))
        vars(file)["file_system"] = system  # which closes an archive, and with it the file, when nobody holds it
        return file


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


def remove(place: str) -> None:
    """Remove a file; one that is not there is no fault.

    Raises:
        FileError: if it stays.
    """
    with told(place, "removed"):
        system, path = _locate(place)
        with suppress(FileNotFoundError):
            system.rm_file(path)


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


def _kind(system: AbstractFileSystem, info: Mapping) -> str:
    """ "file", "directory" or another, of a link what it leads to."""
    if info.get("islink"):
        return "directory" if system.isdir(info["name"]) else "file" if system.isfile(info["name"]) else "other"
    return info["type"]


def _named(system: AbstractFileSystem, path: str, like: str) -> str:
    """The place of a path within a file system, which a place like it leads to: `zip://b.png::s3://bucket/c.zip`."""
    _, chain, rest = like.partition("::")
    return path if _is_local(system) else f"{system.unstrip_protocol(path)}{chain}{rest}"


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
