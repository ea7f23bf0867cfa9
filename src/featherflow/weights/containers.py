"""Reading a downloaded file whole, through the wrappings weight files come in. Everything stays in memory: nothing is unpacked
to disk, so names inside an archive cannot lead anywhere. What a wrapping may unpack to is bounded by its own size."""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import FileError
from .tar import DamagedTarError, members

#: No weight file of the supported networks comes near this size, unpacked [bytes]; FlowNet2's has 650 MB.
MOST_BYTES = 1024 * 2**20
#: Trained weights are noise and hardly shrink: the files at hand by a factor of 5 at most.
_MOST_EXPANSION = 100
_ALWAYS_ALLOWED = 64 * 2**20  # bytes that any file may unpack to
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
_XZ, _GZIP, _TAR = b"\xfd7zXZ\x00", b"\x1f\x8b", b"ustar"
_MOST_WRAPPINGS = 3
_MOST_GZIP_MEMBERS = 1000
_PIECE = 1 << 16
_XZ_MEMORY = 256 * 2**20  # bytes; against a header that asks for a giant dictionary (the strongest preset needs 65 MiB)


class Contents(NamedTuple):
    """Bytes of a file, and the name to call it by in messages."""

    data: bytes
    name: str


def read_contents(path: str | os.PathLike[str]) -> Contents:
    """Bytes of a file, out of `.xz`, `.gz` or a tar archive that holds one `.caffemodel`; recognised by content, not by name.

    Raises:
        FileError: for a file that cannot be read, is damaged, is larger than `MOST_BYTES`, or is a Git LFS pointer.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise FileError(f"There is no file {path}.") from error
    except IsADirectoryError as error:
        raise FileError(f"{path} is a folder; a weight file was expected.") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
    return unwrap(data, str(path))


def unwrap(data: bytes, name: str) -> Contents:
    """What `read_contents` does, for bytes already read; `name` is for messages."""
    budget = most_unpacked(len(data))
    for _ in range(_MOST_WRAPPINGS):
        check_size(len(data), budget, name)
        if not data:
            raise FileError(f"{name} is empty.")
        if is_lfs_pointer(data):
            raise FileError(
                f"{name} is a Git LFS pointer, a short text that stands for the file; download the file itself (in a clone: "
                "git lfs pull)."
            )
        if data.startswith(_XZ):
            data = _unpack_xz(data, name, budget)
        elif data.startswith(_GZIP):
            data = _unpack_gzip(data, name, budget)
        elif data[257:262] == _TAR:
            data = _only_caffemodel(data, name)
        else:
            return Contents(data, name)
    raise FileError(f"{name} is packed more than {_MOST_WRAPPINGS} times over; unpack it first.")


def is_lfs_pointer(data: bytes) -> bool:
    """Whether these bytes are Git LFS's stand-in for a file."""
    return data.startswith(_LFS_POINTER)


def most_unpacked(packed: int) -> int:
    """Most bytes that a weight file of so many bytes may unpack to, through all its wrappings."""
    return min(MOST_BYTES, max(_ALWAYS_ALLOWED, _MOST_EXPANSION * packed))


def check_size(size: int, budget: int, name: str) -> None:
    """Refuse what is larger than it may be.

    Raises:
        FileError: for more than `budget` bytes.
    """
    if size > budget:
        raise FileError(f"{name} holds more than {budget >> 20} MiB, too much for a weight file of its size; it was not opened.")


def _unpack_xz(data: bytes, name: str, budget: int) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    try:
        unpacked, _ = _unpack(unpacker.decompress, lambda: unpacker.eof, data, 0, budget)
    except lzma.LZMAError as error:
        raise FileError(f"{name} is a damaged .xz file; download it again.") from error
    if not unpacker.eof and len(unpacked) <= budget:
        raise FileError(f"{name} is a truncated .xz file; download it again.")
    return bytes(unpacked)


def _unpack_gzip(data: bytes, name: str, budget: int) -> bytes:
    """The content of all members; zeros after the last one are padding."""
    unpacked, position = bytearray(), 0
    for _ in range(_MOST_GZIP_MEMBERS):
        unpacker = zlib.decompressobj(zlib.MAX_WBITS + 16)
        try:
            part, position = _unpack(unpacker.decompress, lambda u=unpacker: u.eof, data, position, budget - len(unpacked))
        except zlib.error as error:
            raise FileError(f"{name} is a damaged .gz file; download it again.") from error
        unpacked += part
        if len(unpacked) > budget:
            return bytes(unpacked)
        if not unpacker.eof:
            raise FileError(f"{name} is a truncated .gz file; download it again.")
        position -= len(unpacker.unused_data)
        if data[position : position + 1] == b"\0" or position >= len(data):
            return bytes(unpacked)
    raise FileError(f"{name} is a .gz file of more than {_MOST_GZIP_MEMBERS} parts; unpack it first.")


def _unpack(
    decompress: Callable[[bytes, int], bytes], ended: Callable[[], bool], data: bytes, position: int, budget: int
) -> tuple[bytearray, int]:
    """Unpack from `position` on, up to one byte more than the budget. Returns that and where reading stopped.

    In pieces: what a decompressor has not taken it copies with every call.
    """
    unpacked = bytearray()
    while position < len(data) and len(unpacked) <= budget and not ended():
        unpacked += decompress(data[position : position + _PIECE], budget + 1 - len(unpacked))
        position = min(position + _PIECE, len(data))
    return unpacked, position


def _only_caffemodel(data: bytes, name: str) -> bytes:
    try:
        models = [member for member in members(data) if member.name.endswith(".caffemodel")]
    except DamagedTarError as error:
        raise FileError(f"{name} is a damaged or truncated tar archive ({error}); download it again.") from error
    if len(models) != 1:
        raise FileError(f"{name} holds {len(models)} .caffemodel files; an archive with exactly one was expected.")
    return models[0].data
