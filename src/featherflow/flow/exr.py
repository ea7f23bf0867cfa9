"""OpenEXR files for compositing: motion vectors, and STMaps.

Both follow the convention of compositing programs, where (0, 0) is the lower left corner of the lower left pixel and y points up:

- `NAME.exr`, motion vectors: channels `forward.u` and `forward.v`, the motion to the next frame [px], v positive upwards; and
  `forward.valid`, 0 where it is unknown. Other names are read too: `u`, `v` in any layer, or else `R`, `G`.
- `NAMEstmap.exr`, an STMap: channels `R` and `G`, the place that each pixel fetches its value from, as shares of the width and,
  from below, of the height: R = (x + u + 1/2) / W, G = 1 - (y + v + 1/2) / H, with x, y and the flow u, v as everywhere here, y
  down. With the flow from frame 1 to frame 2, a program that applies the map to frame 2 gets frame 1's view of it. `A` is 0 where
  the flow is unknown.

float32 is written; half floats are read as well. Pixels outside of a file's data window are unknown.
"""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import FileError, LimitError, MissingExtraError

# The most that the file's lossless compressions (deflate) expand.
_MOST_EXPANDED = 1032

# Two threads that redirect standard output at once would leave it redirected.
_SILENCE = threading.Lock()


def is_stmap(path: Path) -> bool:
    """Whether a file name says that the file is an STMap."""
    return path.stem.lower().endswith("stmap")


def read_exr(path: Path, file: BinaryIO, size: int, most: float) -> tuple[np.ndarray, np.ndarray]:
    """The flow `(H, W, 2)` float32 [px] in the first picture of a file, y down, and where it is known.

    Args:
        most: pixels that are taken, width times height; the channels of all pictures may hold eight times as many numbers.
    """
    heads = [part.header for part in _open(path, file, header_only=True).parts]
    header = heads[0]
    left, top, right, bottom = _window(header["dataWindow"])
    frame_left, frame_top, frame_right, frame_bottom = _window(header["displayWindow"])
    width, height = frame_right - frame_left, frame_bottom - frame_top
    channels = [channel.name for channel in header["channels"]]
    numbers = sum(_numbers(head) for head in heads)  # the library unpacks all there is
    if min(width, height, right - left, bottom - top) < 1 or 2 * numbers > _MOST_EXPANDED * size:
        raise FileError(f"{path} claims a frame of {width} x {height} pixels, which its {size} bytes cannot hold")
    if width * height > most or numbers > 8 * most:
        raise LimitError(f"{path} claims a size of {width} x {height} pixels: at most {most:.0f} in all are taken (max_pixels)")
    if any("deep" in str(head["type"]) for head in heads):
        raise FileError(f"{path} holds deep pixels, of any number in one place: expected one value for each")
    names, known_name = _names(path, channels)
    file.seek(0)
    parts = _open(path, file, header_only=False).parts
    if not parts:
        raise FileError(f"{path} is a damaged OpenEXR file: its pixels cannot be read")
    stored = {name: channel.pixels for name, channel in parts[0].channels.items()}
    if any(stored[name].shape != (bottom - top, right - left) for name in names):
        raise FileError(f"{path} stores its channels at sizes of their own: expected {names[0]} and {names[1]} for every pixel")
    # The data window may be a part of the frame, or larger.
    flow = np.full((height, width, 2), np.nan, np.float32)
    inner = slice(max(top, frame_top), min(bottom, frame_bottom)), slice(max(left, frame_left), min(right, frame_right))
    if inner[0].start < inner[0].stop and inner[1].start < inner[1].stop:
        target = tuple(
            slice(part.start - begin, part.stop - begin) for part, begin in zip(inner, (frame_top, frame_left), strict=True)
        )
        source = tuple(slice(part.start - begin, part.stop - begin) for part, begin in zip(inner, (top, left), strict=True))
        flow[target] = np.stack([stored[name][source] for name in names], axis=-1)
        if known_name is not None:
            flow[target][stored[known_name][source] == 0] = np.nan
    if is_stmap(path):
        flow = _from_stmap(flow)
    else:
        flow[..., 1] *= -1
    return flow, ~np.any(np.isnan(flow), axis=-1)


def write_exr(path: Path, field: np.ndarray, unknown: np.ndarray) -> bytes:
    """The bytes of a file with a flow `(H, W, 2)` float32 [px], y down, which is NaN where `unknown`."""
    known = (~unknown).astype(np.float32)
    if is_stmap(path):
        place = _to_stmap(np.where(unknown[..., None], 0, field))
        channels = {"R": place[..., 0], "G": place[..., 1], "B": np.zeros_like(known), "A": known}
    else:
        vectors = np.where(unknown[..., None], 0, field).astype(np.float32)
        channels = {"forward.u": vectors[..., 0], "forward.v": 0 - vectors[..., 1], "forward.valid": known}
    openexr = _openexr(path)
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    buffer = io.BytesIO()
    openexr.File(header, {name: np.ascontiguousarray(values) for name, values in channels.items()}).write(buffer)
    return buffer.getvalue()


def _to_stmap(field: np.ndarray) -> np.ndarray:
    """Shares of width and, from below, of height, that a flow leads to. float64 on the way, for the pixels at the right."""
    height, width = field.shape[:2]
    place = field.astype(np.float64) + _centres(height, width)
    return np.stack((place[..., 0] / width, 1 - place[..., 1] / height), axis=-1).astype(np.float32)


def _from_stmap(place: np.ndarray) -> np.ndarray:
    height, width = place.shape[:2]
    place = place.astype(np.float64)
    goal = np.stack((place[..., 0] * width, (1 - place[..., 1]) * height), axis=-1)
    return (goal - _centres(height, width)).astype(np.float32)


def _centres(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack((x, y), axis=-1) + 0.5


def _names(path: Path, channels: list[str]) -> tuple[tuple[str, str], str | None]:
    """Names of the channels with x and y, and of that with what is known."""
    if is_stmap(path):
        if {"R", "G"} <= set(channels):
            return ("R", "G"), "A" if "A" in channels else None
        raise FileError(f"{path} is no STMap: expected the channels R and G, found {', '.join(channels) or 'none'}")
    layers = [name.removesuffix("u") for name in channels if name == "u" or name.endswith(".u")]
    layers = [layer for layer in layers if f"{layer}v" in channels]
    for layer in sorted(layers, key=lambda layer: (layer != "forward.", layer != "", layer)):
        return (f"{layer}u", f"{layer}v"), f"{layer}valid" if f"{layer}valid" in channels else None
    if {"R", "G"} <= set(channels):
        return ("R", "G"), None  # A is the cover of a picture as a rule, and says nothing of the motion
    raise FileError(f"{path} holds no flow: expected the channels u and v or R and G, found {', '.join(channels) or 'none'}")


def _window(box) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, the last two beyond the last pixel."""
    (left, top), (right, bottom) = box
    return int(left), int(top), int(right) + 1, int(bottom) + 1


def _numbers(header: dict) -> int:
    """How many numbers a picture claims to hold."""
    left, top, right, bottom = _window(header["dataWindow"])
    return max(right - left, 0) * max(bottom - top, 0) * len(header["channels"])


def _open(path: Path, file: BinaryIO, header_only: bool):
    openexr = _openexr(path)
    try:
        with _SILENCE, contextlib.redirect_stdout(None):  # damage is also printed there
            opened = openexr.File(io.BytesIO(file.read()), separate_channels=True, header_only=header_only)
        if header_only and not opened.parts:
            raise ValueError("no picture in it")
        return opened
    except Exception as error:  # the library raises RuntimeError, ValueError and others
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileError(f"{path} is not a readable OpenEXR file: {text[:120]}") from error


def _openexr(path: Path):
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingExtraError(f"{path} needs OpenEXR; install it with: pip install 'featherflow[exr]'") from error
    return OpenEXR
