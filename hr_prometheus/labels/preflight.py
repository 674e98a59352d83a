"""What a preflight for CORS asks about: it has no route of its own, but a middleware of the application's may answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import HTTPMethodNotAllowed, UrlDispatcher

if TYPE_CHECKING:
    from aiohttp.web import AbstractResource, Request


def resource_of_preflight(request: Request) -> AbstractResource | None:
    """Return the resource of the same request with the method that a preflight announces; ``None`` for all else.

    A resource of the application's own that cannot say at once what matches is left out.
    """
    method = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
    if not (method and isinstance(request.match_info.http_exception, HTTPMethodNotAllowed)):
        return None
    try:
        router = request.match_info.apps[0].router
        if not isinstance(router, UrlDispatcher):
            return None
        resolving = router.resolve(request.clone(method=method))
        try:
            resolving.send(None)
        except StopIteration as resolved:
            return resolved.value.route.resource  # type: ignore[no-any-return]
        finally:
            resolving.close()
    except Exception:  # noqa: BLE001  # a request that was read cannot be cloned, a rule may be anything, a test may use stand-ins
        return None
    return None
