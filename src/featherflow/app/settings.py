"""What can be chosen when the service starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """Where the service listens, what it offers, and its limits.

    Raises:
        InputError: for a number out of its range.
    """

    #: Address to listen on; the default is reached from this machine only.
    host: str = "127.0.0.1"
    #: 0 takes any free port.
    port: int = 8000
    #: Serve the page too, and open it in a browser.
    page: bool = False
    open_browser: bool = False
    #: Requests must bear this token, if there is one; a browser is sent to the page with it once and keeps it in a cookie.
    token: str | None = None
    #: Names and addresses, beside its own, under which a service on the loopback may be called: those that a proxy passes on.
    hosts: tuple[str, ...] = ()
    #: Models on offer, the default first; empty: all weights that are there, and all classical methods.
    models: tuple[str, ...] = ()
    #: cpu, cuda, ...; None: a GPU if there is one.
    device: str | None = None
    #: Build the engine openvino in the background for sizes of frames that come often, on a CPU, and go on with it if it is faster.
    prepare: bool = False
    #: Most bytes of one request.
    max_bytes: int = 32 * MEBIBYTE
    #: Most pixels of one frame.
    max_pixels: int = 1 << 22
    #: Most pairs that wait for their turn.
    queue: int = 64
    #: Longest time from a complete request to its answer [s].
    seconds: float = 60.0
    #: Longest time that decoding one file may last [s].
    decode_seconds: float = 10.0
    #: Longest time that sending a request, or taking its answer, may last [s].
    transfer_seconds: float = 30.0
    #: Most pairs of one size that are estimated together; None: 8 on a GPU, 1 on a CPU, which gains nothing from more.
    batch: int | None = None
    #: Most connections at a time.
    connections: int = 512

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "queue", "seconds", "decode_seconds", "transfer_seconds", "connections", "batch"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name.replace('_', ' ')} must be a number above 0, got {value}.")
        if not 0 <= self.port <= 65535:
            raise InputError(f"A port is a number from 0 to 65535, got {self.port}.")
        if self.token is not None and not (self.token and self.token.isascii() and self.token.isprintable()):
            raise InputError("A token is one or more printable ASCII characters.")

    @property
    def estimation(self) -> dict[str, str | bool | None]:
        """What a worker is told of each task that estimates, beside the model."""
        return {"device": self.device, "prepare": self.prepare}

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on an address."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def usual_limits(host: str, hosts: tuple[str, ...] = ()) -> tuple[int, int]:
    """(most bytes of a request, most pixels of a frame) where nobody says otherwise.

    Whoever asks from this machine could as well run the command line, so a service that nobody else reaches, not even through a
    proxy (`hosts`), takes the largest frames that the package is made for, 7680x4320.
    """
    alone = is_loopback(host) and not hosts
    return (256 * MEBIBYTE, 7680 * 4320) if alone else (Settings.max_bytes, Settings.max_pixels)
