"""The HTTP service and the page (extra `serve`).

`serve` runs them until it is told to stop; `create_app` makes the ASGI application for a server of your own. Both take a
`Settings`. Nothing is imported from here by the rest of the package, and FastAPI only with the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MissingExtraError
from .settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Settings", "create_app", "serve"]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application: the service, and with `settings.page` the page.

    Raises:
        InputError: for settings that cannot be used; MissingExtraError: without the extra `serve`.
    """
    _check_extra()
    from .service import create_app as create

    return create(settings or Settings())


def serve(settings: Settings | None = None) -> None:
    """Load the default network, listen, and answer until SIGINT or SIGTERM; then finish what is running and return.

    Raises:
        InputError: for settings that cannot be used, such as a port that is taken; MissingExtraError: without the extra `serve`;
        WeightsError: for a model without weights.
    """
    _check_extra()
    from .server import serve as run

    run(settings or Settings())


def _check_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "The service and the page need FastAPI and uvicorn; install them with: pip install 'featherflow[serve]'"
        ) from None
