"""Writing files so that an interrupted run leaves no half file. Shared by every room that writes."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from featherflow.errors import FileError

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


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears complete or not at all.

    Yields a binary file object on a temporary file in the target's folder. When the block ends, the temporary file is
    renamed over the target (`os.replace`); when it raises, Ctrl-C included, the temporary file is removed and whatever
    stood at `path` before is untouched. A symbolic link is followed, and an existing file keeps its permission bits.
    Nothing is synced to the disk: this guards against interrupted programs, not against power cuts.

    Raises `FileError`, in one sentence, when the file cannot be written: missing folder, no permission, full disk, or
    a target that is a folder, a device or write-protected. What the block itself raises passes through unchanged.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    # A short name of its own: target name plus suffix could exceed the longest name that the file system allows.
    temporary = target.parent / f".featherflow-{secrets.token_hex(8)}.tmp"
    handle = None
    try:
        mode = _mode_of_existing(path, target)
        handle = open(temporary, "xb")
        yield handle
        handle.close()
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException as error:
        if handle is not None:
            # Closing flushes, which fails again on a full disk; the first error is the one to report.
            with contextlib.suppress(OSError):
                handle.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, FileError) and _is_about(error, temporary):
            reason = _REASONS.get(error.errno, error.strerror or str(error))
            raise FileError(f"cannot write {path}: {reason}") from error
        raise


def _mode_of_existing(path: Path, target: Path) -> int | None:
    """Permission bits of the file that is about to be replaced, or None; refuses what a rename must not replace."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"cannot write {path}: {_REASONS.get(error.errno, error.strerror)}") from error
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
