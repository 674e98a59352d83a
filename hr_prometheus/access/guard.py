"""Asks each request to the metrics port for its credentials."""

from __future__ import annotations

import asyncio
import hmac
from base64 import b64decode
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import HTTPClientError, HTTPTooManyRequests, HTTPUnauthorized, middleware
from multidict import CIMultiDict

from hr_prometheus.access.access import CurrentAccess, read_access
from hr_prometheus.access.files import read_file
from hr_prometheus.access.passwords import Passwords, TooManyPasswordsError
from hr_prometheus.access.rate_limit import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler
    from aiohttp.web import Application, Request, StreamResponse

    from hr_prometheus.access.access import Access
    from hr_prometheus.settings import Settings


def check_access(settings: Settings) -> Access:
    """Check the files that say who may come to the metrics port, and return what they say."""
    return read_access(settings, read_file)


class Guard:
    """Lets in who may come to the metrics port of *settings*, and reads its files again when they change.

    Raises what :func:`~hr_prometheus.access.access.read_access` raises.
    """

    def __init__(self, settings: Settings) -> None:
        self._current = CurrentAccess(settings)
        self._current.warn()
        self._passwords = Passwords()
        self._bucket: TokenBucket | None = None
        #: The context for the port, which follows the current settings; ``None`` without TLS.
        self.tls = self._current.tls

    def add_to(self, app: Application) -> None:
        """Have all requests to *app*, also those to no route, checked before anything else."""

        @middleware
        async def check(request: Request, handler: Handler) -> StreamResponse:
            refusal = await self._refusal(self._current.get(), request)
            if refusal is None:
                return await handler(request)
            refusal.force_close()  # another guess takes another connection
            raise refusal

        async def add_headers(_request: Request, response: StreamResponse) -> None:
            for name, value in self._current.get().headers.items():
                response.headers.setdefault(name, value)

        app.middlewares.insert(0, check)
        app.on_response_prepare.append(add_headers)

    async def _refusal(self, access: Access, request: Request) -> HTTPClientError | None:
        if not self._is_within_limit(access):
            return _too_many_requests()
        try:
            return None if await self._is_allowed(access, request) else _unauthorized(access)
        except TooManyPasswordsError:
            return _too_many_requests()

    def _is_within_limit(self, access: Access) -> bool:
        """Whether one more request is within the rate limit, if there is one."""
        if access.rate_limit is None:
            return True
        now = asyncio.get_running_loop().time()
        if self._bucket is None or self._bucket.limit != access.rate_limit:
            self._bucket = TokenBucket(access.rate_limit, now)
        return self._bucket.take(now)

    async def _is_allowed(self, access: Access, request: Request) -> bool:
        if access.token is None and not access.users:
            return True
        header = request.headers.get(hdrs.AUTHORIZATION, "").encode(errors="surrogateescape")
        scheme, _, credentials = header.partition(b" ")
        if scheme.lower() == b"bearer" and access.token is not None:
            return hmac.compare_digest(credentials.strip(), access.token)
        if scheme.lower() == b"basic" and access.users:
            return await self._is_user(access, credentials.strip(), lambda: _is_connected(request))
        return False

    async def _is_user(self, access: Access, credentials: bytes, is_connected: Callable[[], bool]) -> bool:
        try:
            name, colon, password = b64decode(credentials, validate=True).partition(b":")
        except ValueError:
            return False
        return bool(colon) and await self._passwords.is_right(access.users, name, password, is_connected)


def _is_connected(request: Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _unauthorized(access: Access) -> HTTPUnauthorized:
    headers: CIMultiDict[str] = CIMultiDict()
    if access.users:
        headers.add(hdrs.WWW_AUTHENTICATE, 'Basic realm="metrics", charset="UTF-8"')
    if access.token is not None:
        headers.add(hdrs.WWW_AUTHENTICATE, 'Bearer realm="metrics"')
    return HTTPUnauthorized(text="Unauthorized\n", headers=headers)


def _too_many_requests() -> HTTPTooManyRequests:
    return HTTPTooManyRequests(text="Too Many Requests\n", headers={hdrs.RETRY_AFTER: "1"})
