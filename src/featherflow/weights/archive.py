"""Fetching the official weights from the author's repository, after the person has agreed to their terms.

A file is known by its git blob id, sha1 of "blob <size>" + NUL + content, as recorded in that repository. Where the repository
keeps large files by Git LFS, the blob is a short pointer; the pointer is checked by its blob id, and the file it stands for,
fetched from the LFS server, by the size and sha256 in the pointer.
"""

from __future__ import annotations

import difflib
import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import FileError, InputError, WeightsError
from .containers import Contents, is_lfs_pointer, unwrap
from .importer import ImportedWeights, import_weights_to

#: No published archive comes near this size [bytes].
MOST_BYTES = 128 * 2**20
TIMEOUT = 30  # s without a byte
_CHUNK = 1 << 16
_POINTER = re.compile(rb"oid sha256:([0-9a-f]{64})\nsize (\d{1,12})\n")

_REPOSITORY = "twhui/LiteFlowNet"
_FOLDER = "master/models/trained"

TERMS = """\
These weights belong to the LiteFlowNet release of Tak-Wai Hui, not to featherflow, and come with their own licence:
  - they are given for research purposes only, without any warranty;
  - any commercial use needs the author's consent;
  - work that uses them should cite Hui, Tang, Loy: "LiteFlowNet: A Lightweight Convolutional Neural Network for Optical
    Flow Estimation", CVPR 2018.
The licence itself: https://github.com/twhui/LiteFlowNet/blob/master/LICENSE"""

Opener = Callable[..., BinaryIO]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Archive:
    """A published file and what it becomes here."""

    #: What `fetch` calls it.
    name: str
    #: `architecture:tag` it is imported as.
    target: str
    #: Git blob id in the author's repository.
    blob: str
    summary: str

    @property
    def file(self) -> str:
        return f"{self.name}.caffemodel.tar.gz"

    @property
    def url(self) -> str:
        """The blob as the repository holds it."""
        return f"https://raw.githubusercontent.com/{_REPOSITORY}/{_FOLDER}/{self.file}"

    @property
    def lfs_url(self) -> str:
        """The file behind the blob, if the blob is a Git LFS pointer."""
        return f"https://media.githubusercontent.com/media/{_REPOSITORY}/{_FOLDER}/{self.file}"


ARCHIVES = {
    archive.name: archive
    for archive in (
        Archive(
            "liteflownet",
            "liteflownet:official",
            "9911581c9f3650c46b34b333d7321fc4ac04050c",
            "LiteFlowNet trained on FlyingChairs and FlyingThings3D",
        ),
        Archive(
            "liteflownet-ft-sintel",
            "liteflownet:official-ft-sintel",
            "f8b3b08513ec2731d60fa9f64ccb5ec11823ef44",
            "LiteFlowNet fine-tuned for Sintel",
        ),
        Archive(
            "liteflownet-ft-kitti",
            "liteflownet:official-ft-kitti",
            "45566b20c0fe927dd297db161de94729d39750f2",
            "LiteFlowNet fine-tuned for KITTI",
        ),
    )
}


def fetch(
    name: str,
    agree: bool | Callable[[str], bool] = False,
    progress: Progress | None = None,
    opener: Opener = urllib.request.urlopen,
) -> tuple[Path, ImportedWeights]:
    """Download a published archive and import it into the user's weights.

    Args:
        name: one of `ARCHIVES`.
        agree: True if the person has agreed to `TERMS`, or a function that shows them and returns the answer.
        progress: called with bytes received and bytes expected (0 where the server does not say).
        opener: called as `opener(url, timeout=seconds)`; returns a response to read from.

    Returns:
        The file written, and what was imported.

    Raises:
        InputError: for an unknown name.
        WeightsError: if the terms are not agreed to, or the file is not the published one.
        FileError: if the network or the disk fails.
    """
    if name not in ARCHIVES:
        near = difflib.get_close_matches(name, ARCHIVES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(ARCHIVES)}."
        raise InputError(f"There is no published archive named '{name}'; {hint}")
    archive = ARCHIVES[name]
    if not (agree(TERMS) if callable(agree) else agree):
        raise WeightsError(f"Nothing was fetched: the terms of '{name}' have to be agreed to first (--agree says so).")
    data = _download(archive.url, archive.file, progress, opener)
    if is_lfs_pointer(data):
        data = _behind_pointer(archive, data, progress, opener)
    elif blob_id(data) != archive.blob:
        raise WeightsError(f"{archive.file} is not the published file (its git blob id is {blob_id(data)}); nothing was kept.")
    unpacked = unwrap(data, archive.file)
    return import_weights_to(Contents(unpacked.data, archive.file), archive.target)


def blob_id(content: bytes) -> str:
    """Name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _behind_pointer(archive: Archive, pointer: bytes, progress: Progress | None, opener: Opener) -> bytes:
    """The file that a Git LFS pointer stands for, verified through the pointer."""
    by_hand = f"download it by hand and use `featherflow weights import FILE --as {archive.target}`"
    found = _POINTER.search(pointer)
    if blob_id(pointer) != archive.blob or found is None:
        raise WeightsError(f"The server sent a Git LFS pointer instead of {archive.file}, and not the published one; {by_hand}.")
    data = _download(archive.lfs_url, archive.file, progress, opener)
    if is_lfs_pointer(data):
        raise WeightsError(f"The server sent a Git LFS pointer instead of {archive.file}; {by_hand}.")
    if len(data) != int(found[2]) or hashlib.sha256(data).hexdigest() != found[1].decode():
        raise WeightsError(f"{archive.file} is not the published file (its size or sha256 differs); nothing was kept.")
    return data


def _download(url: str, file: str, progress: Progress | None, opener: Opener) -> bytes:
    received = bytearray()
    try:
        with opener(url, timeout=TIMEOUT) as response:
            length = str(getattr(response, "headers", {}).get("Content-Length") or "")
            expected = int(length) if length.isdecimal() else 0
            while chunk := response.read(_CHUNK):
                received += chunk
                if max(len(received), expected) > MOST_BYTES:
                    raise WeightsError(f"{file} is larger than {MOST_BYTES >> 20} MiB on the server; nothing was kept.")
                if progress:
                    progress(len(received), expected)
    except urllib.error.HTTPError as error:
        raise FileError(f"{file} cannot be fetched: the server answered {error.code} for {url}.") from error
    except http.client.HTTPException as error:
        raise FileError(f"{file} cannot be fetched: the connection broke off; try again.") from error
    except OSError as error:
        if isinstance(error, FileError):
            raise
        reason = getattr(error, "reason", None) or error
        raise FileError(f"{file} cannot be fetched: {reason}; is the network there?") from error
    if expected and len(received) < expected:
        raise FileError(f"{file} cannot be fetched: the connection broke off at {len(received)} of {expected} bytes; try again.")
    return bytes(received)
