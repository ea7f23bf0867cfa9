"""Listening: uvicorn with clocks on its connections, and an end that finishes what is running."""

import logging
import signal
import socket
import sys
import threading
import webbrowser
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import InputError
from .service import create_app
from .settings import Settings


def serve(settings: Settings) -> None:
    """See `featherflow.app.serve`."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it would tell of every malformed form
    listener = _listen(settings.host, settings.port)
    with listener:
        app = create_app(settings)
        try:
            app.state.engine.start()  # a model that cannot be loaded ends here, in a sentence
        except BaseException:
            app.state.engine.close()
            raise
        server = uvicorn.Server(_config(settings, app))
        _announce(settings, listener.getsockname()[1])
        # uvicorn raises its signals again when it is done; by then everything is finished, and there is nobody to tell.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            server.run([listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _announce(settings: Settings, port: int) -> None:
    url = _url(settings.host, port)
    print(f"featherflow answers at {url} (end with Ctrl-C).", file=sys.stderr, flush=True)
    if settings.token is None and not settings.on_loopback:
        print("Anybody who reaches this address can use it: there is no token.", file=sys.stderr, flush=True)
    page = url if settings.token is None else f"{url}?{urlencode({'token': settings.token})}"
    if settings.page and settings.token is not None and not settings.open_browser:
        print(f"The page asks for the token once: open {url}?token=TOKEN", file=sys.stderr, flush=True)
    if settings.open_browser:
        threading.Timer(0.5, webbrowser.open, (page,)).start()


def _config(settings: Settings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_protocol(settings.transfer_seconds),
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=round(settings.seconds + settings.transfer_seconds) + 1,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise InputError(f"Nothing can listen at {host}, port {port}: {error.strerror or error}.") from None


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _protocol(seconds: float) -> type[H11Protocol]:
    """HTTP/1.1 that breaks a connection off when its peer lets it wait for `seconds`.

    uvicorn has no such clock of its own, neither for the headers of a request nor for an answer that nobody reads.
    The body of a request is timed by who reads it, in `uploads`.
    """

    class Protocol(H11Protocol):
        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            self._headers_clock = self._writing_clock = None
            self._wait_for_headers()

        def data_received(self, data: bytes) -> None:
            requests = self.cycle
            super().data_received(data)
            if self.cycle is not requests:  # the headers of a request are complete
                self._stop_headers_clock()
            elif self.cycle is None or self.cycle.response_complete:
                self._wait_for_headers()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._stop_writing_clock()
            self._writing_clock = self.loop.call_later(seconds, self._abort_if_unread)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stop_writing_clock()
            self._writing_clock = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_writing_clock()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_headers_clock()
            self._stop_writing_clock()
            super().connection_lost(exc)

        def _wait_for_headers(self) -> None:
            """Start the clock, unless it is running: a byte now and then does not wind it up again."""
            if self._headers_clock is None:
                self._headers_clock = self.loop.call_later(seconds, self.transport.abort)

        def _stop_headers_clock(self) -> None:
            if self._headers_clock is not None:
                self._headers_clock.cancel()
                self._headers_clock = None

        def _stop_writing_clock(self) -> None:
            if self._writing_clock is not None:
                self._writing_clock.cancel()
                self._writing_clock = None

        def _abort_if_unread(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()

    return Protocol
