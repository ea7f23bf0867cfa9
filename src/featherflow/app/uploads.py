"""From a request to its files, within the limits on bytes and time. Nothing is written to a disk."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import anyio
from fastapi import HTTPException, Request
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from .settings import MEBIBYTE, Settings

#: A refusal after which the connection is closed: its request has not been read to the end.
_CLOSE = {"Connection": "close"}
#: Most quotes, colons, commas and brackets of a body in JSON; three fields need 20.
_MOST_MARKS = 100
_SPACE = re.compile(r"\s")
_DATA_URL = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")

#: Clips that may come in at a time, and how slowly [bytes/s].
MOST_CLIPS, SLOWEST = 2, 256 * 1024


@dataclass(frozen=True)
class Upload:
    """One file of a request: the name it was given, perhaps empty, and its bytes."""

    name: str
    data: bytes


class Uploads:
    """Reads requests. All requests at a time hold no more than eight of the largest."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held = self._clips = 0

    async def clip(self, request: Request, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Hand the body of a request on piece by piece: a clip, which is too large for the memory.

        It may last `transfer_seconds` and a second more for each of `SLOWEST` bytes that have come.

        Raises `HTTPException` with status 400 (the client went away), 408 (too slow) or 429 (`MOST_CLIPS` are coming in); and what
        `write` raises.
        """
        if self._clips >= MOST_CLIPS:
            raise HTTPException(429, "Other clips are coming in; try again in a moment.", {"Retry-After": "5"} | _CLOSE)
        self._clips += 1
        length, started = 0, anyio.current_time()
        try:
            chunks = aiter(request.stream())
            while True:
                with anyio.fail_after(started + self._settings.transfer_seconds + length / SLOWEST - anyio.current_time()):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                length += len(chunk)
                await write(chunk)
        except ClientDisconnect:
            raise HTTPException(400, "The client went away before its clip was complete.", _CLOSE) from None
        except TimeoutError:
            raise HTTPException(408, f"The clip came in at less than {SLOWEST >> 10} KiB a second.", _CLOSE) from None
        finally:
            self._clips -= 1

    async def files(self, request: Request, required: Collection[str], optional: Collection[str] = ()) -> Mapping[str, Upload]:
        """The files of a multipart form, or the base64 texts of a JSON object, by field.

        Raises `HTTPException` with status 408 (too slow), 413 (too large), 415 (another type of content), 422 (not these files)
        or 429 (too many requests at a time).
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("multipart/form-data", "application/json"):
            fields = " and ".join(f"'{name}'" for name in required)
            sentence = f"Send multipart/form-data or application/json with {fields}, not {kind or 'content of no stated type'}."
            raise HTTPException(415, sentence, _CLOSE)
        length = 0
        try:
            body = bytearray()
            with anyio.fail_after(self._settings.transfer_seconds):
                async for chunk in self._chunks(request):
                    self._held += len(chunk)
                    length += len(chunk)
                    if self._held > 8 * self._settings.max_bytes:
                        sentence = "Too many requests are under way; try again in a moment."
                        raise HTTPException(429, sentence, {"Retry-After": "1"} | _CLOSE)
                    body += chunk
            if kind == "application/json":
                files = await asyncio.to_thread(_from_json, body)
            else:
                files = await _from_form(request, body, self._settings.max_bytes)
        except ClientDisconnect:
            raise HTTPException(400, "The client went away before its request was complete.", _CLOSE) from None
        except TimeoutError:
            seconds = self._settings.transfer_seconds
            raise HTTPException(408, f"The request took more than {seconds:g} s to arrive.", _CLOSE) from None
        finally:
            self._held -= length
        for name in required:
            if name not in files:
                raise HTTPException(422, f"The field '{name}' is missing; it holds an image file.")
        for name in files:
            if name not in required and name not in optional:
                raise HTTPException(422, f"There is no field '{name}' here; send {', '.join((*required, *optional))}.")
        return files

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """The body. One that is too large is read on for a while, and forgotten, so that its sender gets to read why."""
        most = self._settings.max_bytes
        refusal = HTTPException(413, f"The request is too large: at most {most / MEBIBYTE:g} MiB are taken.", _CLOSE)
        waits_for_permission = request.headers.get("expect", "").lower() == "100-continue"
        declared = request.headers.get("content-length", "0")
        if waits_for_permission and declared.isdigit() and int(declared) > most:
            raise refusal
        length = 0
        async for chunk in request.stream():
            length += len(chunk)
            if length <= most:
                yield chunk
            elif length > 4 * most:
                break
        if length > most:
            raise refusal


class _InMemory(MultiPartParser):
    """Starlette's parser without its temporary files: the size was held against the limit before. Every part is a file."""

    def __init__(self, headers, stream, most: int) -> None:
        super().__init__(headers, stream, max_files=8, max_fields=8, max_part_size=1024)
        self.spool_max_size = most + 1

    def on_headers_finished(self) -> None:
        # Some clients send files without a name. Taken for text they would be short of room and of the bytes that are no text.
        part = self._current_part
        if part.content_disposition is not None and b"filename" not in parse_options_header(part.content_disposition)[1]:
            part.content_disposition += b'; filename=""'
        super().on_headers_finished()


async def _from_form(request: Request, body: bytearray, most: int) -> dict[str, Upload]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), MEBIBYTE):
            yield bytes(body[start : start + MEBIBYTE])
            await asyncio.sleep(0)  # others get their turn

    try:
        form = await _InMemory(request.headers, pieces(), most).parse()
    except MultiPartException as error:
        raise HTTPException(422, f"The form cannot be read: {error.message.rstrip('.')}.") from None
    except (ValueError, KeyError, AttributeError, LookupError):  # what malformed headers of parts and character sets raise
        raise HTTPException(422, "The form cannot be read: it is malformed.") from None
    files = {}
    for name, part in form.multi_items():
        if isinstance(part, str):  # a header so damaged that not even a name could be added
            raise HTTPException(422, f"The field '{name}' must be a file, but it is text.")
        if name in files:
            raise HTTPException(422, f"The field '{name}' is there twice.")
        files[name] = Upload(part.filename or "", await part.read())
    return files


def _from_json(body: bytearray) -> dict[str, Upload]:
    # Counted before it is parsed: a body of many small values takes thirty times its own size.
    if sum(body.count(mark) for mark in b'":,[{') > _MOST_MARKS:
        raise HTTPException(422, "The request holds more than a JSON object with an image file in base64 in each field.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(422, "The request is not readable JSON.") from None
    if not isinstance(content, dict):
        raise HTTPException(422, "The request must be a JSON object with an image file in base64 in each field.")
    files = {}
    for name, text in content.items():
        try:
            if not isinstance(text, str):
                raise TypeError
            files[name] = Upload("", _from_base64(text))
        except (binascii.Error, ValueError, TypeError):
            raise HTTPException(422, f"The field '{name}' must be a text in base64.") from None
    return files


def _from_base64(text: str) -> bytes:
    """Bytes of base64 as people write it: in lines, as a data URL, in either alphabet of RFC 4648, with or without its padding.

    Raises `ValueError` for another text.
    """
    text = _DATA_URL.sub("", text, count=1)
    if _SPACE.search(text):  # in lines, as `base64` and MIME write it
        text = "".join(text.split())
    text = text.rstrip("=").translate(_URL_SAFE)
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
