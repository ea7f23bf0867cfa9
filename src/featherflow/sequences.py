"""Sequences of still pictures: which files belong together, in which order, and what is missing between them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median_low

from .errors import FileError, InputError
from .images import IMAGE_SUFFIXES, Still, check_single, page_count


def natural_order(path: str | os.PathLike[str]) -> tuple:
    """Sorting key in which numbers count as numbers, so that frame_2 comes before frame_10; folder by folder."""
    path = Path(path)
    return tuple(_numbers(part) for part in path.parent.parts), _numbers(path.name), str(path)


def _numbers(text: str) -> tuple:
    parts = re.split(r"(\d+)", text)  # text and digits in turn, so that like is compared with like
    return tuple((int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts))


def is_pattern(source: str | os.PathLike[str]) -> bool:
    """Whether a name is a glob pattern; a file or folder that is named like one is that file or folder."""
    return glob.has_magic(str(source)) and not Path(source).exists()


def stills(source: str | os.PathLike[str]) -> list[Still]:
    """The images of a folder, the files that a glob pattern matches, or the pictures of one file of several; in natural order.

    Raises:
        FileError: if there is no such folder; InputError: for a single picture, and for fewer than two.
    """
    source = Path(source)
    if source.is_dir():
        found = [path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    elif is_pattern(source):
        found = [Path(path) for path in glob.glob(str(source), recursive=True) if not Path(path).is_dir()]
    elif not source.exists():
        raise FileError(f"There is no file or folder '{source}'.")
    else:
        count = page_count(source)
        if count == 1:
            raise InputError(f"'{source}' is a single frame; name the second one too, or a folder or glob of frames.")
        return [Still(source, page) for page in range(count)]
    if len(found) < 2:
        raise InputError(f"'{source}' holds {len(found)} image(s); two or more are needed.")
    found.sort(key=natural_order)
    check_single(f"'{found[0]}'", page_count(found[0]))  # before anything is computed; the others as they are read
    return [Still(path) for path in found]


def two_stills(sources: Sequence[str | os.PathLike[str]]) -> tuple[Still, Still]:
    """Two image files as frames; what is not there is told when it is read.

    Raises:
        InputError: for a folder, or a file of several pictures.
    """
    first, second = map(Path, sources)
    for path in (first, second):
        if path.is_dir():
            raise InputError(f"'{path}' is a folder; name two image files, or one folder alone to take its frames as a sequence.")
        if path.is_file() and path.stat().st_size:
            check_single(f"'{path}'", page_count(path))
    return Still(first), Still(second)


def by_folder(frames: list[Still]) -> list[list[Still]]:
    """Frames in natural order as one sequence for each folder; no pair reaches from one to another.

    Raises:
        InputError: where no folder holds two.
    """
    groups = [list(group) for _, group in groupby(frames, key=lambda still: still.path.parent)]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        raise InputError(f"No folder of these {len(frames)} images holds two; pairs are made of neighbours within one folder.")
    return groups


def gaps(frames: list[Still]) -> list[str]:
    """A sentence for each place where the numbers at the ends of the names skip more than they usually do."""
    found = [re.search(r"(\d+)\D*$", still.path.stem) for still in frames if still.page is None]
    numbers = [int(match[1]) for match in found if match]
    if len(numbers) < max(len(frames), 3):
        return []
    steps = [b - a for a, b in pairwise(numbers)]
    usual = max(median_low(steps), 1)
    return [
        f"'{a.path.name}' and '{b.path.name}' are taken as neighbours, though their numbers are {step} apart and others {usual}."
        for (a, b), step in zip(pairwise(frames), steps, strict=True)
        if 2 * step > 3 * usual  # numbers that are times vary a little
    ]
