"""Regular files of a tar archive in memory, its headers read by hand: numbers are bounded, and nothing is searched by patterns.

A member is a header of 512 bytes and its data, filled up to a multiple of 512; two headers of zeros, or the end of the bytes, end
the archive. Of the header: name 0-99, size 124-135 (octal, or base 256 when the first bit is set), checksum 148-155 (octal; the
sum of all bytes, with its own taken for spaces), type 156, "ustar" 257-261, prefix of the name 345-499 (POSIX).

Members of the types x (POSIX) and L (GNU) hold a longer name for the next one. POSIX 1003.1-2001, pax.
"""

from __future__ import annotations

from typing import NamedTuple

_BLOCK = 512
_MOST_MEMBERS = 10_000
_MOST_HEADER = 1 << 16  # bytes of an extended header
_REGULAR = (b"0", b"\0", b"7")
_SPARSE = (b"S",)
_EXTENDED, _EXTENDED_FOR_ALL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"


class DamagedTarError(Exception):
    """Bytes that are no tar archive; the message says why."""


class Member(NamedTuple):
    """A regular file of an archive."""

    name: str
    data: bytes


def members(data: bytes) -> list[Member]:
    """Regular files, in order; folders, links and devices are left out.

    Raises:
        DamagedTarError: for headers whose sums or numbers are wrong, data that are cut off, sparse files, and more than 10,000
            members.
    """
    found, position, later = [], 0, {}
    for _ in range(_MOST_MEMBERS):
        header = data[position : position + _BLOCK]
        if not header.strip(b"\0"):
            if position == 0:
                raise DamagedTarError("it holds nothing")
            return found
        if len(header) < _BLOCK:
            raise DamagedTarError("a header is cut off")
        _check_sum(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in _SPARSE:
            raise DamagedTarError("it holds a sparse file")
        size = later.get("size", size) if kind in _REGULAR else size
        position += _BLOCK
        if size > len(data) - position:
            raise DamagedTarError(f"a member claims {size} bytes and {max(len(data) - position, 0)} are left")
        if kind in (_EXTENDED, _EXTENDED_FOR_ALL, _LONG_NAME, _LONG_LINK):
            if size > _MOST_HEADER:
                raise DamagedTarError(f"an extended header claims {size} bytes")
            content = data[position : position + size]
            if kind == _EXTENDED:
                later |= _extended(content)
            elif kind == _LONG_NAME:
                later["path"] = _text(content)
        else:
            if kind in _REGULAR:
                prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
                name = later.get("path") or (f"{prefix}/" if prefix else "") + _text(header[:100])
                found.append(Member(name, data[position : position + size]))
            later = {}
        position += -(-size // _BLOCK) * _BLOCK
    raise DamagedTarError(f"it has more than {_MOST_MEMBERS} members")


def _check_sum(header: bytes) -> None:
    if sum(header) - sum(header[148:156]) + 8 * ord(" ") != _number(header[148:156]):
        raise DamagedTarError("the sum of a header is wrong")


def _number(field: bytes) -> int:
    """A size: octal digits, or in base 256 after a first byte of 128. A negative one (first byte 255) does not exist."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.replace(b"\0", b" ").strip()
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise DamagedTarError("a number of a header is none")
    return int(digits, 8)


def _extended(content: bytes) -> dict:
    """Name and size of the next member out of records "LENGTH KEY=VALUE\\n", where LENGTH counts the whole record."""
    values, position = {}, 0
    while position < len(content):
        digits, _, _ = content[position : position + 12].partition(b" ")
        if not digits.isdigit() or len(digits) > 10:
            raise DamagedTarError("a record of an extended header has no length")
        length = int(digits)
        record = content[position + len(digits) + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if length <= len(digits) + 1 or position + length > len(content) or not equals or not value.endswith(b"\n"):
            raise DamagedTarError("a record of an extended header is damaged")
        value = value[:-1]
        if key.startswith(b"GNU.sparse"):
            raise DamagedTarError("it holds a sparse file")
        if key == b"path":
            values["path"] = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:
                raise DamagedTarError("a size of an extended header is none")
            values["size"] = int(value)
        position += length
    return values


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")
