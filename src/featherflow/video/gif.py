"""GIF does not say how long it lasts, so that a file which was cut is told by its blocks alone."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EXTENSION, _IMAGE = 0x21, 0x2C
_TABLE, _TABLE_SIZE = 0x80, 0x07  # of a byte of flags: a table of colours follows; of 2 ** (n + 1) of them


class _Cut(Exception):
    pass


def is_cut_gif(path: Path) -> bool:
    """Whether a GIF ends within one of its blocks; one that lacks only the mark of its end is whole. False for what is no GIF."""
    try:
        with path.open("rb") as file:
            if file.read(6) not in (b"GIF87a", b"GIF89a"):
                return False
            _skip_table(file, _taken(file, 7)[4])
            while kind := file.read(1):
                if kind[0] == _IMAGE:
                    _skip_table(file, _taken(file, 9)[8])
                    _taken(file, 1)
                elif kind[0] == _EXTENSION:
                    _taken(file, 1)
                else:  # the end, or what no reader knows
                    return False
                while count := _taken(file, 1)[0]:
                    _taken(file, count)
            return False
    except _Cut:
        return True
    except OSError:
        return False


def _skip_table(file: BinaryIO, flags: int) -> None:
    if flags & _TABLE:
        _taken(file, 3 * 2 ** ((flags & _TABLE_SIZE) + 1))


def _taken(file: BinaryIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise _Cut
    return found
