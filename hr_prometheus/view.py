"""The handler of the metrics route."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from weakref import WeakSet

from aiohttp import hdrs
from aiohttp.web import ContentCoding, HTTPMethodNotAllowed, HTTPServiceUnavailable, Request, Response
from prometheus_client import REGISTRY

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.exposition import accepts_gzip, choose_format

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from prometheus_client import CollectorRegistry

    #: Returns the body of a scrape for an ``Accept`` header and the names of ``name[]``.
    Source: TypeAlias = Callable[[str, Sequence[str]], Awaitable[bytes]]

# What needs no percent-encoding in a path (RFC 3986, 3.3), less the braces of a parameter.
_PATH = r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*"

#: Bodies of more bytes than this are compressed in a thread.
_COMPRESS_IN_THREAD = 4096


_views: WeakSet[object] = WeakSet()
_elsewhere: Source | None = None


def forward_to(source: Source) -> None:
    """Have every metrics route of this process answer with what *source* says: of one worker, with that of all."""
    global _elsewhere  # noqa: PLW0603  # there is one truth in a process
    _elsewhere = source


def make_view(registry: CollectorRegistry, source: Source | None = None) -> Callable[[Request], Awaitable[Response]]:
    """Make a handler that answers GET and HEAD with the metrics of *registry*, or with what *source* says.

    The format follows ``Accept``, gzip follows ``Accept-Encoding``, and each ``name[]`` in the query names a
    sample to be returned alone. Any other method is answered with 405.
    """

    async def hrprometheus_view(request: Request) -> Response:
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            raise HTTPMethodNotAllowed(request.method, [hdrs.METH_GET, hdrs.METH_HEAD])
        accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
        form = choose_format(accept)
        names = request.query.getall("name[]", [])
        if ask := source or _elsewhere:
            try:
                body = await ask(accept, names)
            except ConnectionError as error:
                raise HTTPServiceUnavailable(text=f"The metrics are not to be had: {error}.") from error
        else:
            body = form.render(registry.restricted_registry(names) if names else registry)
        response = Response(
            body=body,
            headers={hdrs.CONTENT_TYPE: form.content_type, hdrs.VARY: "Accept, Accept-Encoding"},
            zlib_executor_size=_COMPRESS_IN_THREAD,
        )
        if accepts_gzip(",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, []))):
            response.enable_compression(ContentCoding.gzip)
        return response

    _views.add(hrprometheus_view)
    return hrprometheus_view


def check_metrics_path(path: str) -> None:
    """Check that *path* can be the path of a metrics route."""
    if not re.fullmatch(_PATH, path):
        raise ConfigurationError(
            f'the metrics path "{path}" cannot be served. Expected one that begins with "/", without parameters, '
            "query or percent-escapes."
        )


def is_view(handler: object) -> bool:
    """Whether *handler* was made by :func:`make_view`."""
    return handler in _views


#: The handler for the global registry, as ``app.router.add_get("/metrics", hrprometheus_view)`` uses it.
hrprometheus_view = make_view(REGISTRY)
