"""Asks each request to the metrics port for its credentials."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import HTTPUnauthorized, middleware

from hr_prometheus.access.access import CurrentAccess

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler
    from aiohttp.web import Application, Request, StreamResponse

    from hr_prometheus.access.access import Access
    from hr_prometheus.settings import Settings


def check_access(settings: Settings) -> None:
    """Check the files that say who may come to the metrics port."""
    CurrentAccess(settings)


class Guard:
    """Lets in who may come to the metrics port of *settings*, and reads its files again when they change.

    Raises what :func:`~hr_prometheus.access.access.read_access` raises.
    """

    def __init__(self, settings: Settings) -> None:
        self._current = CurrentAccess(settings)
        #: The context for the port, whose certificate is always the current one; ``None`` without TLS.
        self.tls = self._current.tls

    def add_to(self, app: Application) -> None:
        """Have all requests to *app*, also those to no route, checked before anything else."""

        @middleware
        async def check(request: Request, handler: Handler) -> StreamResponse:
            access = self._current.get()
            if not _is_allowed(access, request):
                raise _refusal()
            return await handler(request)

        app.middlewares.insert(0, check)


def _is_allowed(access: Access, request: Request) -> bool:
    if access.token is None:
        return True
    scheme, _, credentials = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    given = credentials.strip().encode(errors="surrogateescape")
    return scheme.lower() == "bearer" and hmac.compare_digest(given, access.token)


def _refusal() -> HTTPUnauthorized:
    return HTTPUnauthorized(text="Unauthorized\n", headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="metrics"'})
