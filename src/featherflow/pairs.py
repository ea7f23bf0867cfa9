"""Which images belong together: double frames by name or in turn, series, lists, files of many pages."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePath

from .errors import FileError, InputError
from .images import IMAGE_SUFFIXES, Still
from .sequences import natural_order, stills, two_stills

PAIRINGS = ("auto", "ab", "double", "series")

# run_0001_a, B0001b, image3-A; run_img1, 0001_frame2.
_LETTER = re.compile(r"(.*(?:[\d_\-. ]))([ab])", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"(.*(?:img|image|frame)_?)([12])", re.IGNORECASE | re.DOTALL)
#: What a list may say of a pair beside its two frames, for what takes no other columns.
COLUMNS = ("mask", "time")


@dataclass(frozen=True)
class FramePair:
    """Two frames, and what a list says beside them."""

    first: Still
    second: Still
    #: Image that is black where nothing is to be measured.
    mask: Path | None = None
    #: When the pair was taken [s].
    time: float | None = None
    #: What files made of it are called, without their endings.
    output: str | None = None


def find_pairs(sources: Sequence[str | os.PathLike], pairing: str = "auto", columns: Sequence[str] = COLUMNS) -> list[FramePair]:
    """Pairs of frames.

    Args:
        sources: two image files; or one of: a folder, a glob pattern, a file of several pictures (TIFF of many pages), a folder
            with the folders `a` and `b` in it, or a list `.csv` with the columns frame1 and frame2, whose names are relative to the
            list.
        pairing: of one source but a list. "ab": by names that differ in a and b, or img1 and img2, at their ends; "double": 1-2,
            3-4, in natural order; "series": 1-2, 2-3; "auto": "ab" where all names come in such pairs, else "series".
        columns: what a list may have beside the two: mask (a file), time [s], output.

    Raises:
        InputError: for frames that do not come in pairs, a list that cannot be understood, or another pairing.
        FileError: for what is not there.
    """
    if pairing not in PAIRINGS:
        raise InputError(f"The pairing must be one of {', '.join(PAIRINGS)}, got '{pairing}'.")
    if len(sources) == 2:
        return [FramePair(*two_stills(sources))]
    if len(sources) != 1:
        raise InputError(
            f"Name two frames, or one folder, quoted glob, file of several pictures or list (.csv); got {len(sources)}."
        )
    source = Path(sources[0])
    if source.suffix.lower() == ".csv" and not source.is_dir():
        return _listed(source, columns)
    halves = _halves(source)
    if halves is not None:
        return halves
    frames = stills(source)
    if pairing in ("auto", "ab"):
        pairs = _by_name(frames, must=pairing == "ab")
        if pairs is not None:
            return pairs
    if pairing == "double":
        if len(frames) % 2:
            raise InputError(f"'{source}' holds {len(frames)} frames, which do not come in pairs: '{frames[-1]}' has no partner.")
        return [FramePair(first, second) for first, second in zip(frames[::2], frames[1::2], strict=True)]
    return [FramePair(first, second) for first, second in pairwise(frames)]


def folders_of(sources: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """The folders and glob patterns that `find_pairs` looks through, in which a picture more would be a frame more."""
    return [*sources, *(folder for folder in (_named_a_and_b(Path(sources[0])) or {}).values())] if len(sources) == 1 else []


def _named_a_and_b(source: Path) -> dict[str, Path] | None:
    if not source.is_dir():
        return None
    folders = {path.name.lower(): path for path in source.iterdir() if path.is_dir() and path.name.lower() in ("a", "b")}
    return folders if len(folders) == 2 else None


def _halves(source: Path) -> list[FramePair] | None:
    """Pairs of a folder with the folders a and b in it, by the order of their names; None for any other."""
    folders = _named_a_and_b(source)
    if folders is None:
        return None
    first, second = (
        sorted((path for path in folders[name].iterdir() if path.suffix.lower() in IMAGE_SUFFIXES), key=natural_order)
        for name in ("a", "b")
    )
    if len(first) != len(second) or not first:
        raise InputError(f"The folders a and b in '{source}' hold {len(first)} and {len(second)} images; expected as many in each.")
    return [FramePair(Still(one), Still(other)) for one, other in zip(first, second, strict=True)]


def _by_name(frames: list[Still], must: bool) -> list[FramePair] | None:
    """Pairs of frames whose names differ in a mark at the end; None, or an error, where one has no partner."""
    marked: dict[tuple[Path, str], dict[str, Still]] = {}
    for still in frames:
        match = still.page is None and (_LETTER.fullmatch(still.path.stem) or _NUMBER.fullmatch(still.path.stem))
        if not match:
            if must:
                raise InputError(f"The name of '{still}' ends neither in a or b nor in img1 or img2, by which pairs could be told.")
            return None
        side = "first" if match[2] in "aA1" else "second"
        marked.setdefault((still.path.parent, match[1]), {})[side] = still
    lonely = [entry for entry in marked.values() if len(entry) == 1]
    if lonely or 2 * len(marked) != len(frames):
        if must:
            raise InputError(f"'{next(iter(lonely[0].values())) if lonely else frames[0]}' has no partner by its name.")
        return None
    return [FramePair(entry["first"], entry["second"]) for entry in marked.values()]


def _listed(path: Path, extra: Sequence[str]) -> list[FramePair]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileError(f"There is no list '{path}'.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"'{path}' cannot be read as a list: {getattr(error, 'strerror', None) or error}.") from None
    return [_pair_of(path, number, entry) for number, entry in rows_of_list(text, path, "pairs", ("frame1", "frame2"), extra)]


def rows_of_list(
    text: str, name: str | os.PathLike, things: str, columns: Sequence[str], extra: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Number of line and cells, by their columns, of each line of a list.

    Args:
        text: of the list, in CSV; a first line without the names of columns is one of cells; lines that begin with # are left out.
        name, things: of the list, and what it lists, for messages.
        columns: that each line fills; extra: that it may fill.

    Raises:
        InputError: for a list that cannot be understood. FileError: for what is no CSV.
    """
    if "\0" in text:  # in no name of a file; Python 3.11 and newer read it as a letter
        raise FileError(f"'{name}' cannot be read as a list: it holds null bytes.")
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise FileError(f"'{name}' cannot be read as a list: {error}.") from None
    rows = [(number, row) for number, row in rows if any(row) and not row[0].startswith("#")]
    expected = " and, if wanted, ".join([", ".join(columns), " and ".join(extra)] if extra else [", ".join(columns)])
    known = named = [*columns, *extra]
    if rows and columns[0] in [cell.lower() for cell in rows[0][1]]:
        named = [cell.lower() for cell in rows.pop(0)[1]]
        if not set(columns) <= set(named) <= set(known):
            raise InputError(f"'{name}' has the columns {', '.join(named)}; expected {expected}.")
    if not rows:
        raise InputError(f"'{name}' lists no {things}.")
    entries = []
    for number, row in rows:
        if len(row) > len(named) or len(row) < len(columns):
            raise InputError(f"'{name}', line {number}, has {len(row)} columns; expected {expected}.")
        entry = dict(zip(named, row, strict=False))  # what is left out at the end of a line is empty
        if not all(entry.get(column) for column in columns):
            raise InputError(f"'{name}', line {number}, does not fill {' and '.join(columns)}.")
        entries.append((number, entry))
    return entries


def listed_name(output: str, endings: Collection[str] = ()) -> PurePath:
    """What the column `output` of a list calls what is made, below the folder that is written into.

    Args:
        endings: in lower case, that are left out, as the format decides on them.

    Raises:
        InputError: for a name that leads out of that folder.
    """
    path = PurePath(output)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InputError(
            f"The output '{output}' of a list leads out of the folder that is written into; expected a name within it."
        )
    return path.with_suffix("") if path.suffix.lower() in endings else path


def _pair_of(path: Path, number: int, entry: Mapping[str, str]) -> FramePair:
    try:
        time = float(entry["time"]) if entry.get("time") else None
    except ValueError:
        time = math.nan
    if time is not None and not math.isfinite(time):
        raise InputError(f"'{path}', line {number}, has the time '{entry['time']}'; expected a number of seconds.")
    mask = path.parent / entry["mask"] if entry.get("mask") else None
    first, second = (Still(path.parent / name) for name in (entry["frame1"], entry["frame2"]))
    return FramePair(first, second, mask, time, entry.get("output") or None)
