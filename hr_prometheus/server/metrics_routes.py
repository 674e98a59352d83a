"""What a port of the metrics' own serves: the metrics, two probes, and the status page where that is safe or asked for."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aiohttp.web import Response

from hr_prometheus.exposition.view import check_metrics_path
from hr_prometheus.status.view import METRICS_PATH, TARGET, add_status_routes, make_status_view

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from aiohttp.typedefs import Handler
    from aiohttp.web import Application, Request

    from hr_prometheus.settings import Settings
    from hr_prometheus.status.view import Gather


#: The paths of the probes, as Prometheus has them: whether the process lives, and whether it is to get requests.
HEALTHY, READY = "/-/healthy", "/-/ready"


def check_paths(settings: Settings) -> None:
    """Check that the paths of the metrics and of the page can be served."""
    check_metrics_path(settings.metrics_path)
    if settings.status_path is not None:
        check_metrics_path(settings.status_path, "status_path")


@dataclass(frozen=True)
class MetricsRoutes:
    """The routes of the metrics port. *status_path* is ``None`` where the page is not served.

    *is_ready* says whether the application is served, and not being stopped.
    """

    path: str
    is_ready: Callable[[], bool]
    status_path: str | None = None
    target: str = ""

    def add_to(self, app: Application, view: Handler, gather: Gather | None = None) -> None:
        """Add the routes of a metrics *view*, and of the page that shows its metrics and what *gather* returns."""
        app.router.add_get(self.path, view)
        for path, probe in ((HEALTHY, _answer_healthy), (READY, self._answer_ready)):
            if path != self.path:
                app.router.add_get(path, probe)
        if self.status_path is not None:
            app[TARGET], app[METRICS_PATH] = self.target, self.path
            add_status_routes(app, self.status_path, make_status_view(view, gather=gather))

    async def _answer_ready(self, _request: Request) -> Response:
        if self.is_ready():
            return Response(text="Ready.\n")
        return Response(text="Not ready: the application starts or stops.\n", status=503)


async def _answer_healthy(_request: Request) -> Response:
    return Response(text="Healthy.\n")


def metrics_routes(
    settings: Settings, sockets: Iterable[socket.socket], is_ready: Callable[[], bool] = lambda: True
) -> MetricsRoutes:
    """Return what is served on the bound *sockets* of the metrics port.

    Without ``--status`` or ``--no-status`` the page is served where only this machine can reach it. It is at ``/``, or at
    ``/status`` if the metrics are there.
    """
    is_served = all(map(_is_loopback, sockets)) if settings.status is None else settings.status
    status_path = "/status" if settings.metrics_path == "/" else "/"
    return MetricsRoutes(settings.metrics_path, is_ready, status_path if is_served else None, settings.target)


def _is_loopback(sock: socket.socket) -> bool:
    try:
        host: str = sock.getsockname()[0]
    except OSError:  # closed, because serving the metrics has failed
        return False
    return ip_address(host.partition("%")[0]).is_loopback  # an IPv6 address may have a zone


def where_metrics_are(
    settings: Settings, url: str, metrics_url: str, metrics_sockets: Iterable[socket.socket] = ()
) -> str:
    """Return where the metrics and the page are, for the line of a start. *url* is that of the application.

    Where the page is left out because others could reach it, the option that adds it is named.
    """
    sockets, pages = list(metrics_sockets), []
    if settings.status_path is not None:
        pages.append(url if url.startswith("unix:") else url + settings.status_path)
    routes = metrics_routes(settings, sockets)
    if sockets and routes.status_path is not None:
        pages.append(metrics_url.removesuffix(settings.metrics_path) + routes.status_path)
    if pages:
        return f"metrics on {metrics_url} and a status page on {' and '.join(pages)}"
    hint = " (--status adds a status page)" if sockets and settings.status is None else ""
    return f"metrics on {metrics_url}{hint}"
