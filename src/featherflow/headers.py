"""What an image file is, and what it would cost to decode, told from its headers."""

from __future__ import annotations

import re
from typing import BinaryIO

from .errors import LimitError

#: Most scans of a JPEG. Encoders make 1 to about 20; each one is a pass over the whole picture.
MOST_SCANS = 50
_START_OF_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
#: A marker inside the data of a scan: not a byte 255 that is stuffed, filled up, or one of the restarts.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def is_clip(file: BinaryIO) -> bool:
    """Whether a file begins as the usual containers of video do."""
    file.seek(0)
    head = file.read(189)
    marks = head[4:8] == b"ftyp", head[:4] in (b"\x1aE\xdf\xa3", b"OggS"), head[:3] == b"FLV", head[8:12] == b"AVI "
    return any(marks) or (head[:1] == b"G" and head[188:189] == b"G")


def check_scans(file: BinaryIO, name: str) -> None:
    """Refuse an image that takes many passes over itself. The file is left at its beginning.

    Args:
        name: how errors call it.

    Raises:
        LimitError: for a JPEG of more than `MOST_SCANS` scans.
    """
    file.seek(0)
    is_jpeg = file.read(2) == b"\xff\xd8"
    file.seek(0)
    if is_jpeg and count_scans(file.read(), MOST_SCANS + 1) > MOST_SCANS:
        raise LimitError(f"{name} is a JPEG of more than {MOST_SCANS} scans; save it again as a usual one.")
    file.seek(0)


def count_scans(data: bytes, most: int) -> int:
    """Scans of a JPEG, counted up to `most`; of a damaged one those before the damage."""
    position, scans = 2, 0
    while position + 4 <= len(data) and scans < most:
        if data[position] != 0xFF:
            found = _MARKER.search(data, position)  # decoders look for the next marker too
            if found is None:
                break
            position = found.start()
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker == _END:
            break
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            if marker == _START_OF_SCAN:
                scans += 1
                found = _MARKER.search(data, position)
                if found is None:
                    break
                position = found.start()
    return scans
