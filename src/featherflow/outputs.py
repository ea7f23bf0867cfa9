"""What a job is going to write: checked before anything is computed, against what it reads and one output against another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from .errors import FileError, InputError
from .frames import IMAGE_SUFFIXES
from .sequences import is_pattern

#: Flow files of a sequence, by the name of their format.
FLOW_FORMATS = {"flo": ".flo", "png16": ".png", "npz": ".npz", "npy": ".npy", "pfm": ".pfm", "flo5": ".flo5", "exr": ".exr"}


def check_outputs(
    outputs: Iterable[tuple[str, str | os.PathLike[str] | None]],
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool | None = False,
    sequence: str | os.PathLike[str] | None = None,
) -> None:
    """Refuse outputs that would destroy what is read, or each other.

    Args:
        outputs: (what it is, e.g. "the flow"; where it goes, None for nowhere).
        inputs: files that the job reads; what is no path of a file (a pattern, a number of a camera, `-`) does not count.
        overwrite: let an output take the place of an input. None: never, for jobs that read on after they began to write.

        sequence: a folder or glob pattern that was read; the next run would take pictures that are written there for frames of it.

    Raises:
        InputError: with both names.
    """
    read = {_identity(path): path for path in inputs if os.path.isfile(path)}
    written: dict[object, tuple[str, str | os.PathLike[str]]] = {}
    for what, path in outputs:
        if path is None:
            continue
        key = _identity(path)
        if key in written:
            other, name = written[key]
            if other == what:
                raise InputError(f"{what} would be written to '{path}' twice, once over the other; give them names of their own.")
            raise InputError(f"{other} and {what} would both be written to '{name}'; name another file for one of them.")
        written[key] = (what, path)
        if key in read and not overwrite:
            cure = "name another file" if overwrite is None else "name another file, or say --overwrite"
            raise InputError(f"{what} would take the place of '{read[key]}', which is read; {cure}.")
        if sequence is not None and _would_be_read(path, sequence):
            raise InputError(f"{what} '{path}' would be one of the frames of '{sequence}' from then on; name another folder.")


def _would_be_read(path: str | os.PathLike[str], sequence: str | os.PathLike[str]) -> bool:
    if os.path.isdir(sequence):
        return Path(path).suffix.lower() in IMAGE_SUFFIXES and os.path.realpath(Path(path).parent) == os.path.realpath(sequence)
    if not is_pattern(sequence):
        return False
    names, patterns = Path(os.path.abspath(path)).parts, Path(os.path.abspath(sequence)).parts
    if "**" in patterns:
        return fnmatch(os.path.abspath(path), os.path.abspath(sequence))
    return len(names) == len(patterns) and all(fnmatch(name, part) for name, part in zip(names, patterns, strict=True))


def _identity(path: str | os.PathLike[str]) -> object:
    """Equal for names of one file: through links, `..`, and letters of either case where the file system takes them for one."""
    real = Path(os.path.realpath(path))
    try:
        status = os.stat(real)
        if status.st_ino:
            return status.st_dev, status.st_ino
    except OSError:
        pass
    try:  # not there yet: the folder may have several names too
        folder = os.stat(real.parent)
        return folder.st_dev, folder.st_ino, os.path.normcase(real.name)
    except OSError:
        return os.path.normcase(real)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """A folder that is there afterwards.

    Raises:
        FileError: if it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder '{path}' cannot be made: {error.strerror}.") from None
    return Path(path)
