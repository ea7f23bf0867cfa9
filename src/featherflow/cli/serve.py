"""`featherflow serve` and `featherflow app`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import InputError

if TYPE_CHECKING:
    from ..app import Settings


@dataclass(frozen=True)
class ServiceOptions:
    """Where a service listens, what it offers, and its limits.

    Parameters
    ----------
    host
        Address to listen on; by default only this machine can reach it.
    port
        Port to listen on; 0 takes any free one.
    token
        What requests must bear as 'Authorization: Bearer TOKEN'; a browser is sent to the page with it once and keeps it in a
        cookie. Others on this machine can read a command line, not its variables.
    model
        A model to offer, the first by default; may be given several times. By default all that are there.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    prepare
        On a CPU: once several pairs of one size have come, build the engine openvino in another process, and go on with it if it
        turns out faster.
    max_mebibytes
        Most bytes of one request, in MiB; by default 256 where only this machine can reach the service, else 32.
    max_pixels
        Most pixels of one frame; by default those of 7680x4320 where only this machine can reach the service, else 4194304.
    queue
        Most pairs that wait for their turn.
    seconds
        Longest time from a complete request to its answer.
    transfer_seconds
        Longest time that sending a request, or taking its answer, may last.
    batch
        Most pairs of one size that are estimated together; by default 8 on a GPU and 1 on a CPU.
    connections
        Most connections at a time.
    allow_host
        A name under which a proxy passes requests on (its header Host); may be given several times. On the loopback no others but
        the machine's own are answered, so that no page from elsewhere can pass for one of this service.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: Annotated[str | None, Parameter(env_var="FEATHERFLOW_TOKEN")] = None
    model: list[str] | None = None
    device: str | None = None
    prepare: Annotated[bool, Parameter(negative="")] = False
    max_mebibytes: float | None = None
    max_pixels: int | None = None
    queue: int = 64
    seconds: float = 60
    transfer_seconds: float = 30
    batch: int | None = None
    connections: int = 512
    allow_host: list[str] | None = None

    def settings(self, **more: Any) -> Settings:
        """All of these, and more, as the service takes them."""
        from ..app import Settings
        from ..app.settings import usual_limits

        hosts = tuple(self.allow_host or ())
        most_bytes, most_pixels = usual_limits(self.host, hosts)
        return Settings(
            self.host,
            self.port,
            token=self.token,
            hosts=hosts,
            models=tuple(self.model or ()),
            device=self.device,
            prepare=self.prepare,
            max_bytes=most_bytes if self.max_mebibytes is None else _bytes(self.max_mebibytes),
            max_pixels=most_pixels if self.max_pixels is None else self.max_pixels,
            queue=self.queue,
            seconds=self.seconds,
            transfer_seconds=self.transfer_seconds,
            batch=self.batch,
            connections=self.connections,
            **more,
        )


def _bytes(mebibytes: float) -> int:
    from ..app.settings import MEBIBYTE

    if not math.isfinite(mebibytes):
        raise InputError(f"max mebibytes must be a number above 0, got {mebibytes}.")
    return round(mebibytes * MEBIBYTE)


Service = Annotated[ServiceOptions, Parameter(name="*")]
SERVICE = ServiceOptions()


def serve(*, service: Service = SERVICE) -> None:
    """Answer requests for flow over HTTP, until Ctrl-C or SIGTERM; what is running is finished first.

    Example: featherflow serve --port 8000

    Example: FEATHERFLOW_TOKEN=secret featherflow serve --host 0.0.0.0 --model liteflownet-tied --model dis
    """
    from ..app import serve as run

    run(service.settings())


def page(*, service: Service = SERVICE, browser: bool = True) -> None:
    """Open a page in the browser: drop two frames, look at their flow, read it under the pointer, save it.

    The page is served by this machine and asks nothing of any other. The service of `featherflow serve` runs beside it.

    Example: featherflow app

    Parameters
    ----------
    browser
        Open the page in the default browser.
    """
    from ..app import serve as run

    run(service.settings(page=True, open_browser=browser))
