"""Frames in any form a person has them: paths, arrays, Pillow images, tensors; grey, RGB, RGBA; 8 or 16 bit or float."""

from __future__ import annotations

import glob
import io
import os
from pathlib import Path

import numpy as np

from .errors import FileError, InputError, LimitError
from .files import atomic_write

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp")

_SMALLEST_FRAME = 16  # px

#: Pillow's names of the formats that `decode_image` takes; Pillow knows others, one of which starts a program.
STRANGER_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")


def image_files(source: str | os.PathLike) -> list[Path]:
    """The images of a folder, or the files that a glob pattern matches, in order of name.

    Raises:
        FileError: if there is no such folder; InputError: for a single file, and for fewer than two images.
    """
    source = Path(source)
    if source.is_dir():
        found = [path for path in sorted(source.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    elif glob.has_magic(str(source)):
        found = [Path(path) for path in sorted(glob.glob(str(source), recursive=True))]
    elif source.exists():
        raise InputError(f"'{source}' is a single frame; name the second one too, or a folder or glob of frames.")
    else:
        raise FileError(f"There is no file or folder '{source}'.")
    if len(found) < 2:
        raise InputError(f"'{source}' holds {len(found)} image(s); two or more are needed.")
    return found


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as `(H, W, 3)` uint8 RGB; alpha is dropped, grey is repeated, 16 bit is reduced to 8.

    Raises:
        FileError: if the file is missing, empty, truncated or no image that Pillow can read.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"'{path}' is a folder; expected an image file.")
    try:
        with open(path, "rb") as file:
            return _decode(file, f"'{path}'", path.stat().st_size)
    except FileNotFoundError:
        raise FileError(f"There is no image file '{path}'.") from None
    except PermissionError:
        raise FileError(f"'{path}' cannot be read: permission is denied.") from None


def decode_image(data: bytes, name: str = "the image", max_pixels: int | None = None) -> np.ndarray:
    """The image in the bytes of a file in one of `STRANGER_FORMATS`, as `read_image` gives it.

    Made for files from strangers: no other decoder sees them, and none before the size in the header is within `max_pixels`.

    Args:
        name: how errors call it.
        max_pixels: most pixels, width times height.

    Raises:
        LimitError: for more pixels than `max_pixels`; FileError: for what is no such image, or damaged.
    """
    return _decode(io.BytesIO(data), name, len(data), STRANGER_FORMATS, max_pixels)


def _decode(file, name: str, size: int, formats: tuple[str, ...] | None = None, max_pixels: int | None = None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=formats) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise LimitError(f"{name} has {image.width}x{image.height} pixels; at most {max_pixels} in all are taken here.")
            image.load()
            return _from_pillow(image, name)
    except InputError:
        raise
    except UnidentifiedImageError:
        what = "it is empty" if size == 0 else f"its {size} bytes are of no image format that is known here"
        raise FileError(f"{name} cannot be read as an image: {what}.") from None
    except Image.DecompressionBombError:
        most = 2 * Image.MAX_IMAGE_PIXELS
        raise LimitError(f"{name} claims more pixels than an image may have ({most}).") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged files
        reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileError(f"{name} cannot be read as an image: {reason.rstrip('.')}.") from None


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write `(H, W, 3)` or `(H, W)` uint8 as PNG, whole or not at all.

    Raises:
        FileError: if the file cannot be written.
    """
    from PIL import Image

    with atomic_write(path) as file:
        Image.fromarray(image).save(file, format="PNG")


def _from_pillow(image, name: str = "the image") -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        return _to_rgb8(np.asarray(image).astype(np.uint16), name)
    if image.mode == "F":
        return _to_rgb8(np.asarray(image, dtype=np.float32), name)
    return np.asarray(image.convert("RGB"))


def _to_rgb8(array: np.ndarray, name: str) -> np.ndarray:
    """`(H, W)` or `(H, W, 1|3|4)` of uint8, uint16 or float in [0, 1] to `(H, W, 3)` uint8."""
    scaled = np.round(_to_unit(array, name) * 255.0).astype(np.uint8)
    return _to_three_channels(scaled, name)


def _to_three_channels(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or array.shape[-1] not in (1, 3, 4):
        raise InputError(f"{name} must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}.")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array[..., :3]


def _to_unit(array: np.ndarray, name: str) -> np.ndarray:
    """Any supported dtype to float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255.0
    if array.dtype == np.uint16:
        return array.astype(np.float32) / 65535.0
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name} must be uint8, uint16 or floating point in [0, 1], got {array.dtype}.")
    unit = array.astype(np.float32)
    if not np.isfinite(unit).all():
        raise InputError(f"{name} holds NaN or infinite values; expected numbers in [0, 1].")
    if unit.size and (unit.min() < -1e-3 or unit.max() > 1 + 1e-3):
        raise InputError(f"{name} is floating point and must lie in [0, 1], got {unit.min():.4g} to {unit.max():.4g}.")
    return unit.clip(0.0, 1.0)


def as_batch(frame, name: str = "the frame"):
    """Any form of a frame, or of a batch of frames, as a tensor `(B, 3, H, W)` float32 RGB in [0, 1].

    Args:
        frame: a path; a Pillow image; a NumPy array `(H, W)`, `(H, W, C)` or `(B, H, W, C)`; a tensor `(C, H, W)` or
            `(B, C, H, W)`; C = 1, 3 or 4 (alpha is ignored); uint8, uint16 or float in [0, 1]; or a list of these, of one size.
        name: how errors call it.

    Raises:
        InputError: for any other type, shape, dtype or range, NaN, or less than 16 px on a side; FileError as `read_image`.
    """
    import torch

    if isinstance(frame, list | tuple):
        if not frame:
            raise InputError(f"{name} is an empty list; expected at least one frame.")
        parts = [as_batch(part, f"{name}[{index}]") for index, part in enumerate(frame)]
        if len({part.shape[1:] for part in parts}) > 1:
            sizes = ", ".join(sorted({_size(part) for part in parts}))
            raise InputError(f"The frames of a batch must have one size, got {sizes}.")
        return torch.cat(parts)
    if isinstance(frame, str | os.PathLike):
        name, frame = f"'{frame}'", read_image(frame)
    if isinstance(frame, torch.Tensor):
        array = frame.detach().cpu()
        array = (array.float() if array.dtype in (torch.bfloat16, torch.float16) else array).numpy()
        if array.ndim not in (3, 4) or array.shape[-3] not in (1, 3, 4):
            raise InputError(f"{name} as a tensor must be (C, H, W) or (B, C, H, W) with C = 1, 3 or 4, got {tuple(frame.shape)}.")
        array = np.moveaxis(array, -3, -1)
    elif isinstance(frame, np.ndarray):
        array = frame
    elif hasattr(frame, "convert") and hasattr(frame, "mode"):
        array = _from_pillow(frame)
    else:
        raise InputError(f"{name} must be a path, a NumPy array, a Pillow image or a tensor, got {type(frame).__name__}.")
    array = _to_three_channels(_to_unit(array, name), name)
    batch = torch.from_numpy(np.ascontiguousarray(array if array.ndim == 4 else array[None])).permute(0, 3, 1, 2)
    if min(batch.shape[-2:]) < _SMALLEST_FRAME:
        raise InputError(f"{name} is {_size(batch)} px; the smallest that is taken is {_SMALLEST_FRAME}x{_SMALLEST_FRAME}.")
    return batch


def _size(batch) -> str:
    return f"{batch.shape[-1]}x{batch.shape[-2]}"
