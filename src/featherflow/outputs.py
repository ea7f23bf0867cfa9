"""What a job is going to write: checked before anything is computed, against what it reads and one output against another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from .errors import FileError, InputError
from .files import check_place
from .images import IMAGE_SUFFIXES
from .sequences import is_pattern

#: Flow files of a sequence, by the name of their format.
FLOW_FORMATS = {"flo": ".flo", "png16": ".png", "npz": ".npz", "npy": ".npy", "pfm": ".pfm", "flo5": ".flo5", "exr": ".exr"}


def flow_suffix(format: str) -> str:
    """The ending of flow files of a format.

    Raises:
        InputError: for a name that is not in `FLOW_FORMATS`.
    """
    if format not in FLOW_FORMATS:
        raise InputError(f"The format of flow files must be one of {', '.join(FLOW_FORMATS)}, got '{format}'.")
    return FLOW_FORMATS[format]


def check_outputs(
    outputs: Iterable[tuple[str, str | os.PathLike[str] | None]],
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool | None = False,
    sequences: Iterable[str | os.PathLike[str]] = (),
    trees: Iterable[str | os.PathLike[str]] = (),
    makes_folders: bool = False,
) -> None:
    """Refuse outputs that would destroy what is read, or each other, that a later run would read, or that cannot be written.

    Args:
        outputs: (what it is, e.g. "the flow"; where it goes, None for nowhere), each one file.
        inputs: files that the job reads; what is no path of a file (a pattern, a number of a camera, `-`) does not count.
        overwrite: let an output take the place of an input. None: never, for jobs without such an option.
        sequences: folders and glob patterns that were read; the next run would take pictures that are written there for frames.
        trees: folders whose pictures are read at any depth.
        makes_folders: the job makes the folders that its outputs go into; else they must be there.

    Raises:
        InputError: with both names. FileError: for a place where no file can be written.
    """
    read = {_identity(path): path for path in inputs if os.path.isfile(path)}
    written: dict[object, tuple[str, str | os.PathLike[str]]] = {}
    folders, patterns = {}, []
    for source in sequences:
        if os.path.isdir(source):
            folders.setdefault(os.path.realpath(source), source)
        elif is_pattern(source):
            patterns.append(source)
    trees = list(trees)
    for what, path in outputs:
        if path is None:
            continue
        if names_folder(path) or os.path.isdir(path):
            raise InputError(f"'{path}' is the name of a folder, and {what} is one file; name that.")
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
        source = folders.get(os.path.realpath(Path(path).parent)) if folders and _is_picture(path) else None
        if source is None:
            source = next((pattern for pattern in patterns if _would_match(path, pattern)), None)
        if source is not None:
            raise InputError(f"{what} '{path}' would be one of the frames of '{source}' from then on; name another folder.")
        for folder in trees:
            if _is_picture(path) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
                raise InputError(f"{what} '{path}' would be one of the pictures of '{folder}' from then on; name another folder.")
    _check_places([path for _, path in written.values()], makes_folders)


def _check_places(paths: Iterable[str | os.PathLike[str]], makes_folders: bool) -> None:
    """`check_place`, once for each folder, and for each file that is there already; of many, some may stay as they are."""
    tried = set()
    for path in paths:
        folder = Path(path).parent
        if folder not in tried or (os.path.lexists(path) and not makes_folders):
            check_place(folder / "another" if makes_folders and os.path.lexists(path) else path, makes_folders)
        tried.add(folder)


def names_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a name ends as only that of a folder does; as a `Path` it has lost that."""
    return os.fspath(path).endswith(tuple(filter(None, (os.sep, os.altsep))))


def _is_picture(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def _would_match(path: str | os.PathLike[str], pattern: str | os.PathLike[str]) -> bool:
    names, patterns = Path(os.path.abspath(path)).parts, Path(os.path.abspath(pattern)).parts
    if "**" in patterns:
        return fnmatch(os.path.abspath(path), os.path.abspath(pattern))
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


def make_new_folder(path: str | os.PathLike[str]) -> Path:
    """A folder that is there afterwards and holds nothing.

    Raises:
        InputError: if it holds anything; FileError: if it cannot be made.
    """
    folder = make_folder(path)
    if any(folder.iterdir()):
        raise InputError(f"The folder '{path}' is not empty; what is made goes into a new folder.")
    return folder


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
