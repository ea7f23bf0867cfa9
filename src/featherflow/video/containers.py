"""Opening a video file so that nothing else is opened with it: the demuxer is chosen by content, from a list, and reads bytes only.

FFmpeg knows "formats" that are lists of other files, scripts, or addresses (HLS, DASH, concat, SDP, ...), and tells formats by the
name of a file too. A file from elsewhere must not make this machine read or ask for anything but itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import FileError

if TYPE_CHECKING:
    import av.container

#: FFmpeg's demuxers that are taken: containers and bare streams of moving pictures that lie whole in their file. Images are read by
#: Pillow, and their demuxers would take a pattern of names for a sequence of files.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpegtsraw", "mpeg", "mpegvideo", "flv", "live_flv", "asf",
    "asf_o", "ogg", "mxf", "mxf_opatom", "gxf", "nut", "ivf", "h264", "hevc", "vvc", "av1", "obu", "m4v", "h263", "h261",
    "dirac", "vc1", "vc1test", "cavsvideo", "avs2", "avs3", "rm", "wtv", "dv", "ty", "nsv", "smjpeg", "mjpeg", "mjpeg_2000",
    "yuv4mpegpipe", "gif", "apng", "webp_anim", "webp", "swf", "roq", "bink", "smk", "flic", "4xm", "amv", "film_cpk", "r3d",
    "dnxhd", "viv", "mtv", "cine",
)  # fmt: skip
#: Protocols that FFmpeg itself may open: none but the file object that it is handed.
_PROTOCOLS = "pipe"
_REFUSED = {b"#EXTM3U": "a playlist", b"ffconcat": "a list of files", b"<?xml": "a list of addresses", b"v=0": "an address"}


def open_video(path: str | os.PathLike[str], name: str | None = None) -> av.container.InputContainer:
    """Open a video file, and nothing but it.

    Args:
        path: the file. Its name may hold colons and signs of percent: it is no address and no pattern here.
        name: how errors call it. Default: the path.

    Raises:
        FileError: for what is no file, and for lists of other files. What PyAV raises for damaged files passes through.
    """
    path, name = Path(path), str(path) if name is None else name
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise FileError(f"There is no file '{name}'.") from None
    except OSError as error:
        raise FileError(f"'{name}' cannot be read: {error.strerror or error}.") from None
    return open_bytes(file, name)


def open_bytes(file: BinaryIO, name: str) -> av.container.InputContainer:
    """The same for a file that is open, wherever it lies; it is closed with the container."""
    import av

    start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(0)
    for mark, what in _REFUSED.items():
        if start.startswith(mark):
            file.close()
            raise FileError(f"'{name}' is {what} and no video; name the video itself.")
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": _PROTOCOLS}
    return av.open(_Bytes(file), "r", container_options=options, io_open=_nothing_else, metadata_errors="replace")


class _Bytes:
    """A file without a name, by which a format could be told, or the folder in which others lie. Closed when nobody uses it."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def __del__(self):
        self._file.close()


def _nothing_else(url: str, flags: int, options: dict) -> object:
    """What FFmpeg gets when a container asks for another file."""
    raise PermissionError(f"a video may not open '{url}'")
