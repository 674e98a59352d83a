"""The handler of the status page, and of the files and data that it asks for.

One route serves them all. The page asks for its files by query, ``?file=status.js``, so that it works at any path, with or
without a trailing slash, and behind a proxy that adds a prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from aiohttp import ETag, hdrs
from aiohttp.web import (
    AppKey,
    HTTPMethodNotAllowed,
    HTTPNotFound,
    HTTPServiceUnavailable,
    Request,
    Response,
    StreamResponse,
    json_response,
)
from prometheus_client import REGISTRY

import hr_prometheus
from hr_prometheus.exposition.view import hrprometheus_view
from hr_prometheus.labels.unrecorded import unrecorded
from hr_prometheus.request.recent import recent_requests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeAlias

    from aiohttp.typedefs import Handler
    from aiohttp.web import Application
    from prometheus_client import CollectorRegistry

    #: Returns recent requests, the latest first.
    Gather: TypeAlias = Callable[[], Awaitable[list[dict[str, Any]]]]

#: The headers of each answer. The page loads nothing from elsewhere, runs no inline script and can be in no frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

#: In an application: the target that it was loaded from. The page has it as its title.
TARGET: AppKey[str] = AppKey("hr_prometheus.target", str)
#: In an application: the path of its metrics, to which the page links.
METRICS_PATH: AppKey[str] = AppKey("hr_prometheus.metrics_path", str)

_PAGE = "index.html"
_RECENT = "recent.json"
_CONTENT_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".LICENSE": "text/plain"}
_PATHS = (_PAGE, "status.js", "status.css", "vendor/uPlot.iife.min.js", "vendor/uPlot.min.css", "vendor/uPlot.LICENSE")


@dataclass(frozen=True)
class _File:
    body: bytes
    content_type: str
    etag: str


_gather: Gather | None = None


def gather_recent_with(gather: Gather) -> None:
    """Have every page of this process list the recent requests that *gather* returns: in a worker, those of all workers."""
    global _gather  # noqa: PLW0603  # there is one in a process
    _gather = gather


def make_status_view(
    metrics_view: Handler = hrprometheus_view, registry: CollectorRegistry = REGISTRY, gather: Gather | None = None
) -> Handler:
    """Make a handler that serves the page, whose data are those of *metrics_view*.

    It answers GET and HEAD. Its requests are never recorded. ``?file=config.json`` is what the page has to know of its
    server, and ``?file=metrics&name[]=…`` is a scrape. ``?file=recent.json``, or a path that ends in ``/recent.json``, are
    the latest slow and failed requests: those of *registry*, or what *gather* returns.
    """

    async def hrprometheus_status_view(request: Request) -> StreamResponse:
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            raise HTTPMethodNotAllowed(request.method, [hdrs.METH_GET, hdrs.METH_HEAD], headers=HEADERS)
        name = request.query.get("file", _RECENT if request.path.endswith(f"/{_RECENT}") else _PAGE)
        if name == "metrics":
            response = await metrics_view(request)
        elif name == "config.json":
            response = json_response(_config(request))
        elif name == _RECENT:
            ask = gather or _gather
            try:
                response = json_response(await ask() if ask else recent_requests(registry).as_list())
            except ConnectionError as error:
                raise HTTPServiceUnavailable(
                    text=f"The requests are unavailable: {error}.\n", headers=HEADERS
                ) from error
        else:
            response = _answer(request, name)
        if not response.prepared:
            response.headers.update(HEADERS)
            response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        return response

    return unrecorded(hrprometheus_status_view)


def add_status_routes(app: Application, path: str, view: Handler) -> None:
    """Serve a status *view* at *path*, and the recent requests at ``recent.json`` below it."""
    app.router.add_get(path, view)
    app.router.add_get(f"{path.rstrip('/')}/{_RECENT}", view)


def _answer(request: Request, name: str) -> Response:
    """Return one of the page's files, or 304 if the client has it."""
    file = _files().get(name)
    if file is None:
        raise HTTPNotFound(text=f'The status page has no file "{name}".\n', headers=HEADERS)
    etags = request.if_none_match or ()
    is_known = any(each.value in (file.etag, "*") for each in etags)
    response = Response(status=304) if is_known else Response(body=file.body)
    if not is_known:
        response.content_type, response.charset = file.content_type, "utf-8"
    response.etag = ETag(file.etag)
    response.headers[hdrs.CACHE_CONTROL] = "no-cache"  # asked for again each time, so that an update is seen at once
    return response


def _config(request: Request) -> dict[str, str]:
    metrics = request.config_dict.get(METRICS_PATH, "")
    return {
        "version": hr_prometheus.__version__,
        "target": request.config_dict.get(TARGET, ""),
        "metrics": metrics and _relative(metrics, request.path),
    }


def _relative(path: str, base: str) -> str:
    """Return the relative URL of *path* in a page at *base*; both begin with a slash."""
    return "./" + "../" * (base.count("/") - 1) + path.removeprefix("/")


@cache
def _files() -> dict[str, _File]:
    """Return the page's files, by the names by which it asks for them."""
    named = {}
    for path in _PATHS:
        body = files("hr_prometheus.status").joinpath("static", path).read_bytes()
        name = path.rpartition("/")[2]
        kind = _CONTENT_TYPES["." + name.rpartition(".")[2]]
        named[name] = _File(body, kind, sha256(body).hexdigest()[:16])
    return named


#: The handler for the global registry, as ``app.router.add_get("/-/status", hrprometheus_status_view)`` uses it.
hrprometheus_status_view = make_status_view()
