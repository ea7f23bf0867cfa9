"""Which items there are: pairs of a list or of folders of frames, or clips; and what each is called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from pathlib import PurePosixPath

from ..errors import FileError, InputError, counted
from ..flow import SUFFIXES
from ..images import IMAGE_SUFFIXES
from ..pairs import listed_name, rows_of_list
from ..sequences import natural_order
from .job import Item
from .places import absolute, beside, files_in, is_folder, matches, name_of, parts_of, read_bytes


def find_items(source: str | os.PathLike, verb: str) -> list[Item]:
    """The items of a source.

    Args:
        source: path or URI: a list `.csv` of pairs (frame1, frame2 and, if wanted, output) or of clips (source and, if wanted,
            output), whose names are relative to it; or a folder of frames, a clip, or a glob pattern of frames, folders or clips.
        verb: with "flow", each two neighbours of a folder of frames are an item; else each folder is one.

    A folder that holds no clip, or cannot be read, is an item with a fault where there are others beside it.

    Raises:
        InputError: for a source without items, or several of one name. FileError: for what cannot be read.
    """
    place = absolute(source)
    items = _listed(place, verb) if name_of(place).lower().endswith(".csv") else _found(place, verb)
    faults = [item.fault for item in items if item.fault]
    if len(faults) == len(items):
        raise InputError(faults[0])
    twice = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    if twice:
        raise InputError(f"{len(twice)} names stand for more than one item, the first is '{twice[0]}'; give names in a list.")
    return items


def _listed(place: str, verb: str) -> list[Item]:
    try:
        text = read_bytes(place).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"'{place}' cannot be read as a list: {error}.") from None
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    of_clips = "source" in [cell.strip().lower() for cell in first.split(",")]
    columns = ("source",) if of_clips else ("frame1", "frame2")
    rows = [row for _, row in rows_of_list(text, place, "clips" if of_clips else "pairs", columns, ("output",))]
    entries = [(tuple(beside(place, row[column]) for column in columns), row.get("output")) for row in rows]
    if not of_clips:
        _only_flow(verb)
        names = _names([frames[0] for frames, _ in entries])
        shared = Counter(name for name, (_, given) in zip(names, entries, strict=True) if not given)
        return [
            Item(
                frames,
                listed_name(given, SUFFIXES).as_posix() if given else f"{name}-{_stem(frames[1])}" if shared[name] > 1 else name,
            )
            for name, (frames, given) in zip(names, entries, strict=True)
        ]
    folders = {clip for (clip,), _ in entries if is_folder(clip)}
    names = _names([clip for (clip,), _ in entries], folders)
    items = []
    for name, ((clip,), given) in zip(names, entries, strict=True):
        name = listed_name(given).as_posix() if given else name
        items += _of_folder(clip, name, verb) if clip in folders else [Item((clip,), name)]
    return items


def _found(place: str, verb: str) -> list[Item]:
    is_folder = matches(place)
    found = sorted(is_folder, key=natural_order)
    frames = [one for one in found if _is_image(one)]
    if frames:  # one clip for each folder
        if len(frames) < len(found):
            raise InputError(f"'{place}' matches images and other files; frames and clips are two jobs.")
        folders: dict[str, list[str]] = {}
        for frame in frames:
            folders.setdefault(frame.rpartition("/")[0], []).append(frame)
        names = _names(list(folders), folders)
        single = len(folders) == 1
        clips = zip(names, folders.items(), strict=True)
        return [item for name, (folder, part) in clips for item in _of_frames(part, name, verb, folder, single)]
    if not found:
        raise InputError(f"Nothing matches '{place}'.")
    names = _names(found, {clip for clip in found if is_folder[clip]})
    single = len(found) == 1
    return [
        item
        for clip, name in zip(found, names, strict=True)
        for item in (_of_folder(clip, name, verb, single) if is_folder[clip] else [Item((clip,), name)])
    ]


def _of_folder(folder: str, name: str, verb: str, single: bool = False) -> list[Item]:
    try:
        frames = sorted((file for file in files_in(folder) if _is_image(file)), key=natural_order)
    except FileError as error:
        return [Item((folder,), name, str(error))]
    return _of_frames(frames, name, verb, folder, single)


def _of_frames(frames: list[str], name: str, verb: str, folder: str, single: bool) -> list[Item]:
    """The items of a folder of frames; where it is the only one, its name is left out of those of its pairs."""
    if len(frames) < 2:
        cure = "" if frames else f", or of clips a pattern such as '{folder}/*'"
        return [Item((folder,), name, f"'{folder}' holds {counted(len(frames), 'image')}; two or more are needed{cure}.")]
    if verb != "flow":
        return [Item(tuple(frames), name)]
    below = "" if single else f"{name}/"
    return [Item(pair, f"{below}{_stem(pair[0])}") for pair in pairwise(frames)]


def _only_flow(verb: str) -> None:
    if verb != "flow":
        raise InputError(f"A list of pairs is for the verb flow; {verb} takes clips, in a list with the column source.")


def _is_image(place: str) -> bool:
    return name_of(place).lower().endswith(IMAGE_SUFFIXES)


def _stem(place: str) -> str:
    return PurePosixPath(name_of(place)).stem


def _names(places: list[str], folders: Collection[str] = ()) -> list[str]:
    """Names, those of files without endings, in folders like those of the places, below the one that holds all of them.

    Files whose names would be those of others keep their endings as a part of them.
    """
    parts = [parts_of(place)[:-1] for place in places]
    levels = enumerate(zip(*parts, strict=False))  # no deeper than the first that ends
    common = next((depth for depth, level in levels if len(set(level)) > 1), min(map(len, parts)))
    own = [name_of(place) if place in folders else _stem(place) for place in places]
    names = ["/".join([*part[common:], name]) for part, name in zip(parts, own, strict=True)]
    shared = Counter(name for name, _ in set(zip(names, places, strict=True)))
    return [
        name if shared[name] == 1 or place in folders else f"{name}-{PurePosixPath(name_of(place)).suffix[1:]}"
        for name, place in zip(names, places, strict=True)
    ]
