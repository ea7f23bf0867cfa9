"""PyAV where it is installed, and what FFmpeg says when it cannot read or write, as sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FileError, MissingExtraError


def require_av() -> Any:
    """The PyAV package; its types know its streams only as one of several kinds, and not all of its modules.

    Raises:
        MissingExtraError: where it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError("Reading and writing video needs PyAV; install it with: pip install 'featherflow[video]'") from None
    return av


@contextmanager
def reading_errors(name: str, where: str = "") -> Iterator[None]:
    """FFmpeg's errors as sentences."""
    av = require_av()
    try:
        yield
    except (av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError):  # the last: of a format that is not taken
        size = Path(name).stat().st_size if Path(name).is_file() else None
        what = "it is empty" if size == 0 else "it is damaged, cut short or no video"
        raise FileError(f"'{name}' cannot be read as a video{where}: {what}.") from None
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, FileError):
            raise
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0].lower()
        raise FileError(f"'{name}' cannot be read as a video{where}: {reason}.") from None


@contextmanager
def writing_errors(path: Path) -> Iterator[None]:
    """FFmpeg's errors as `FileError`; those of the system, such as a full disk, as `OSError`, for `atomic_write` to name."""
    av = require_av()
    try:
        yield
    except av.error.FFmpegError as error:
        if error.errno is not None and isinstance(error, OSError) and error.filename is None and error.errno < 256:
            raise OSError(error.errno, os.strerror(error.errno)) from None
        reason = (error.strerror or str(error)).splitlines()[0].lower()
        raise FileError(f"cannot write {path}: {reason}") from None
