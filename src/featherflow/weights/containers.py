"""Reading a downloaded file whole, through the wrappings weight files come in. Everything stays in memory: nothing is unpacked
to disk, so names inside an archive cannot lead anywhere."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

from ..errors import FileError

#: No weight file of the supported networks comes near this size, unpacked [bytes]; FlowNet2's has 650 MB.
MOST_BYTES = 1024 * 2**20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
_XZ, _GZIP, _TAR = b"\xfd7zXZ\x00", b"\x1f\x8b", b"ustar"
_MOST_WRAPPINGS = 3
_XZ_MEMORY = 256 * 2**20  # bytes; against a header that asks for a giant dictionary (the strongest preset needs 65 MiB)


class Contents(NamedTuple):
    """Bytes of a file, and the name to call it by in messages."""

    data: bytes
    name: str


def read_contents(path: str | Path) -> Contents:
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
    for _ in range(_MOST_WRAPPINGS):
        if len(data) > MOST_BYTES:
            raise FileError(f"{name} holds more than {MOST_BYTES >> 20} MiB, too much for a weight file; it was not opened.")
        if not data:
            raise FileError(f"{name} is empty.")
        if is_lfs_pointer(data):
            raise FileError(
                f"{name} is a Git LFS pointer, a short text that stands for the file; download the file itself (in a clone: "
                "git lfs pull)."
            )
        if data.startswith(_XZ):
            data = _unpack_xz(data, name)
        elif data.startswith(_GZIP):
            data = _unpack_gzip(data, name)
        elif data[257:262] == _TAR:
            data = _only_caffemodel(data, name)
        else:
            return Contents(data, name)
    raise FileError(f"{name} is packed more than {_MOST_WRAPPINGS} times over; unpack it first.")


def is_lfs_pointer(data: bytes) -> bool:
    """Whether these bytes are Git LFS's stand-in for a file."""
    return data.startswith(_LFS_POINTER)


def _unpack_xz(data: bytes, name: str) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    try:
        unpacked = unpacker.decompress(data, MOST_BYTES + 1)
    except lzma.LZMAError as error:
        raise FileError(f"{name} is a damaged .xz file; download it again.") from error
    if not unpacker.eof and len(unpacked) <= MOST_BYTES:
        raise FileError(f"{name} is a truncated .xz file; download it again.")
    return unpacked


def _unpack_gzip(data: bytes, name: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(MOST_BYTES + 1)
    except EOFError as error:
        raise FileError(f"{name} is a truncated .gz file; download it again.") from error
    except (OSError, zlib.error) as error:
        raise FileError(f"{name} is a damaged .gz file; download it again.") from error


def _only_caffemodel(data: bytes, name: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            models = [member for member in archive if member.isreg() and member.name.endswith(".caffemodel")]
            if len(models) != 1:
                raise FileError(f"{name} holds {len(models)} .caffemodel files; an archive with exactly one was expected.")
            if models[0].size > MOST_BYTES:
                raise FileError(f"{name} holds more than {MOST_BYTES >> 20} MiB, too much for a weight file; it was not opened.")
            unpacked = archive.extractfile(models[0]).read()
    except FileError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise FileError(f"{name} is a damaged or truncated tar archive; download it again.") from error
    return unpacked
