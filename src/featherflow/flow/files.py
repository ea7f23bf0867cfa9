"""Flow files: one reader and one writer, the format chosen by the file name's suffix.

| suffix  | format                                                                                        | unknown    |
|---------|-----------------------------------------------------------------------------------------------|------------|
| `.flo`  | Middlebury: float32 magic 202021.25, int32 width, height, then u, v by pixel, little-endian   | 1.66667e9  |
| `.png`  | KITTI: 16-bit RGB, u = (R - 32768) / 64, v = (G - 32768) / 64, known where B > 0              | 0, 0, 0    |
| `.pfm`  | FlyingThings3D: colour PFM, channels u, v, 0, rows from the bottom up, either byte order      | NaN        |
| `.npz`  | NumPy archive: `flow` (H, W, 2), and `valid` (H, W) where pixels are unknown                  | NaN        |
| `.npy`  | NumPy array (H, W, 2)                                                                         | NaN        |
| `.flo5` | Spring: HDF5 dataset `flow` (H, W, 2); needs the extra `featherflow[flo5]`                    | NaN        |
| `.exr`  | OpenEXR: motion vectors, or an STMap in `*stmap.exr`; needs `featherflow[exr]`, see `flow.exr` | 0 in a mask |

In memory a flow is `(H, W, 2)` float32 in px, x to the right and then y down, with NaN in both components where it is
unknown. A reader trusts no header: sizes are held against the file's length before any memory is asked for.
"""

import contextlib
import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from featherflow.errors import FileError, InputError, MissingExtraError
from featherflow.files import atomic_write
from featherflow.flow.exr import read_exr, write_exr
from featherflow.flow.fields import as_field, as_mask, known

SUFFIXES = (".flo", ".png", ".pfm", ".npz", ".npy", ".flo5", ".exr")

FLO_MAGIC = 202021.25
FLO_UNKNOWN = 1.666666752e9
KITTI_OFFSET = 32768
KITTI_STEPS_PER_PIXEL = 64

# No deflate stream expands by more than this, so a header that promises more than that from the bytes at hand lies.
_MOST_DEFLATE_EXPANDS = 1032
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_flow(path: str | os.PathLike) -> np.ndarray:
    """Read a flow file.

    Returns `(H, W, 2)` float32 [px], x to the right and then y down, NaN in both components of unknown pixels.

    Raises `InputError` for a suffix that is none of `SUFFIXES`, `FileError` for a file that is missing, damaged or of
    another format, and `MissingExtraError` for `.flo5` without h5py.
    """
    path = Path(path)
    reader, _ = _codec(path)
    with _open(path) as (file, size):
        flow, valid = reader(path, file, size)
    return _with_unknown(flow, valid)


def decode_flow(name: str, data: bytes) -> np.ndarray:
    """The flow in the bytes of a file of that name: `read_flow` for what came by other ways than a disk.

    Returns and raises as `read_flow` does.
    """
    path = Path(name)
    reader, _ = _codec(path)
    if not data:
        raise FileError(f"{path} is empty: expected a flow file, found zero bytes")
    return _with_unknown(*reader(path, io.BytesIO(data), len(data)))


def _with_unknown(flow: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    # Every reader makes a fresh array, so that it can be written to here.
    unknown = ~known(flow)
    if valid is not None:
        unknown |= ~valid
    flow[unknown] = np.nan
    return flow


def read_flow_with_valid(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a flow file and say which pixels are known.

    Returns the flow as `read_flow` does, and a boolean `(H, W)` that is true where the flow is known.
    Raises as `read_flow` does.
    """
    flow = read_flow(path)
    return flow, ~np.isnan(flow[..., 0])


def write_flow(path: str | os.PathLike, flow, valid=None) -> None:
    """Write a flow file: complete, or not at all (see `featherflow.files.atomic_write`).

    `flow`: `(H, W, 2)` array or `(2, H, W)` / `(1, 2, H, W)` tensor [px], of any real number type; stored as float32
    (`.png`: in steps of 1/64 px). `valid`: `(H, W)`, false or zero where the flow is unknown; pixels with NaN are
    unknown in any case.

    Raises `InputError` for an unknown suffix, a wrong shape, infinite values or (`.png`) values that the format cannot
    hold, `FileError` when the file cannot be written, and `MissingExtraError` for `.flo5` without h5py.
    """
    content = encode_flow(path, flow, valid)
    with atomic_write(path) as file:
        file.write(content)


def encode_flow(name: str | os.PathLike, flow, valid=None) -> bytes:
    """The bytes that `write_flow` would write into a file of that name. Arguments and errors as there."""
    path = Path(name)
    _, writer = _codec(path)
    field = as_field(flow)
    unknown = np.isnan(field).any(axis=-1)
    if valid is not None:
        unknown |= ~as_mask(valid, field.shape[:2])
    if not (unknown | known(field)).all():
        # Such a value would read back as "unknown", which is not what the caller meant.
        raise InputError(f"cannot write {path}: the flow holds infinite values or values beyond 1e9 px")
    if unknown.any():
        field = field.copy()
        field[unknown] = np.nan
    return writer(path, field, unknown)


# Middlebury .flo ------------------------------------------------------------------------------------------------------


def _read_flo(path: Path, file: BinaryIO, size: int):
    header = file.read(12)
    if len(header) < 12:
        raise FileError(f"{path} is cut short: a .flo file starts with 12 bytes of header, but this one has {size}")
    magic, width, height = struct.unpack("<fii", header)
    if magic != FLO_MAGIC:
        raise FileError(f"{path} is not a .flo file: expected the magic number {FLO_MAGIC}, found {magic:g}")
    _check_dimensions(path, width, height)
    _check_size(path, width, height, expected=12 + 8 * width * height, found=size)
    return _read_floats(path, file, "<f4", (height, width, 2)), None


def _write_flo(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    height, width = unknown.shape
    stored = np.where(unknown[..., None], np.float32(FLO_UNKNOWN), field)
    return struct.pack("<fii", FLO_MAGIC, width, height) + stored.astype("<f4").tobytes()


# FlyingThings3D .pfm --------------------------------------------------------------------------------------------------

# One white space ends the header; "\r\n" counts as one, since some writers use it on every line.
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(-?\d{1,20})\s+(-?\d{1,20})\s+([-+]?[0-9.]+(?:[eE][-+]?\d+)?)(?:\r\n|\s)")


def _read_pfm(path: Path, file: BinaryIO, size: int):
    start = file.read(256)
    match = _PFM_HEADER.match(start)
    if match is None:
        raise FileError(f"{path} is not a .pfm file: expected 'PF', width, height and scale, found {_quote(start)}")
    if match[1] != b"PF":
        raise FileError(f"{path} is a grey .pfm file ('Pf'): a flow needs the colour form ('PF'), with u and v in it")
    width, height = int(match[2]), int(match[3])
    try:
        scale = float(match[4])
    except ValueError:
        scale = 0.0
    if scale == 0 or not math.isfinite(scale):
        raise FileError(f"{path} has the .pfm scale {_quote(match[4])}: expected a number that is not zero")
    _check_dimensions(path, width, height)
    _check_size(path, width, height, expected=match.end() + 12 * width * height, found=size)
    file.seek(match.end())
    # The scale's sign is the byte order; its size is a unit that flow files do not use.
    values = _read_floats(path, file, "<f4" if scale < 0 else ">f4", (height, width, 3))
    return np.ascontiguousarray(values[::-1, :, :2]), None


def _write_pfm(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    height, width = unknown.shape
    stored = np.zeros((height, width, 3), "<f4")
    stored[..., :2] = field[::-1]
    return f"PF\n{width} {height}\n-1.0\n".encode() + stored.tobytes()


# KITTI .png -----------------------------------------------------------------------------------------------------------


def _read_kitti(path: Path, file: BinaryIO, size: int):
    import png

    data = file.read()
    width, height = _check_png(path, data)
    try:
        rows = png.Reader(bytes=data).read()[2]
        values = np.empty((height, width * 3), np.uint16)
        count = 0
        for row in rows:
            values[count] = row
            count += 1
    except Exception as error:  # beside its own errors, pypng lets through what damage makes of its indices
        raise FileError(f"{path} is a damaged PNG file: {_first_line(error)}") from error
    if count != height:
        raise FileError(f"{path} is a damaged PNG file: expected {height} rows, found {count}")
    values = values.reshape(height, width, 3)
    flow = (values[..., :2].astype(np.float32) - KITTI_OFFSET) / KITTI_STEPS_PER_PIXEL
    return flow, values[..., 2] > 0


def _check_png(path: Path, data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose form is that of a KITTI flow and whose pixel data is as long as it claims."""
    if not data.startswith(_PNG_SIGNATURE):
        raise FileError(f"{path} is not a PNG file: expected the PNG signature, found {_quote(data[:8])}")
    position, packed, header, ended = len(_PNG_SIGNATURE), [], None, False
    while position < len(data) and not ended:
        if position + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            break
        body = data[position + 8 : position + 8 + length]
        if header is None and kind != b"IHDR":
            raise FileError(f"{path} is a damaged PNG file: expected an IHDR chunk first, found {_quote(kind)}")
        if kind == b"IHDR" and length == 13:
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed.append(body)
        ended = kind == b"IEND"
        position += 12 + length
    if header is None or not ended:
        raise FileError(f"{path} is cut short: its {len(data)} bytes end before the PNG file's last chunk")
    if position != len(data):
        raise FileError(f"{path} has {len(data) - position} bytes after the end of its PNG data, where none belong")
    width, height, depth, kind = header[:4]
    if (depth, kind) != (16, 2):
        colours = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGB and alpha"}.get(kind, f"type {kind}")
        raise FileError(f"{path} is not a KITTI flow: expected a PNG with 16-bit RGB, found {depth}-bit {colours}")
    _check_dimensions(path, width, height)
    # Filter bytes: one for each row, and fewer than three for each row when interlaced.
    least, most = 6 * width * height, 6 * width * height + 3 * height + 64
    packed = b"".join(packed)
    if least > len(packed) * _MOST_DEFLATE_EXPANDS:
        raise FileError(f"{path} claims {width} x {height} pixels, but its {len(packed)} bytes of pixel data cannot hold as many")
    try:
        found = len(zlib.decompressobj().decompress(packed, most + 1))
    except zlib.error as error:
        raise FileError(f"{path} is a damaged PNG file: {_first_line(error)}") from error
    if not least < found <= most:
        amount = "more" if found > most else str(found)
        raise FileError(f"{path} claims {width} x {height} pixels, {least + height} bytes of pixel data, but holds {amount}")
    return width, height


def _write_kitti(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    import png

    height, width = unknown.shape
    steps = np.rint(np.where(unknown[..., None], 0, field).astype(np.float64) * KITTI_STEPS_PER_PIXEL) + KITTI_OFFSET
    outside = (steps < 0) | (steps > 65535)
    if outside.any():
        raise InputError(
            f"cannot write {path}: KITTI's PNG holds flow components from -512 to 511.98 px, but the flow holds "
            f"{field[outside][0]:g} px; use .flo instead"
        )
    stored = np.empty((height, width, 3), ">u2")
    stored[..., :2] = steps
    stored[..., 2] = 1
    stored[unknown] = 0
    buffer = io.BytesIO()
    writer = png.Writer(width, height, greyscale=False, bitdepth=16)
    writer.write_packed(buffer, (row.tobytes() for row in stored))
    return buffer.getvalue()


# NumPy .npz and .npy --------------------------------------------------------------------------------------------------


def _read_npy(path: Path, file: BinaryIO, size: int):
    return _read_npy_flow(path, file, size, "the array"), None


def _read_npz(path: Path, file: BinaryIO, size: int):
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if "flow.npy" not in members:
                keys = ", ".join(sorted(name.removesuffix(".npy") for name in members)) or "nothing"
                raise FileError(f"{path} holds no flow: expected the key 'flow', found {_shorten(keys)}")
            with _open_member(path, archive, members["flow.npy"], size) as (member, length):
                flow = _read_npy_flow(path, member, length, "'flow'")
            if "valid.npy" not in members:
                return flow, None
            with _open_member(path, archive, members["valid.npy"], size) as (member, length):
                valid = _read_npy_array(path, member, length, "'valid'")
    except FileError:
        raise
    except Exception as error:  # beside BadZipFile, damage to names, sizes and streams raises many kinds
        raise FileError(f"{path} is not a readable .npz archive: {_first_line(error)}") from error
    if valid.shape != flow.shape[:2] or valid.dtype.kind not in "bfiu":
        raise FileError(f"{path} holds a 'valid' of shape {valid.shape} and type {valid.dtype}: expected booleans {flow.shape[:2]}")
    return flow, valid != 0


@contextlib.contextmanager
def _open_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int):
    expands = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _MOST_DEFLATE_EXPANDS}.get(member.compress_type)
    if expands is None:
        raise FileError(f"{path} is packed by zip method {member.compress_type}: expected stored or deflate")
    if member.compress_size > size or member.file_size > expands * member.compress_size:
        raise FileError(f"{path} claims {member.file_size} bytes for '{member.filename}', which its {size} cannot hold")
    with archive.open(member) as file:
        yield file, member.file_size


def _read_npy_flow(path: Path, file: BinaryIO, size: int, what: str) -> np.ndarray:
    values = _read_npy_array(path, file, size, what)
    if values.ndim != 3 or values.shape[2] != 2 or values.size == 0:
        raise FileError(f"{path} holds no flow: expected {what} of shape (H, W, 2), found {values.shape}")
    if values.dtype.kind not in "fiu":
        raise FileError(f"{path} holds no flow: expected {what} to hold real numbers, found the type {values.dtype}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, hence unknown
        return values.astype(np.float32, order="C")


def _read_npy_array(path: Path, file: BinaryIO, size: int, what: str) -> np.ndarray:
    """The array of an .npy stream of `size` bytes. NumPy's own reader would allocate what the header claims."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    except Exception as error:  # NumPy parses the header as Python, so damage raises whatever a tokenizer can
        raise FileError(f"{path} does not hold a readable NumPy array: {_first_line(error)}") from error
    if dtype.hasobject:
        raise FileError(f"{path} holds Python objects in {what}: expected numbers, and will not unpickle")
    length, rest = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or length != rest:
        raise FileError(f"{path} claims {what} to have shape {_shorten(shape)}, {length} bytes of {dtype}, but holds {rest} bytes")
    data = file.read(length)
    if len(data) != length:
        raise FileError(f"{path} is cut short: expected {length} bytes of {what}, found {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _write_npy(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, field, allow_pickle=False)
    return buffer.getvalue()


def _write_npz(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    arrays = {"flow": field, "valid": ~unknown} if unknown.any() else {"flow": field}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


# Spring .flo5 ---------------------------------------------------------------------------------------------------------


def _h5py(path: Path):
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is an HDF5 file, which needs h5py; install it with: pip install 'featherflow[flo5]'"
        ) from error
    return h5py


def _read_flo5(path: Path, file: BinaryIO, size: int):
    h5py = _h5py(path)
    try:
        with h5py.File(file, "r") as archive:
            dataset = archive.get("flow")
            if not isinstance(dataset, h5py.Dataset):
                keys = ", ".join(sorted(archive)) or "nothing"
                raise FileError(f"{path} holds no flow: expected the dataset 'flow', found {_shorten(keys)}")
            if len(dataset.shape or ()) != 3 or dataset.shape[2] != 2 or 0 in dataset.shape:
                raise FileError(f"{path} holds no flow: expected 'flow' of shape (H, W, 2), found {_shorten(dataset.shape)}")
            if dataset.dtype.kind not in "fiu":
                raise FileError(f"{path} holds no flow: expected 'flow' to hold real numbers, found {dataset.dtype}")
            # HDF5 fills what was never stored, so a small file can claim any shape.
            stored, claimed = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
            if stored > size or claimed > stored * _MOST_DEFLATE_EXPANDS:
                raise FileError(f"{path} claims a flow of shape {dataset.shape}, {claimed} bytes, but holds {min(stored, size)}")
            with np.errstate(over="ignore"):
                return dataset[()].astype(np.float32), None
    except FileError:
        raise
    except Exception as error:  # h5py turns the library's faults into OSError, RuntimeError, ValueError, KeyError, ...
        raise FileError(f"{path} is not a readable HDF5 file: {_first_line(error)}") from error


def _write_flo5(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    h5py = _h5py(path)
    # In memory first: HDF5 writes here and there in its file, and only complete bytes may reach the target's folder.
    with h5py.File("flow.flo5", "w", driver="core", backing_store=False) as archive:
        archive.create_dataset("flow", data=field, compression="gzip", compression_opts=5)
        archive.flush()
        return archive.id.get_file_image()


# Shared ---------------------------------------------------------------------------------------------------------------

_CODECS = {
    ".flo": (_read_flo, _write_flo),
    ".png": (_read_kitti, _write_kitti),
    ".pfm": (_read_pfm, _write_pfm),
    ".npz": (_read_npz, _write_npz),
    ".npy": (_read_npy, _write_npy),
    ".flo5": (_read_flo5, _write_flo5),
    ".exr": (read_exr, write_exr),
}


def _codec(path: Path):
    try:
        return _CODECS[path.suffix.lower()]
    except KeyError:
        found = f"the suffix '{path.suffix}'" if path.suffix else "no suffix"
        raise InputError(f"{path} has {found}: expected a flow file, one of {', '.join(SUFFIXES)}") from None


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file for reading, with its size in bytes; every failure of the system becomes a FileError."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise FileError(f"{path} is empty: expected a flow file, found zero bytes")
            yield file, size
    except FileError:
        raise
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise FileError(f"{path} is a folder: expected a flow file") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error


def _check_dimensions(path: Path, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise FileError(f"{path} claims a size of {width} x {height} pixels: expected both to be at least 1")


def _check_size(path: Path, width: int, height: int, expected: int, found: int) -> None:
    if found != expected:
        fault = "is cut short" if found < expected else "has bytes after its end"
        raise FileError(f"{path} {fault}: {width} x {height} pixels take {expected} bytes, but the file has {found}")


def _read_floats(path: Path, file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    data = file.read(math.prod(shape) * 4)
    if len(data) != math.prod(shape) * 4:
        raise FileError(f"{path} changed while it was read: expected {math.prod(shape) * 4} bytes, found {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape).astype(np.float32)


def _quote(data: bytes) -> str:
    return _shorten(repr(bytes(data[:16]))[1:])


def _shorten(text, length: int = 80) -> str:
    text = str(text)
    return text if len(text) <= length else text[: length - 3] + "..."


def _first_line(error: Exception) -> str:
    return _shorten((str(error).strip() or type(error).__name__).splitlines()[0], 120)
