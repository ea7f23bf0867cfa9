"""What FFmpeg says when it cannot write, as sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FileError
from .reading import require_av


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
