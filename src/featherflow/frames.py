"""Frames in any form a person has them: paths, arrays, Pillow images, tensors; grey, RGB, RGBA; 8, 16 or 32 bit or float.

Numbers become [0, 1] by one rule, the same for files and arrays, and for the two frames of a pair together (`value_range`):
8 bit is 0 to 255; 16 bit is as many bits (8, 10, 12, 14 or 16) as the largest value of either frame needs, for cameras store 10 and
12 bit in 16; whole numbers of other types reach from 0, or the smallest if that is below, to the largest of either frame; floating
point lies in [0, 1]. A range that is given takes the place of all of these but the first.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .errors import FileError, InputError, LimitError
from .files import atomic_write
from .headers import check_scans, is_clip
from .png16 import decoded

if TYPE_CHECKING:
    from torch import Tensor

#: Shares of R, G and B in the brightness of a colour, by ITU-R BT.601.
GREY = (0.299, 0.587, 0.114)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp", ".avif")

_SMALLEST_FRAME = 16  # px
_BITS = (8, 10, 12, 14, 16)  # that cameras store in 16

#: Pillow's names of the formats that `decode_image` takes; Pillow knows others, one of which starts a program.
STRANGER_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")

#: Formats whose several pictures are views (JPEG of a phone) or layers of one; those of all others are a sequence.
_OF_ONE = ("MPO", "PSD")

_log = logging.getLogger(__name__)

Range = tuple[float, float]


@dataclass(frozen=True)
class Still:
    """One picture: a file, or a page of a file that holds several."""

    path: Path
    page: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.page is None else f"{self.path}, picture {self.page}"

    @property
    def stem(self) -> str:
        """What files made of it are named after."""
        return self.path.stem if self.page is None else f"{self.path.stem}_{self.page:06d}"


def read_image(path: str | os.PathLike[str] | Still) -> np.ndarray:
    """Read an image file as `(H, W, 3)` uint8 RGB, upright; alpha is dropped, grey repeated, and what is deeper reduced to 8 bit.

    Raises:
        FileError: if the file is missing, empty, truncated or no image that Pillow can read; InputError: if it is a sequence.
    """
    return _to_bytes(_read(path), f"'{path}'")


def read_frames(
    sources: Sequence[str | os.PathLike[str] | Still], value_range: Range | None = None, names: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Read image files that belong together, upright and scaled alike.

    Args:
        value_range: the numbers that become black and white in pictures deeper than 8 bit. Default: see above.

    Returns:
        One array `(H, W, 3)` RGB for each: uint8 where all files hold 8 bit, else float32 in [0, 1].

    Raises:
        FileError: as `read_image`; InputError: for floating point numbers outside [0, 1] without a range.
    """
    arrays = [_read(source) for source in sources]
    names = names or [f"'{source}'" for source in sources]
    if all(array.dtype == np.uint8 for array in arrays):
        return [_to_three_channels(array, name) for array, name in zip(arrays, names, strict=True)]
    chosen = value_range or common_range(arrays)
    return [
        _to_three_channels(to_unit(array, name, _own(array, value_range, chosen)), name)
        for array, name in zip(arrays, names, strict=True)
    ]


def read_images(sources: Sequence[str | os.PathLike[str] | Still]) -> list[np.ndarray]:
    """As `read_frames`, each reduced to 8 bit: `(H, W, 3)` uint8."""
    return [eight_bits(frame) for frame in read_frames(sources)]


def read_scaled(source: str | os.PathLike[str] | Still, common: Range | None, value_range: Range | None = None) -> np.ndarray:
    """Read one picture of a sequence, `(H, W, 3)` RGB, upright: uint8 where the file holds 8 bit, else uint16 in all 16 bits.

    Args:
        common: as `sequence_range` gives it; value_range: what is to be black and white whatever the pictures hold.

    Raises:
        FileError: as `read_image`; InputError: for floating point numbers outside [0, 1] without a range.
    """
    array, name = _read(source), f"'{source}'"
    if array.dtype != np.uint8:
        array = np.round(to_unit(array, name, _own(array, value_range, common)) * 65535).astype(np.uint16)
    return _to_three_channels(array, name)


def sequence_range(sources: Sequence[str | os.PathLike[str] | Still]) -> Range | None:
    """The range by which the pictures of a sequence are scaled alike; only where the first is deeper than 8 bit, all are read."""
    if not sources or _read(sources[0]).dtype == np.uint8:
        return None
    extremes = []
    for source in sources:
        array = _read(source)
        extremes.append(np.array([array.min(), array.max()], array.dtype))
    return common_range(extremes)


def eight_bits(image: np.ndarray) -> np.ndarray:
    """A picture of uint8, uint16 in all 16 bits or float in [0, 1], as uint8."""
    if image.dtype.kind == "f":
        return np.round(image * 255).astype(np.uint8)
    return image if image.dtype == np.uint8 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def decode_image(data: bytes, name: str = "the image", max_pixels: int | None = None) -> np.ndarray:
    """The image in the bytes of a file in one of `STRANGER_FORMATS`, as `read_image` gives it.

    Made for files from strangers: no other decoder sees them, and none before the size in the header is within `max_pixels`.

    Args:
        name: how errors call it.
        max_pixels: most pixels, width times height.

    Raises:
        LimitError: for more pixels than `max_pixels`; FileError: for what is no such image, or damaged; InputError: for a sequence.
    """
    return _to_bytes(_decode(io.BytesIO(data), name, len(data), STRANGER_FORMATS, max_pixels), name)


def page_count(path: str | os.PathLike[str]) -> int:
    """How many pictures of a sequence a file holds: 1 for most, more for animations and TIFF of several pages."""
    return len(page_times(path))


def page_times(path: str | os.PathLike[str]) -> list[float]:
    """How long each picture of a file is shown [s], 0 where it does not say.

    Raises:
        FileError: as `read_image`.
    """
    from PIL import Image

    path = Path(path)
    with _opening(path) as file, _decoding(f"'{path}'", path.stat().st_size, file), Image.open(file) as image:
        times = [0.0] * _count(image)
        for page in range(len(times) if len(times) > 1 else 0):
            image.seek(page)
            if image.format != "TIFF":
                image.load()  # only then do animations tell their times
            times[page] = float(image.info.get("duration") or 0) / 1000
        return times


def _count(image) -> int:
    """Pictures of a sequence in an open file; pages of a TIFF are one if of one size, and none a smaller copy (tag 254)."""
    count, size = 1 if image.format in _OF_ONE else getattr(image, "n_frames", 1), image.size
    if image.format == "TIFF" and count > 1:
        for page in range(count):
            image.seek(page)
            if image.size != size or image.tag_v2.get(254, 0) & 1:
                count = 1
        image.seek(0)
    return count


def check_single(name: str, count: int) -> None:
    """Refuse a file of several pictures where one frame is meant, with `InputError`; whatever reads a frame does so."""
    if count > 1:
        raise InputError(f"{name} holds {count} pictures; name it alone to take them as a sequence (featherflow estimate, video).")


def _read(source: str | os.PathLike[str] | Still) -> np.ndarray:
    """A picture as it is stored, upright: `(H, W)` or `(H, W, C)` of the file's own type."""
    still = source if isinstance(source, Still) else Still(Path(source))
    with _opening(still.path) as file:
        return _decode(file, f"'{still}'", still.path.stat().st_size, page=still.page)


@contextlib.contextmanager
def _opening(path: Path):
    if path.is_dir():
        raise FileError(f"'{path}' is a folder; expected an image file.")
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        raise FileError(f"There is no image file '{path}'.") from None
    except PermissionError:
        raise FileError(f"'{path}' cannot be read: permission is denied.") from None
    except OSError as error:
        raise FileError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    with file:
        yield file


@contextlib.contextmanager
def _decoding(name: str, size: int, file: BinaryIO):
    """What decoders raise for an open file, as sentences."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (InputError, FileError, MemoryError):
        raise
    except UnidentifiedImageError:
        what = f"its {size} bytes are of no image format that is known here"
        if size == 0:
            what = "it is empty"
        elif is_clip(file):
            what = "it is a video; the flow along a clip is what `featherflow video` gives"
        raise FileError(f"{name} cannot be read as an image: {what}.") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # without a limit this is not raised
        raise LimitError(f"{name} claims more pixels than an image may have ({most}).") from None
    except Exception as error:  # decoders raise almost anything on damaged files
        reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileError(f"{name} cannot be read as an image: {reason.rstrip('.')}.") from None


def _decode(
    file, name: str, size: int, formats: tuple[str, ...] | None = None, max_pixels: int | None = None, page: int | None = None
) -> np.ndarray:
    from PIL import Image

    check_scans(file, name)
    with _decoding(name, size, file), Image.open(file, formats=formats) as image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise LimitError(f"{name} has {image.width}x{image.height} pixels; at most {max_pixels} in all are taken here.")
        if page is None:
            check_single(name, _count(image))
        elif page:
            image.seek(page)
        if formats is None and page is None and _deep_colour(image, file):
            deep = _read_deep_colour(file, name)
            if deep is not None:
                return _turned(deep, _orientation(image))
        image.load()
        return _from_pillow(image)


def _deep_colour(image, file) -> bool:
    """Whether a file holds colours of 16 bit, of which Pillow would give the upper 8."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) > 8
    if image.format == "PNG":
        file.seek(0)
        head = file.read(25)
        file.seek(0)
        return len(head) == 25 and struct.unpack(">B", head[24:25])[0] == 16
    return False


def _read_deep_colour(file, name: str) -> np.ndarray | None:
    """`(H, W, C)` uint16, or None where nothing installed can read it; then the upper 8 bits have to do."""
    file.seek(0)
    data = file.read()
    if data.startswith(b"\x89PNG"):
        import png

        if data[25] in (2, 6):  # RGB, RGB and alpha
            packed = b"".join(body for kind, body in png.Reader(bytes=data).chunks() if kind == b"IDAT")
            width, height = struct.unpack(">II", data[16:24])
            return decoded(packed, width, height, 3 if data[25] == 2 else 4, data[28] == 1)
        width, height, rows, info = png.Reader(bytes=data).read()
        return np.vstack([np.asarray(row, np.uint16) for row in rows]).reshape(height, width, info["planes"])
    with contextlib.suppress(Exception):  # OpenCV is an extra
        import cv2

        deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if deep is not None and deep.dtype == np.uint16 and deep.ndim == 3:
            return deep[..., 2::-1] if deep.shape[-1] >= 3 else deep
    _log.warning("%s holds 16-bit colours, of which 8 bits are read; the extra 'opencv' reads all.", name)
    file.seek(0)
    return None


def parse_size(text: str) -> tuple[int, int] | None:
    """(height, width) of WIDTHxHEIGHT, whole numbers of pixels above 0; None for another text."""
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text, re.ASCII)
    return None if match is None else (int(match[2]), int(match[1]))


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write `(H, W, 3)` or `(H, W)`, uint8 or uint16, as PNG, whole or not at all.

    Raises:
        FileError: if the file cannot be written.
    """
    from PIL import Image

    with atomic_write(path) as file:
        if image.dtype == np.uint16:
            import png

            height, width = image.shape[:2]
            grey: Any = image.ndim == 2  # pypng's types take its default alone
            png.Writer(width, height, greyscale=grey, bitdepth=16).write(file, image.reshape(height, -1))
            return
        Image.fromarray(image).save(file, format="PNG")


def _from_pillow(image) -> np.ndarray:
    """A Pillow image as it is stored, upright: grey of its own type, else `(H, W, 3)` uint8."""
    kind = image.format
    if image.mode.startswith("I;16"):
        array = np.asarray(image).astype(np.uint16)
    elif image.mode == "I":
        array = np.asarray(image)
        if kind in ("PNG", "PPM"):
            array = array.astype(np.uint16)  # Pillow keeps 16 bit in 32
        elif kind == "TIFF" and image.tag_v2.get(339, (1,))[0] == 1 and max(image.tag_v2.get(258, (32,))) == 32:
            array = array.view(np.uint32)
    elif image.mode == "F":
        array = np.asarray(image, dtype=np.float32)
    else:
        array = np.asarray(image.convert("RGB"))
    return _turned(array, _orientation(image))


def _orientation(image) -> int:
    """How a picture is stored, 1 (upright) to 8, as EXIF counts; Pillow turns TIFF itself and forgets the tag."""
    with contextlib.suppress(Exception):  # EXIF may hold anything
        return int(image.getexif().get(0x0112, 1))
    return 1


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array `(H, W, ...)` that is stored in one of EXIF's eight orientations, upright."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return _to_three_channels(array, name)
    return _to_three_channels(np.round(to_unit(array, name, common_range([array])) * 255.0).astype(np.uint8), name)


def _to_three_channels(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or array.shape[-1] not in (1, 2, 3, 4):
        raise InputError(f"{name} must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}.")
    return np.repeat(array[..., :1], 3, axis=-1) if array.shape[-1] < 3 else array[..., :3]


def common_range(arrays: Sequence[np.ndarray]) -> Range | None:
    """The range by which arrays that belong together are scaled, see above; None where each of their types says its own."""
    deep = [array for array in arrays if array.dtype.kind in "iu" and array.dtype != np.uint8 and array.size]
    if not deep:
        return None
    low, high = min(float(array.min()) for array in deep), max(float(array.max()) for array in deep)
    if all(array.dtype == np.uint16 for array in deep):
        return 0.0, float(next(2**bits - 1 for bits in _BITS if high < 2**bits))
    return min(low, 0.0), max(high, low + 1, 1.0)


def _own(array: np.ndarray, given: Range | None, common: Range | None) -> Range | None:
    """The range of one of several arrays: what was given, or what whole numbers have in common."""
    return given or (None if array.dtype.kind == "f" else common)


def check_range(value_range: Range | None) -> Range | None:
    """The same range.

    Raises:
        InputError: for one that is none.
    """
    if value_range is not None and not (np.isfinite(value_range).all() and value_range[0] < value_range[1]):
        raise InputError(f"A range of values is two numbers, the lower first, got {value_range[0]:g} to {value_range[1]:g}.")
    return value_range


def to_unit(array: np.ndarray, name: str, value_range: Range | None = None) -> np.ndarray:
    """Numbers of any type as float32 in [0, 1].

    Raises:
        InputError: for another type, NaN or infinite values, or floating point outside [0, 1] without a range.
    """
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255.0
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must hold whole or floating point numbers, got {array.dtype}.")
    floating = array.dtype.kind == "f"
    if floating and not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinite values; expected finite numbers.")
    if value_range is None and not floating:
        value_range = (0.0, 65535.0) if array.dtype == np.uint16 else common_range([array])
    if value_range is None:
        unit = array.astype(np.float32)
        if unit.size:
            _check_unit(unit.min(), unit.max(), name)
        return unit.clip(0.0, 1.0)
    low, high = value_range
    return ((array.astype(np.float64) - low) / (high - low)).clip(0.0, 1.0).astype(np.float32)


def as_batches(frames: Sequence[Any], names: Sequence[str], value_range: Range | None = None) -> list[Tensor]:
    """Frames that belong together as batches, scaled alike; each as `as_batch` takes it.

    Args:
        value_range: the numbers that become 0 and 1 in frames deeper than 8 bit. Default: as at the top of this module.
    """
    places = [_place(frame) for frame in frames]
    if value_range is None and None not in places:
        found = (_in_place(frame, name) for frame, name in zip(frames, names, strict=True))
        ready = [batch for batch in found if batch is not None]
        if len(ready) == len(frames):
            return ready
    parts = [_arrays(frame, name) for frame, name in zip(frames, names, strict=True)]
    common = common_range([array for part in parts for array, _ in part])
    batches = [_as_one(part, name, value_range, common) for part, name in zip(parts, names, strict=True)]
    return [batch if place is None else batch.to(place) for batch, place in zip(batches, places, strict=True)]


class RunningRange:
    """The range of frames that come one by one: that of all so far, so that it grows and never shrinks."""

    def __init__(self) -> None:
        self.common: Range | None = None
        #: Whether the frame before has to be scaled again, since the last one is beyond the range that it was scaled by.
        self.grew = False
        self._extremes: dict[np.dtype, np.ndarray] = {}

    def batch(self, frame: Any, name: str) -> Tensor:
        """A frame as `as_batch` gives it, scaled by the range of all so far, its own included."""
        place, before, self.grew = _place(frame), self.common, False
        if place is not None and (ready := _in_place(frame, name)) is not None:
            return ready
        parts = _arrays(frame, name)
        for array, _ in parts:
            if array.dtype.kind in "iu" and array.dtype != np.uint8 and array.size:
                known = self._extremes.get(array.dtype, array[:0].reshape(-1))
                numbers = np.concatenate((known, [array.min(), array.max()])).astype(array.dtype)
                self._extremes[array.dtype] = np.array([numbers.min(), numbers.max()])
        self.common = common_range(list(self._extremes.values()))
        self.grew = before is not None and before != self.common
        batch = _as_one(parts, name, None, self.common)
        return batch if place is None else batch.to(place)


def as_batch(frame: Any, name: str = "the frame", value_range: Range | None = None) -> Tensor:
    """Any form of a frame, or of a batch of frames, as a tensor `(B, 3, H, W)` float32 RGB in [0, 1], on the device of a tensor.

    Args:
        frame: a path; a Pillow image; a NumPy array `(H, W)`, `(H, W, C)` or `(B, H, W, C)`; a tensor `(C, H, W)` or
            `(B, C, H, W)`; C = 1, 3 or 4 (alpha is ignored); whole numbers or float in [0, 1]; or a list of these, of one size.
        name: how errors call it.
        value_range: the numbers that become 0 and 1 in a frame deeper than 8 bit. Default: for uint16 all 16 bits, for other whole
            numbers those of the frame; frames that belong together are better scaled by `as_batches`.

    Raises:
        InputError: for any other type, shape, dtype or range, NaN, or less than 16 px on a side; FileError as `read_image`.
    """
    place = _place(frame)
    if place is not None and value_range is None and (ready := _in_place(frame, name)) is not None:
        return ready
    batch = _as_one(_arrays(frame, name), name, value_range)
    return batch if place is None else batch.to(place)


def _place(frame):
    """The device of a tensor, or of a list of them, that is not on the CPU; else None."""
    import torch

    first = frame[0] if isinstance(frame, list | tuple) and frame else frame
    return first.device if isinstance(first, torch.Tensor) and first.device.type != "cpu" else None


def _in_place(frame, name: str):
    """A tensor `(C, H, W)` or `(B, C, H, W)`, or a list of them, as a batch that never leaves its device; None where the numbers of
    several frames decide how each is scaled.

    Raises: as `as_batch`.
    """
    import torch

    if isinstance(frame, list | tuple):
        parts = [_in_place(part, f"{name}[{index}]") for index, part in enumerate(frame)]
        return None if any(part is None for part in parts) else _one_batch(parts)
    if not isinstance(frame, torch.Tensor) or not (frame.dtype == torch.uint8 or frame.is_floating_point()):
        return None
    _check_channels(frame, name)
    batch = frame.detach() if frame.ndim == 4 else frame.detach()[None]
    batch = batch[:, :1].expand(-1, 3, -1, -1) if batch.shape[1] < 3 else batch[:, :3]
    unit = batch.float()
    if batch.dtype == torch.uint8:
        unit = unit / 255.0
    else:
        low, high = (float(number) for number in torch.stack((unit.amin(), unit.amax())))  # NaN, if any number is
        if not np.isfinite((low, high)).all():
            raise InputError(f"{name} holds NaN or infinite values; expected finite numbers.")
        _check_unit(low, high, name)
        unit = unit.clamp(0.0, 1.0)
    _check_size(unit, name)
    return unit.contiguous(memory_format=torch.channels_last)


def _check_channels(tensor, name: str) -> None:
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3, 4):
        raise InputError(f"{name} as a tensor must be (C, H, W) or (B, C, H, W) with C = 1, 3 or 4, got {tuple(tensor.shape)}.")


def _check_unit(low: float, high: float, name: str) -> None:
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(
            f"{name} is floating point and must lie in [0, 1], got {low:.4g} to {high:.4g}; scale it, or name the "
            "numbers that are black and white (estimate --range LOW,HIGH; value_range in Python)."
        )


def _check_size(batch, name: str) -> None:
    if min(batch.shape[-2:]) < _SMALLEST_FRAME:
        raise InputError(f"{name} is {_size(batch)} px; the smallest that is taken is {_SMALLEST_FRAME}x{_SMALLEST_FRAME}.")


def _arrays(frame, name: str) -> list[tuple[np.ndarray, str]]:
    """Arrays `(H, W)`, `(H, W, C)` or `(B, H, W, C)` of their own type, each with its name."""
    import torch

    if isinstance(frame, list | tuple):
        if not frame:
            raise InputError(f"{name} is an empty list; expected at least one frame.")
        return [entry for index, part in enumerate(frame) for entry in _arrays(part, f"{name}[{index}]")]
    if isinstance(frame, str | os.PathLike | Still):
        return [(_read(frame), f"'{frame}'")]
    if isinstance(frame, torch.Tensor):
        array = frame.detach().cpu()
        array = (array.float() if array.dtype in (torch.bfloat16, torch.float16) else array).numpy()
        _check_channels(frame, name)
        return [(np.moveaxis(array, -3, -1), name)]
    if isinstance(frame, np.ndarray):
        if frame.ndim in (3, 4) and frame.shape[-1] == 2:
            raise InputError(f"{name} must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {frame.shape}.")
        return [(frame.astype(frame.dtype.newbyteorder("="), copy=False), name)]
    if hasattr(frame, "convert") and hasattr(frame, "mode"):
        return [(_from_pillow(frame), name)]
    raise InputError(f"{name} must be a path, a NumPy array, a Pillow image or a tensor, got {type(frame).__name__}.")


def _as_one(parts: list[tuple[np.ndarray, str]], name: str, value_range: Range | None, common: Range | None = None):
    return _one_batch([_tensor(array, part, _own(array, value_range, common)) for array, part in parts])


def _one_batch(batches: list):
    import torch

    if len({batch.shape[1:] for batch in batches}) > 1:
        sizes = ", ".join(sorted({_size(batch) for batch in batches}))
        raise InputError(f"The frames of a batch must have one size, got {sizes}.")
    return batches[0] if len(batches) == 1 else torch.cat(batches)


def _tensor(array: np.ndarray, name: str, value_range: Range | None):
    import torch

    array = _to_three_channels(to_unit(array, name, value_range), name)
    batch = torch.from_numpy(np.ascontiguousarray(array if array.ndim == 4 else array[None])).permute(0, 3, 1, 2)
    _check_size(batch, name)
    return batch


def _size(batch) -> str:
    return f"{batch.shape[-1]}x{batch.shape[-2]}"
