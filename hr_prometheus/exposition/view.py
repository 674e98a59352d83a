"""The handler of the metrics route."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from aiohttp import hdrs
from aiohttp.web import HTTPMethodNotAllowed, HTTPServiceUnavailable, Request, Response, StreamResponse
from prometheus_client import REGISTRY

from hr_prometheus.errors import SettingError
from hr_prometheus.exposition.formats import accepts_gzip, choose_format
from hr_prometheus.exposition.scrape import Scrapes
from hr_prometheus.store.store import check_registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from prometheus_client import CollectorRegistry

    #: Returns the parts of a body for an ``Accept`` header, the values of ``name[]``, and whether to gzip it.
    RenderBody: TypeAlias = Callable[[str, tuple[str, ...], bool], Awaitable[list[bytes]]]

# The characters that need no percent-encoding in a path (RFC 3986, 3.3), without the braces of a parameter.
_PATH = r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*"

_views: WeakSet[object] = WeakSet()
_forward: RenderBody | None = None


def forward_to(render_body: RenderBody) -> None:
    """Have every metrics route of this process answer with the bodies of *render_body*: in a worker, the supervisor's."""
    global _forward  # noqa: PLW0603  # there is one in a process
    _forward = render_body


def make_view(
    registry: CollectorRegistry,
    render_body: RenderBody | None = None,
    *,
    beside: asyncio.AbstractEventLoop | None = None,
) -> Callable[[Request], Awaitable[StreamResponse]]:
    """Make a handler that answers GET and HEAD with the metrics of *registry*, or with the bodies of *render_body*.

    The format follows ``Accept``, and gzip follows ``Accept-Encoding``. Each ``name[]`` in the query selects the samples of
    that name. Any other method is answered with 405, and a scrape too many with 503. The handler may run in a thread *beside*
    the application's loop, in which collectors are then called that need it.
    """
    check_registry(registry)
    scrapes: WeakKeyDictionary[asyncio.AbstractEventLoop, Scrapes] = WeakKeyDictionary()

    async def hrprometheus_view(request: Request) -> StreamResponse:
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            raise HTTPMethodNotAllowed(request.method, [hdrs.METH_GET, hdrs.METH_HEAD])
        accept = _joined(request, hdrs.ACCEPT)
        names = tuple(sorted(set(request.query.getall("name[]", []))))
        form = choose_format(accept, names)
        is_gzip = accepts_gzip(_joined(request, hdrs.ACCEPT_ENCODING))
        if render := render_body or _forward:
            try:
                parts = await render(accept, names, is_gzip)
            except ConnectionError as error:
                raise HTTPServiceUnavailable(text=f"The metrics are unavailable: {error}.\n") from error
        else:
            loop = asyncio.get_running_loop()
            if loop not in scrapes:
                scrapes[loop] = Scrapes(registry, beside=beside)
            parts = await scrapes[loop].body(form, names, is_gzip=is_gzip)
        headers = {hdrs.CONTENT_TYPE: form.content_type, hdrs.VARY: "Accept, Accept-Encoding"}
        if is_gzip:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        if len(parts) == 1:
            return Response(body=parts[0], headers=headers)
        headers[hdrs.CONTENT_LENGTH] = str(sum(map(len, parts)))
        response = StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method == hdrs.METH_GET:
            for part in parts:
                await response.write(part)
                await asyncio.sleep(0)  # write() takes its time, and waits only when the buffer is full
        return response

    _views.add(hrprometheus_view)
    return hrprometheus_view


def _joined(request: Request, name: str) -> str:
    """Return the lists of all headers of that name as one. No aiohttp but 3.x takes a default for none."""
    return ",".join(request.headers.getall(name)) if name in request.headers else ""


def check_metrics_path(path: str, setting: str = "metrics_path") -> None:
    """Check that *path*, the value of a *setting*, can be the path of a metrics route."""
    if not isinstance(path, str) or not re.fullmatch(_PATH, path):
        raise SettingError(
            setting,
            f'{setting}="{path}"',
            ' cannot be served. Expected a path that begins with "/", without parameters, query or percent-escapes.',
        )


def is_view(handler: object) -> bool:
    """Whether *handler* was made by :func:`make_view`."""
    return handler in _views


#: The handler for the global registry, as ``app.router.add_get("/metrics", hrprometheus_view)`` uses it.
hrprometheus_view = make_view(REGISTRY)
