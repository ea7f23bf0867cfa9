"""Flow files: one reader and one writer, the format chosen by the file name's suffix.

| suffix  | format                                                                                        | unknown    |
|---------|-----------------------------------------------------------------------------------------------|------------|
| `.flo`  | Middlebury: float32 magic 202021.25, int32 width, height, then u, v by pixel, little-endian   | 1.66667e9  |
| `.png`  | KITTI: 16-bit RGB, u = (R - 32768) / 64, v = (G - 32768) / 64, known where B > 0              | 0, 0, 0    |
| `.pfm`  | FlyingThings3D: colour PFM, channels u, v, 0, rows from the bottom up, either byte order      | NaN        |
| `.npz`  | NumPy archive: `flow` (H, W, 2), `valid` (H, W) where pixels are unknown, maybe `confidence`  | NaN        |
| `.npy`  | NumPy array (H, W, 2)                                                                         | NaN        |
| `.flo5` | Spring: HDF5 dataset `flow` (H, W, 2); needs the extra `featherflow[flo5]`                    | NaN        |
| `.exr`  | OpenEXR motion vectors, or STMap in `*stmap.exr`, see `flow.exr`; needs `featherflow[exr]`     | a mask     |

In memory a flow is `(H, W, 2)` float32 in px, x to the right and then y down, with NaN in both components where it is
unknown. A reader trusts no header: sizes are held against the file's length before any memory is asked for, and those of formats
that compress against `MOST_PIXELS` before anything is unpacked.
"""

from __future__ import annotations

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
from typing import IO, Any, BinaryIO, Literal

import numpy as np

from ..errors import FileError, InputError, LimitError, MissingExtraError
from ..files import atomic_write
from ..png16 import decoded
from .exr import read_exr, write_exr
from .fields import Flow, Mask, as_field, as_mask, known

Order = Literal["C", "F"]

SUFFIXES = (".flo", ".png", ".pfm", ".npz", ".npy", ".flo5", ".exr")

#: Most pixels of a flow in a format that compresses, unless a caller asks for another limit: a little more than 7680 x 4320.
MOST_PIXELS = 1 << 25

FLO_MAGIC = 202021.25
FLO_UNKNOWN = 1.666666752e9
KITTI_OFFSET = 32768
KITTI_STEPS_PER_PIXEL = 64

# No deflate stream expands by more than this, so a header that promises more than that from the bytes at hand lies.
_MOST_DEFLATE_EXPANDS = 1032
_MOST_NUMBER = 16  # bytes of a number: those of NumPy's longest real one
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_flow(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> np.ndarray:
    """Read a flow file.

    `max_pixels`: most pixels, width times height, that are taken. Without it, `MOST_PIXELS` for the formats that compress (`.png`,
    `.npz`, `.flo5`), of which a small file can stand for a large flow, and no limit but the file's own size for the others.

    Returns `(H, W, 2)` float32 [px], x to the right and then y down, NaN in both components of unknown pixels.

    Raises `InputError` for a suffix that is none of `SUFFIXES`, `LimitError` for more pixels than are taken, `FileError` for a file
    that is missing, damaged or of another format, and `MissingExtraError` for `.flo5` without h5py.
    """
    path = Path(path)
    reader, _ = _codec(path)
    with _open(path) as (file, size):
        flow, valid = reader(path, file, size, _most(path, max_pixels))
    return _with_unknown(flow, valid)


def decode_flow(name: str, data: bytes, *, max_pixels: int | None = None) -> np.ndarray:
    """The flow in the bytes of a file of that name: `read_flow` for what came by other ways than a disk.

    Takes `max_pixels`, returns and raises as `read_flow` does.
    """
    path = Path(name)
    reader, _ = _codec(path)
    if not data:
        raise FileError(f"{path} is empty: expected a flow file, found zero bytes")
    return _with_unknown(*reader(path, io.BytesIO(data), len(data), _most(path, max_pixels)))


def _most(path: Path, max_pixels: int | None) -> float:
    """Most pixels that are taken from a file of this name."""
    if max_pixels is not None:
        return max_pixels
    return MOST_PIXELS if path.suffix.lower() in (".png", ".npz", ".flo5", ".exr") else math.inf


def _with_unknown(flow: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    # Every reader makes a fresh array, so that it can be written to here.
    unknown = ~known(flow)
    if valid is not None:
        unknown |= ~valid
    flow[unknown] = np.nan
    return flow


def read_flow_with_valid(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read a flow file and say which pixels are known.

    Returns the flow as `read_flow` does, and a boolean `(H, W)` that is true where the flow is known.
    Raises as `read_flow` does.
    """
    flow = read_flow(path)
    return flow, ~np.isnan(flow[..., 0])


def write_flow(path: str | os.PathLike[str], flow: Flow, valid: Mask | None = None, confidence: np.ndarray | None = None) -> None:
    """Write a flow file: complete, or not at all (see `featherflow.files.atomic_write`).

    `flow`: `(H, W, 2)` array or `(2, H, W)` / `(1, 2, H, W)` tensor [px], of any real number type; stored as float32
    (`.png`: in steps of 1/64 px). `valid`: `(H, W)`, false or zero where the flow is unknown; pixels with NaN are
    unknown in any case. `confidence`: `(H, W)` in [0, 1], see `featherflow.flow.confidence`; of the formats `.npz` can hold it.

    Raises `InputError` for an unknown suffix, a wrong shape, infinite values, values that the format cannot hold (`.png`) or a
    confidence where it cannot hold that, `FileError` when the file cannot be written, and `MissingExtraError` for `.flo5` without
    h5py.
    """
    content = encode_flow(path, flow, valid, confidence)
    with atomic_write(path) as file:
        file.write(content)


def encode_flow(name: str | os.PathLike[str], flow: Flow, valid: Mask | None = None, confidence: np.ndarray | None = None) -> bytes:
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
    if confidence is None:
        return writer(path, field, unknown)
    if writer is not _write_npz:
        raise InputError(f"cannot write {path}: of flow files only .npz can hold a confidence beside the flow")
    confidence = np.asarray(confidence, np.float32)
    if confidence.shape != field.shape[:2]:
        raise InputError(f"the confidence must have the flow's size {field.shape[:2]}, but got {confidence.shape}")
    return _write_npz(path, field, np.asarray(unknown), confidence)


# Middlebury .flo ------------------------------------------------------------------------------------------------------


def _read_flo(path: Path, file: BinaryIO, size: int, most: float):
    header = file.read(12)
    if len(header) < 12:
        raise FileError(f"{path} is cut short: a .flo file starts with 12 bytes of header, but this one has {size}")
    magic, width, height = struct.unpack("<fii", header)
    if magic != FLO_MAGIC:
        raise FileError(f"{path} is not a .flo file: expected the magic number {FLO_MAGIC}, found {magic:g}")
    _check_dimensions(path, width, height)
    _check_most(path, width, height, most)
    _check_size(path, width, height, expected=12 + 8 * width * height, found=size)
    return _read_floats(path, file, "<f4", (height, width, 2)), None


def _write_flo(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    height, width = unknown.shape
    stored = np.where(unknown[..., None], np.float32(FLO_UNKNOWN), field)
    return struct.pack("<fii", FLO_MAGIC, width, height) + stored.astype("<f4").tobytes()


# FlyingThings3D .pfm --------------------------------------------------------------------------------------------------

# One white space ends the header; "\r\n" counts as one, since some writers use it on every line.
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(-?\d{1,20})\s+(-?\d{1,20})\s+([-+]?[0-9.]+(?:[eE][-+]?\d+)?)(?:\r\n|\s)")


def _read_pfm(path: Path, file: BinaryIO, size: int, most: float):
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
    _check_most(path, width, height, most)
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


def _read_kitti(path: Path, file: BinaryIO, size: int, most: float):
    width, height, interlaced, unpacked = _check_png(path, file.read(), most)
    try:  # packed again, without effort, since that is the only form in which the decoder takes them
        values = decoded(zlib.compress(unpacked, 0), width, height, 3, interlaced)
    except ValueError as error:
        raise FileError(f"{path} is a damaged PNG file: {_first_line(error)}") from error
    flow = values[..., :2].astype(np.float32)
    flow -= KITTI_OFFSET
    flow /= KITTI_STEPS_PER_PIXEL
    return flow, values[..., 2] > 0


def _check_png(path: Path, data: bytes, most_pixels: float) -> tuple[int, int, bool, bytes]:
    """Width, height, whether it is interlaced, and the pixel data, unpacked, of a PNG whose form is that of a KITTI flow and whose
    pixel data is as long as it claims."""
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
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[position + 8 + length : position + 12 + length], "big"):
            raise FileError(f"{path} is a damaged PNG file: the checksum of its chunk {_quote(kind)} is another")
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
    width, height, depth, kind, compression, filters, interlacing = header
    if (depth, kind) != (16, 2):
        colours = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGB and alpha"}.get(kind, f"type {kind}")
        raise FileError(f"{path} is not a KITTI flow: expected a PNG with 16-bit RGB, found {depth}-bit {colours}")
    if compression or filters or interlacing > 1:
        raise FileError(f"{path} is a damaged PNG file: no way is known in which it would be packed")
    _check_dimensions(path, width, height)
    # Filter bytes: one for each row, and fewer than three for each row when interlaced.
    least, most = 6 * width * height, 6 * width * height + 3 * height + 64
    packed = b"".join(packed)
    if least > len(packed) * _MOST_DEFLATE_EXPANDS:
        raise FileError(f"{path} claims {width} x {height} pixels, but its {len(packed)} bytes of pixel data cannot hold as many")
    _check_most(path, width, height, most_pixels)
    try:
        unpacked = _unpacked(packed, most)
    except zlib.error as error:
        raise FileError(f"{path} is a damaged PNG file: {_first_line(error)}") from error
    if not least < len(unpacked) <= most:
        amount = "more" if len(unpacked) > most else str(len(unpacked))
        raise FileError(f"{path} claims {width} x {height} pixels, {least + height} bytes of pixel data, but holds {amount}")
    return width, height, interlacing == 1, unpacked


def _unpacked(packed: bytes, most: int) -> bytes:
    """What a deflate stream unpacks to, as far as it is there; one byte more than `most` where it goes on beyond that."""
    return zlib.decompressobj().decompress(packed, most + 1)


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
    writer = png.Writer(width, height, greyscale=False, bitdepth=16)  # pyright: ignore[reportArgumentType]  # its default's type is not that of its values
    writer.write_packed(buffer, (row.tobytes() for row in stored))
    return buffer.getvalue()


# NumPy .npz and .npy --------------------------------------------------------------------------------------------------


def _read_npy(path: Path, file: BinaryIO, size: int, most: float):
    return _read_npy_flow(path, file, size, "the array", most), None


def _read_npz(path: Path, file: BinaryIO, size: int, most: float):
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if "flow.npy" not in members:
                keys = ", ".join(sorted(name.removesuffix(".npy") for name in members)) or "nothing"
                raise FileError(f"{path} holds no flow: expected the key 'flow', found {_shorten(keys)}")
            with _open_member(path, archive, members["flow.npy"], size) as (member, length):
                flow = _read_npy_flow(path, member, length, "'flow'", most)
            if "valid.npy" not in members:
                return flow, None
            with _open_member(path, archive, members["valid.npy"], size) as (member, length):
                return flow, _read_npy_valid(path, member, length, flow.shape[:2])
    except (FileError, InputError):
        raise
    except Exception as error:  # beside BadZipFile, damage to names, sizes and streams raises many kinds
        raise FileError(f"{path} is not a readable .npz archive: {_first_line(error)}") from error


@contextlib.contextmanager
def _open_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int):
    expands = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _MOST_DEFLATE_EXPANDS}.get(member.compress_type)
    if expands is None:
        raise FileError(f"{path} is packed by zip method {member.compress_type}: expected stored or deflate")
    if member.compress_size > size or member.file_size > expands * member.compress_size:
        raise FileError(f"{path} claims {member.file_size} bytes for '{member.filename}', which its {size} cannot hold")
    with archive.open(member) as file:
        yield file, member.file_size


def _read_npy_flow(path: Path, file: IO[bytes], size: int, what: str, most: float) -> np.ndarray:
    shape, order, dtype = _read_npy_header(path, file, what)
    if len(shape) != 3 or shape[2] != 2 or 0 in shape:
        raise FileError(f"{path} holds no flow: expected {what} of shape (H, W, 2), found {_shorten(shape)}")
    if dtype.kind not in "fiu" or dtype.itemsize > _MOST_NUMBER:
        raise FileError(f"{path} holds no flow: expected {what} to hold real numbers, found the type {_shorten(dtype)}")
    _check_length(path, file, size, what, shape, dtype)
    _check_most(path, shape[1], shape[0], most)
    values = _read_npy_array(path, file, what, shape, order, dtype)
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, hence unknown
        return values.astype(np.float32, order="C")


def _read_npy_valid(path: Path, file: IO[bytes], size: int, wanted: tuple[int, int]) -> np.ndarray:
    shape, order, dtype = _read_npy_header(path, file, "'valid'")
    if shape != wanted or dtype.kind not in "bfiu" or dtype.itemsize > _MOST_NUMBER:
        found = f"{_shorten(shape)} and type {_shorten(dtype)}"
        raise FileError(f"{path} holds a 'valid' of shape {found}: expected booleans {wanted}")
    _check_length(path, file, size, "'valid'", shape, dtype)
    return _read_npy_array(path, file, "'valid'", shape, order, dtype) != 0


def _read_npy_header(path: Path, file: IO[bytes], what: str) -> tuple[tuple[int, ...], Order, np.dtype]:
    """Shape, order ("C" or "F") and type of an .npy stream, whose numbers come next."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # NumPy parses the header as Python, so damage raises whatever a tokenizer can
        raise FileError(f"{path} does not hold a readable NumPy array: {_first_line(error)}") from error
    if dtype.hasobject:
        raise FileError(f"{path} holds Python objects in {what}: expected numbers, and will not unpickle")
    if min(shape, default=0) < 0:
        raise FileError(f"{path} claims {what} to have shape {_shorten(shape)}: expected no negative sides")
    return shape, "F" if fortran else "C", dtype


def _check_length(path: Path, file: IO[bytes], size: int, what: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Hold what the header of an .npy stream of `size` bytes claims against what is left of it."""
    length, rest = math.prod(shape) * dtype.itemsize, size - file.tell()
    if length != rest:
        raise FileError(f"{path} claims {what} to have shape {_shorten(shape)}, {length} bytes of {dtype}, but holds {rest} bytes")


def _read_npy_array(path: Path, file: IO[bytes], what: str, shape: tuple[int, ...], order: Order, dtype: np.dtype) -> np.ndarray:
    """The numbers of an .npy stream. NumPy's own reader would allocate what the header claims."""
    length = math.prod(shape) * dtype.itemsize
    data = file.read(length)
    if len(data) != length:
        raise FileError(f"{path} is cut short: expected {length} bytes of {what}, found {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _write_npy(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, field, allow_pickle=False)
    return buffer.getvalue()


def _write_npz(path: Path, field: np.ndarray, unknown: np.ndarray, confidence: np.ndarray | None = None) -> bytes:
    arrays: dict[str, Any] = {"flow": field, "valid": ~unknown} if unknown.any() else {"flow": field}
    arrays |= {} if confidence is None else {"confidence": confidence}
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


def _read_flo5(path: Path, file: BinaryIO, size: int, most: float):
    h5py = _h5py(path)
    try:
        with h5py.File(file, "r") as archive:
            # A link could lead to another file; only what is stored here is read.
            link = archive.get("flow", getlink=True)
            dataset = archive["flow"] if isinstance(link, h5py.HardLink) else None
            if not isinstance(dataset, h5py.Dataset):
                keys = ", ".join(sorted(archive)) or "nothing"
                raise FileError(f"{path} holds no flow: expected the dataset 'flow', found {_shorten(keys)}")
            if len(dataset.shape or ()) != 3 or dataset.shape[2] != 2 or 0 in dataset.shape:
                raise FileError(f"{path} holds no flow: expected 'flow' of shape (H, W, 2), found {_shorten(dataset.shape)}")
            if dataset.dtype.kind not in "fiu":
                raise FileError(f"{path} holds no flow: expected 'flow' to hold real numbers, found {dataset.dtype}")
            _check_hdf5_storage(path, h5py, dataset)
            # HDF5 fills what was never stored, so a small file can claim any shape.
            stored, claimed = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
            if stored > size or claimed > stored * _MOST_DEFLATE_EXPANDS:
                raise FileError(f"{path} claims a flow of shape {dataset.shape}, {claimed} bytes, but holds {min(stored, size)}")
            _check_most(path, dataset.shape[1], dataset.shape[0], most)
            with np.errstate(over="ignore"):
                return dataset[()].astype(np.float32), None
    except (FileError, InputError):
        raise
    except Exception as error:  # h5py turns the library's faults into OSError, RuntimeError, ValueError, KeyError, ...
        raise FileError(f"{path} is not a readable HDF5 file: {_first_line(error)}") from error


def _check_hdf5_storage(path: Path, h5py, dataset) -> None:
    """Refuse a dataset whose bytes lie elsewhere, or that unpacks by other ways than deflate."""
    plan = dataset.id.get_create_plist()
    if dataset.is_virtual or plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise FileError(f"{path} stores its flow in other files, which are not read: expected it to be stored in this one")
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    known_filters = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
    if len(set(filters)) < len(filters) or not set(filters) <= set(known_filters):
        raise FileError(f"{path} packs its flow by the HDF5 filters {filters}: expected deflate, with shuffle and checksum at most")
    if dataset.chunks is not None and any(part > whole for part, whole in zip(dataset.chunks, dataset.shape, strict=True)):
        raise FileError(f"{path} packs its flow in pieces of {dataset.chunks}: expected none larger than the flow {dataset.shape}")


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


def _check_most(path: Path, width: int, height: int, most: float) -> None:
    if width * height > most:
        raise LimitError(f"{path} claims a size of {width} x {height} pixels: at most {most:.0f} in all are taken (max_pixels)")


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
