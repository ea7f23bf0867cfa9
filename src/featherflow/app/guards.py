"""Who may use the service, and what its answers tell a browser: middleware and dependencies, without anything about flow."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import printable
from .settings import Settings

#: Of every answer that brings none of its own.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
#: Of the page and its parts. The browser itself makes sure that nothing is asked of any other machine.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_COOKIE = "featherflow_token"
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def refusal(sentence: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """One sentence as an answer: safe to print, and without this machine's folders."""
    return JSONResponse({"error": _without_folders(printable(sentence))}, status, HEADERS | dict(headers or {}))


def _without_folders(text: str) -> str:
    """`text` with the names alone of files that lie in folders of this machine; what strangers name stays as it is."""
    for folder in {str(Path(tempfile.gettempdir())), str(Path.home()), str(Path.cwd()), str(Path(__file__).parents[2])} - {"/"}:
        text = re.sub(re.escape(folder) + r"[/\\](?:[^\s'\"/\\]+[/\\])*", "", text)
    return text


class Headers:
    """Puts `HEADERS` on every answer that has not its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *(pair for pair in own if pair[0] not in there)]}
            await send(message)

        await self._app(scope, receive, with_headers)


class KnownHosts:
    """On the loopback, refuses requests for any other host than those that are served.

    A page from elsewhere whose name leads to 127.0.0.1 would otherwise be of one origin with the service (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        hosts = {settings.host, *settings.hosts} | (_OWN_NAMES if settings.on_loopback else set())
        self._known = {_host_name(host) for host in hosts} if settings.on_loopback or settings.hosts else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._known is None:
            return await self._app(scope, receive, send)
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) == 1 and _host_name(given[0].decode("latin-1")) in self._known:
            return await self._app(scope, receive, send)
        sentence = "This service does not answer under that name (header Host); behind a proxy, start it with --allow-host NAME."
        await refusal(sentence, 421, {"Connection": "close"})(scope, receive, send)


def _host_name(host: str) -> str:
    """A host without its port and brackets, in small letters."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0]


class SameOrigin:
    """Refuses what a page from elsewhere makes a browser send: it would use this machine without its owner's knowledge."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        origin = headers.get(b"origin")
        if origin is None or origin.partition(b"://")[2] == headers.get(b"host"):
            return await self._app(scope, receive, send)
        await refusal("Pages from elsewhere may not use this service.", 403, {"Connection": "close"})(scope, receive, send)


class Token:
    """Lets those in who bear the token, in the header Authorization or, of the page, in a cookie.

    `/?token=TOKEN` sets the cookie and leads to the page, so that the token does not stay in the address.
    """

    def __init__(self, app: ASGIApp, token: str, free: frozenset[str]) -> None:
        """`free`: paths that need no token."""
        self._app, self._token, self._free = app, token.encode(), free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._free:
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and self._is_right(given.strip()):
            return await self._app(scope, receive, send)
        if self._is_right(_cookie(headers.get(b"cookie", b""))):
            return await self._app(scope, receive, send)
        if scope["path"] == "/" and self._is_right(_parameter(scope["query_string"])):
            cookie = SimpleCookie({_COOKIE: self._token.decode()})
            attributes: dict[str, Any] = {"httponly": True, "samesite": "Strict", "path": "/"}
            cookie[_COOKIE].update(attributes)
            answer = JSONResponse({}, 303, HEADERS | {"Location": "./", "Set-Cookie": cookie[_COOKIE].OutputString()})
            return await answer(scope, receive, send)
        sentence = "This service asks for a token: send the header 'Authorization: Bearer TOKEN' with the right one."
        await refusal(sentence, 401, {"WWW-Authenticate": "Bearer", "Connection": "close"})(scope, receive, send)

    def _is_right(self, given: bytes) -> bool:
        return bool(given) and secrets.compare_digest(given, self._token)


def _cookie(header: bytes) -> bytes:
    try:
        found = SimpleCookie(header.decode("latin-1")).get(_COOKIE)
    except CookieError:
        return b""
    return found.value.encode("latin-1", "replace") if found else b""


def _parameter(query: bytes) -> bytes:
    try:
        return parse_qs(query.decode("latin-1"), max_num_fields=8).get("token", [""])[0].encode("latin-1", "replace")
    except ValueError:
        return b""
