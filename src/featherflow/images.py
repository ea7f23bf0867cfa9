"""Image files: one picture or several, 8 bit or deeper, grey or colour, read upright and written whole."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import FileError, InputError, LimitError
from .files import atomic_write
from .headers import check_scans, is_clip
from .pixels import Range, common_range, eight_bits, own_range, range_of, three_channels, to_bytes, to_unit
from .png16 import decoded

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp", ".avif")

#: Pillow's names of the formats that `decode_image` takes; Pillow knows others, one of which starts a program.
STRANGER_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")

#: Formats whose several pictures are views (JPEG of a phone) or layers of one; those of all others are a sequence.
_OF_ONE = ("MPO", "PSD")

_log = logging.getLogger(__name__)


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
    return to_bytes(read_stored(path), f"'{path}'")


def read_frames(
    sources: Sequence[str | os.PathLike[str] | Still], value_range: Range | None = None, names: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Read image files that belong together, upright and scaled alike.

    Args:
        value_range: the numbers that become black and white in pictures deeper than 8 bit. Default: see `pixels`.

    Returns:
        One array `(H, W, 3)` RGB for each: uint8 where all files hold 8 bit, else float32 in [0, 1].

    Raises:
        FileError: as `read_image`; InputError: for floating point numbers outside [0, 1] without a range.
    """
    return alike([read_stored(source) for source in sources], names or [f"'{source}'" for source in sources], value_range)


def alike(arrays: Sequence[np.ndarray], names: Sequence[str], value_range: Range | None = None) -> list[np.ndarray]:
    """Pictures that belong together, as they were stored, scaled alike: what `read_frames` gives."""
    if all(array.dtype == np.uint8 for array in arrays):
        return [three_channels(array, name) for array, name in zip(arrays, names, strict=True)]
    chosen = value_range or common_range(arrays)
    return [
        three_channels(to_unit(array, name, own_range(array, value_range, chosen)), name)
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
    array, name = read_stored(source), f"'{source}'"
    if array.dtype != np.uint8:
        array = np.round(to_unit(array, name, own_range(array, value_range, common)) * 65535).astype(np.uint16)
    return three_channels(array, name)


def sequence_range(sources: Sequence[str | os.PathLike[str] | Still]) -> Range | None:
    """The range by which the pictures of a sequence are scaled alike; only where the first is deeper than 8 bit, all are read."""
    if not sources or read_stored(sources[0]).dtype == np.uint8:
        return None
    return range_of(read_stored(source) for source in sources)


def decode_image(data: bytes, name: str = "the image", max_pixels: int | None = None) -> np.ndarray:
    """The image in the bytes of a file in one of `STRANGER_FORMATS`, upright: `(H, W, 3)` uint8, or deeper, as it is stored.

    Made for files from strangers: no other decoder sees them, and none before the size in the header is within `max_pixels`. Of
    16-bit colours of a TIFF, the upper 8 are read. See `alike` for two that belong together.

    Args:
        name: how errors call it.
        max_pixels: most pixels, width times height.

    Raises:
        LimitError: for more pixels than `max_pixels`; FileError: for what is no such image, or damaged; InputError: for a sequence.
    """
    return _decode(io.BytesIO(data), name, len(data), STRANGER_FORMATS, max_pixels)


def page_count(path: str | os.PathLike[str]) -> int:
    """How many pictures of a sequence a file holds: 1 for most, more for animations and TIFF of several pages."""
    return len(page_times(path))


def page_times(path: str | os.PathLike[str]) -> list[float]:
    """How long each picture of a file is shown [s], 0 where it does not say.

    Of a damaged file those behind the damage count as well, as long as the one before; what is wrong is told when they are read.

    Raises:
        FileError: as `read_image`.
    """
    from PIL import Image

    path = Path(path)
    with _opening(path) as file, _decoding(f"'{path}'", path.stat().st_size, file), Image.open(file) as image:
        times = [0.0] * _count(image)
        for page in range(len(times) if len(times) > 1 else 0):
            try:
                image.seek(page)
                if image.format != "TIFF":
                    image.load()  # only then do animations tell their times
            except Exception:  # decoders raise almost anything on damaged files
                if page == 0:
                    raise
                times[page:] = [times[page - 1]] * (len(times) - page)
                break
            times[page] = float(image.info.get("duration") or 0) / 1000
        return times


def _count(image) -> int:
    """Pictures of a sequence in an open file; pages of a TIFF are one if of one size, and none a smaller copy (tag 254)."""
    if image.format == "TIFF":
        return _pages(image)
    return 1 if image.format in _OF_ONE else getattr(image, "n_frames", 1)


def _pages(image) -> int:
    """As `_count`, of a TIFF; of one that is cut short, those that are there and the first that is not."""
    size, page = image.size, 0
    while True:
        if image.size != size or image.tag_v2.get(254, 0) & 1:
            page = 0
            break
        try:
            image.seek(page + 1)
        except EOFError:
            break
        except Exception:  # of what describes the next page
            page += 1
            break
        page += 1
    image.seek(0)
    return page + 1


def check_single(name: str, count: int) -> None:
    """Refuse a file of several pictures where one frame is meant, with `InputError`; whatever reads a frame does so."""
    if count > 1:
        raise InputError(f"{name} holds {count} pictures; name it alone to take them as a sequence (featherflow estimate, video).")


def read_stored(source: str | os.PathLike[str] | Still) -> np.ndarray:
    """A picture as it is stored, upright and without alpha: `(H, W)` or `(H, W, C)` of the file's own type."""
    still = source if isinstance(source, Still) else Still(Path(source))
    with _opening(still.path) as file:
        array = _decode(file, f"'{still}'", still.path.stat().st_size, page=still.page)
    return array[..., :3] if array.ndim == 3 and array.shape[-1] == 4 else array


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
        if (formats is None or image.format == "PNG") and page is None and _deep_colour(image, file):
            deep = _read_deep_colour(file, name)
            if deep is not None:
                return _turned(deep, _orientation(image))
        image.load()
        return from_pillow(image)


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


def from_pillow(image) -> np.ndarray:
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
