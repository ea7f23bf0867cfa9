"""Writing files so that an interrupted run leaves no half file. Shared by every subpackage that writes.

`atomic_write` writes one file whole or not at all; inside `together` that holds for all files of a block. What a killed process
left behind is removed at the next write into the same folder.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import FeatherflowError, FileError

_REASONS = {
    errno.ENOENT: "its folder does not exist",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the file system allows",
    errno.ENAMETOOLONG: "its name is too long",
    errno.EISDIR: "it is a folder",
}
_STALE = 24 * 3600  # s after which what a process on another machine left is taken for abandoned
_TEMPORARY = re.compile(r"\.featherflow-(?:([0-9a-f]{8})-(\d{1,10})-)?[0-9a-f]{16}\.(?:tmp|old|folder)")
_PROBE = 1 << 20  # bytes written to find out whether a disk is full


@dataclass
class _Draft:
    """A file that is written and not yet in its place."""

    path: Path
    temporary: Path
    target: Path
    mode: int | None
    durable: bool


#: Drafts of the `together` block that is running, if one is.
_drafts: ContextVar[list[_Draft] | None] = ContextVar("drafts", default=None)
_swept: set[Path] = set()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears complete or not at all.

    Yields a binary file object on a temporary file in the target's folder. When the block ends, the temporary file is
    renamed over the target (`os.replace`); when it raises, Ctrl-C included, the temporary file is removed and whatever
    stood at `path` before is untouched. A symbolic link is followed, and an existing file keeps its permission bits.
    Inside a `together` block the file comes into its place when that block ends.

    Args:
        durable: sync file and folder to the disk, so that this holds for power cuts too. Without it a file is guarded against
            interrupted programs only. It costs up to a second; meant for what took long to make.

    Raises `FileError`, in one sentence, when the file cannot be written: missing folder, no permission, full disk, or
    a target that is a folder, a device or write-protected. What the block itself raises passes through unchanged, unless it
    followed from a write to the file that failed: libraries report a full disk in many ways.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    _sweep_once(target.parent)
    # A short name of its own: target name plus suffix could exceed the longest name that the file system allows.
    temporary = temporary_path(target.parent)
    raw = None
    try:
        mode = _mode_of_existing(path, target)
        raw = _File(temporary, "xb")
        handle = io.BufferedWriter(raw)
        try:
            yield handle
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        finally:
            # Closing flushes, which fails again on a full disk; the first error is the one to report.
            with contextlib.suppress(OSError):
                handle.close()
            raw.close()
        draft = _Draft(path, temporary, target, mode, durable)
        if (drafts := _drafts.get()) is not None:
            drafts.append(draft)
        else:
            _put_in_place([draft])
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        failure = error
        if raw is not None and raw.failure is not None and isinstance(error, Exception):
            failure = raw.failure
        if isinstance(failure, OSError) and not isinstance(failure, FileError) and _is_about(failure, temporary):
            raise _cannot_write(path, failure) from error
        raise


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All files that `atomic_write` writes inside the block come into their places when it ends, or none of them does.

    For results that belong together: when the block raises, or one of the files cannot be put in its place, every path holds what
    it held before. The file that was written last comes last, and what it replaces goes first: where that is the file which names
    the others, a program that is killed between two renames leaves no mixed set. Files that threads write are not included. A
    block inside another one is part of that.

    Raises:
        FileError: as `atomic_write`.
    """
    if _drafts.get() is not None:
        yield
        return
    drafts: list[_Draft] = []
    token = _drafts.set(drafts)
    try:
        yield
        _put_in_place(drafts)
    finally:
        _drafts.reset(token)
        for draft in drafts:
            with contextlib.suppress(OSError):
                draft.temporary.unlink()


@contextlib.contextmanager
def full_disk_told(folder: str | os.PathLike[str]) -> Iterator[None]:
    """For libraries that write into `folder` by themselves: what they raise when the disk is full becomes a `FileError`.

    They raise whatever they like (`basic_ios::clear`), so the disk itself is asked. Every other error passes through.
    """
    try:
        yield
    except FeatherflowError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            failure = error
        else:
            failure = _write_failure(Path(folder))
        if failure is None:
            raise
        raise _cannot_write(Path(folder), failure) from error


def check_place(path: str | os.PathLike[str], makes_folders: bool = False) -> None:
    """Refuse a path that `atomic_write` could not write now: an empty file is made in its folder and removed again.

    Args:
        makes_folders: folders that are missing will be made.

    Raises:
        FileError: as `atomic_write`.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    folder = target.parent
    while makes_folders and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    probe = temporary_path(folder)
    try:
        _mode_of_existing(path, target)
        with open(probe, "xb"):
            pass
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def temporary_path(folder: Path, kind: str = "tmp") -> Path:
    """A new name in `folder` that tells its owner, so that `sweep` can tell whether that is gone. Nothing is made.

    Args:
        kind: "tmp" for a file, "old" for one kept for a moment, "folder" for a folder.
    """
    return folder / f".featherflow-{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.{kind}"


def sweep(folder: Path) -> list[Path]:
    """Remove temporary files and folders of ours whose owner is gone; returns what was removed.

    An owner on this machine is looked up; of one elsewhere, what has not changed for a day is taken for abandoned.
    """
    removed = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or not _is_abandoned(entry, match[1], match[2]):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
                removed.append(Path(entry.path))
    return removed


def _sweep_once(folder: Path) -> None:
    """`sweep` at the first write into a folder: listing it each time would make thousands of writes slow."""
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)


def _is_abandoned(entry: os.DirEntry, machine: str | None, process: str | None) -> bool:
    if (
        process is not None and machine == _machine() and sys.platform != "win32"
    ):  # there, asking for a process by a signal would end it
        return not _is_alive(int(process))
    with contextlib.suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


@functools.cache
def _machine() -> str:
    """Tells apart the places in which a process number means one process: machines, their starts, containers."""
    facts = [platform.node()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


class _File(io.FileIO):
    """A file that remembers the first write that failed: libraries that are handed it report that in their own ways."""

    failure: OSError | None = None

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise


def _put_in_place(drafts: list[_Draft]) -> None:
    """Rename drafts over their targets, the last one last; on any failure all targets are as before."""
    kept: dict[int, Path] = {}  # index of a draft to the file that it replaces, under another name
    done: list[int] = []
    try:
        if len(drafts) > 1:
            for index in (len(drafts) - 1, *range(len(drafts) - 1)):
                if (old := _set_aside(drafts[index].target, move=index == len(drafts) - 1)) is not None:
                    kept[index] = old
        for index, draft in enumerate(drafts):
            try:
                if draft.mode is not None:
                    os.chmod(draft.temporary, draft.mode)
                os.replace(draft.temporary, draft.target)
            except OSError as error:
                raise _cannot_write(draft.path, error) from error
            done.append(index)
    except BaseException:
        for index, draft in enumerate(drafts):
            with contextlib.suppress(OSError):
                if index in kept:
                    os.replace(kept[index], draft.target)
                    kept[index].unlink()  # a rename of a link over its own file does nothing
                elif index in done and len(drafts) > 1:
                    draft.target.unlink()
        raise
    for old in kept.values():
        with contextlib.suppress(OSError):
            old.unlink()
    for folder in {draft.target.parent for draft in drafts if draft.durable}:
        _sync_folder(folder)


def _set_aside(target: Path, move: bool) -> Path | None:
    """Another name for what stands at `target`, or None where nothing does. `move`: it stands there no longer."""
    old = temporary_path(target.parent, "old")
    try:
        if move:
            os.replace(target, old)
        else:
            try:
                os.link(target, old)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links
                shutil.copy2(target, old)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot_write(target, error) from error
    return old


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder last; where a system cannot do that to folders, it is left."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> FileError:
    if error.errno == errno.ENOENT and path.parent.is_dir():
        return FileError(f"cannot write {path}: its folder takes no new files")  # as /proc
    return FileError(f"cannot write {path}: {_REASONS.get(error.errno or 0, error.strerror or str(error))}")


def _write_failure(folder: Path) -> OSError | None:
    """Why no file can be written into a folder now, or None."""
    probe = temporary_path(folder)
    try:
        with open(probe, "xb") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return None


def _mode_of_existing(path: Path, target: Path) -> int | None:
    """Permission bits of the file that is about to be replaced, or None; refuses what a rename must not replace."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot_write(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"cannot write {path}: it is a folder, and a file name was expected")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"cannot write {path}: it is a device or a pipe, and a regular file was expected")
    if not os.access(target, os.W_OK):
        # A rename needs only the folder's permission, so without this check write protection would be ignored.
        raise FileError(f"cannot write {path}: the file is there already and is write-protected")
    return stat.S_IMODE(status.st_mode)


def _is_about(error: OSError, temporary: Path) -> bool:
    """True when an OSError came from writing the temporary file, and not from another file that the block opened."""
    return error.filename is None or Path(os.fsdecode(error.filename)) == temporary
