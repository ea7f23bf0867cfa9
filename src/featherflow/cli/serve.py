"""`featherflow serve` and `featherflow app`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: Annotated[str | None, Parameter(env_var="FEATHERFLOW_TOKEN")] = None,
    model: list[str] | None = None,
    device: str | None = None,
    max_mebibytes: float = 32,
    max_pixels: int = 1 << 22,
    queue: int = 64,
    seconds: float = 60,
    transfer_seconds: float = 30,
    batch: int | None = None,
    connections: int = 512,
    allow_host: list[str] | None = None,
) -> None:
    """Answer requests for flow over HTTP, until Ctrl-C or SIGTERM; what is running is finished first.

    Example: featherflow serve --port 8000

    Example: FEATHERFLOW_TOKEN=secret featherflow serve --host 0.0.0.0 --model liteflownet2-slim --model dis

    Parameters
    ----------
    host
        Address to listen on; by default only this machine can reach it.
    port
        Port to listen on; 0 takes any free one.
    token
        What requests must bear as 'Authorization: Bearer TOKEN'. Others on this machine can read a command line, not its variables.
    model
        A model to offer, the first by default; may be given several times. By default all that are there.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    max_mebibytes
        Most bytes of one request, in MiB.
    max_pixels
        Most pixels of one frame.
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
    from ..app import Settings
    from ..app import serve as run

    run(
        Settings(
            host,
            port,
            token=token,
            models=tuple(model or ()),
            device=device,
            max_bytes=round(max_mebibytes * 2**20),
            max_pixels=max_pixels,
            queue=queue,
            seconds=seconds,
            transfer_seconds=transfer_seconds,
            batch=batch,
            connections=connections,
            hosts=tuple(allow_host or ()),
        )
    )


def page(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: Annotated[str | None, Parameter(env_var="FEATHERFLOW_TOKEN")] = None,
    model: list[str] | None = None,
    device: str | None = None,
    browser: bool = True,
    allow_host: list[str] | None = None,
) -> None:
    """Open a page in the browser: drop two frames, look at their flow, read it under the pointer, save it.

    The page is served by this machine and asks nothing of any other. The service of `featherflow serve` runs beside it.

    Example: featherflow app

    Parameters
    ----------
    host
        Address to listen on; by default only this machine can reach it.
    port
        Port to listen on; 0 takes any free one.
    model
        A model to offer, the first by default; may be given several times. By default all that are there.
    device
        cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    token
        What the browser must bear; it is opened with it once and keeps it in a cookie. Others on this machine can read a command
        line, not its variables.
    browser
        Open the page in the default browser.
    allow_host
        A name under which a proxy passes requests on; may be given several times.
    """
    from ..app import Settings
    from ..app import serve as run

    run(
        Settings(
            host,
            port,
            page=True,
            open_browser=browser,
            token=token,
            hosts=tuple(allow_host or ()),
            models=tuple(model or ()),
            device=device,
        )
    )
