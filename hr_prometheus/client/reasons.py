"""Why a request of a client failed: from what its caller saw to a label."""

from __future__ import annotations

import asyncio
import ssl
from inspect import isfunction

from aiohttp import (
    ClientConnectionError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientHttpProxyError,
    ClientOSError,
    ClientPayloadError,
    ClientResponseError,
    ClientSSLError,
    ServerDisconnectedError,
    ServerFingerprintMismatch,
    StreamReader,
    TooManyRedirects,
)
from aiohttp.http_exceptions import ContentEncodingError

from hr_prometheus.metrics import CANCELLED

#: The status of a request that got no head of a response.
NO_STATUS = "error"
OTHER = "other"

#: The reasons, by the exceptions that stand for them. The first that fits counts: a failed look-up is a failed connection, too.
_REASONS: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("timeout", (TimeoutError,)),
    (CANCELLED, (asyncio.CancelledError, GeneratorExit)),
    ("dns", (ClientConnectorDNSError,)),
    ("tls", (ssl.SSLError, ssl.CertificateError, ClientSSLError, ServerFingerprintMismatch)),
    ("connect", (ClientConnectorError, ClientHttpProxyError)),
    ("cut", (ServerDisconnectedError, ClientOSError, ClientPayloadError)),
)
#: How many exceptions are looked at that led to another; a chain may be a circle.
_MOST_CAUSES = 10
#: The code of the methods that read a body.
_READING = {method.__code__ for method in vars(StreamReader).values() if isfunction(method)}
REASONS = (*(reason for reason, _ in _REASONS), OTHER)


def reason_of(error: BaseException) -> str:
    """Return the reason that an exception stands for."""
    if isinstance(error.__cause__, ContentEncodingError):  # the body is complete, but is not compressed as it says
        return OTHER
    return next((reason for reason, kinds in _REASONS if isinstance(error, kinds)), OTHER)


def status_of(error: BaseException) -> int | None:
    """Return the status of the response for which *error* was raised; ``None`` if there was none.

    ``raise_for_status`` raises for one. aiohttp raises the same for a head that it cannot parse, and names the cause; a proxy's
    status, and that of the last of too many redirects, are not the request's.
    """
    if not isinstance(error, ClientResponseError) or isinstance(error, (ClientHttpProxyError, TooManyRedirects)):
        return None
    return error.status if error.__cause__ is None else None


def error_of_body(content: StreamReader, raised: BaseException | None) -> BaseException | None:
    """Return what broke a body off before its end; ``None`` if it is complete, or if its reader had enough.

    aiohttp notes a connection that breaks or is silent. A timeout of the whole request, and a cancellation, only its reader
    sees. *raised* is what is being raised while the response is closed: one of these, or what the reader made of it.
    """
    if content.is_eof():
        return None
    error = content.exception()
    if error is not None and type(error) is not ClientConnectionError:  # which the reader's own close() leaves
        return error
    if isinstance(raised, asyncio.CancelledError):  # also between two reads
        return raised
    for _ in range(_MOST_CAUSES):
        if raised is None or _is_out_of(raised, content):
            return raised
        raised = raised.__cause__ or raised.__context__
    return None


def _is_out_of(error: BaseException, content: StreamReader) -> bool:
    """Whether an exception came out of a method of *content*.

    Of other frames the locals are not asked for: before Python 3.13 that makes a copy, which a frame keeps as long as it runs.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code in _READING and frame.f_locals.get("self") is content:
            return True
        traceback = traceback.tb_next
    return False
