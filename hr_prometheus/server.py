"""From settings to one running process that serves an application and its metrics."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from aiohttp.log import access_logger
from aiohttp.web import Application, AppRunner, SockSite, UrlDispatcher, run_app
from aiohttp.web_log import AccessLogger
from prometheus_client import REGISTRY

from hr_prometheus import addresses, loading
from hr_prometheus.access_log import access_log_class
from hr_prometheus.catalog import FULL
from hr_prometheus.config import (
    DEFAULT_BACKLOG,
    DEFAULT_HOST,
    DEFAULT_KEEPALIVE_TIMEOUT,
    DEFAULT_LOG_LEVEL,
    DEFAULT_PORT,
    DEFAULT_SHUTDOWN_TIMEOUT,
)
from hr_prometheus.errors import ConfigurationError, HrPrometheusError, ServingError, TargetError
from hr_prometheus.instrument import instrument
from hr_prometheus.monitors import BaseRequestMonitor
from hr_prometheus.policies import Policies
from hr_prometheus.view import check_metrics_path, make_view

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hr_prometheus.config import Settings

logger = logging.getLogger("hr_prometheus")


def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve the target and its metrics until SIGINT or SIGTERM; return when all requests have been drained.

    *announce* is called once, with one line which says what is served where, when both can be reached.

    Raises one of the exceptions in :mod:`hr_prometheus.errors`. Addresses are taken before anything is imported,
    so one that is in use is found before the application has done anything.
    """
    target = loading.parse_target(settings.target)
    check_metrics_path(settings.metrics_path)
    if target.attribute is None:

        def run_app_of_script(app: Application | Awaitable[Application], **arguments: Any) -> None:
            try:
                _Server(settings, announce, arguments).serve(lambda: app)
            finally:
                loading.close(app)

        loading.run_script(target, settings.arguments, settings.app_dir, run_app_of_script)
    else:
        server = _Server(settings, announce, None)
        server.serve(lambda: loading.load(target, settings.arguments, settings.app_dir))


class _Server:
    """One run of one application.

    *arguments* are those with which a script called ``run_app``; a flag wins over each. Without a script there
    are the launcher's own defaults.
    """

    def __init__(self, settings: Settings, announce: Callable[[str], None], arguments: dict[str, Any] | None) -> None:
        self.settings = settings
        self.announce = announce
        self.is_script = arguments is not None
        self.arguments = dict(arguments or {})
        self.phase = "while it was set up"
        self.app: Application | None = None
        self.routes = 0
        self.addresses: list[str] = []
        self.metrics_address = ""

    def serve(self, source: Callable[[], Application | Awaitable[object]]) -> None:
        """Take the addresses, get the application from *source* and run it."""
        with ExitStack() as stack:
            arguments = self._run_app_arguments()
            sockets, metrics_sockets = self._take_addresses(arguments, stack)
            value = source()
            application = self._prepared(value, metrics_sockets)
            try:
                run_app(application, sock=sockets, print=self._announce, **arguments)
            except HrPrometheusError:
                raise
            except Exception as error:
                if isinstance(error, OSError) and self.phase == "listening":
                    raise addresses.refused(", ".join(self.addresses), error) from error
                what = f'the application "{self.settings.target}" failed {self.phase}'
                raise loading.application_error(what, error) from error
            finally:
                loading.close(application)
                loading.close(value)

    async def _prepared(
        self, value: Application | Awaitable[object], metrics_sockets: list[socket.socket]
    ) -> Application:
        """Return the application, instrumented. Runs in the loop which serves, and so does an async factory."""
        settings = self.settings
        app = await loading.application(settings.target, value)
        self._configure_logging()
        if isinstance(app.router, UrlDispatcher):  # the application may have a router of its own
            self.routes = sum(route.method != hdrs.METH_HEAD for route in app.router.routes())
        Policies(settings.fixed_routes, settings.allow_values).check(app)
        instrument(
            app,
            metrics_path=None if metrics_sockets else settings.metrics_path,
            fixed_routes_parameters=settings.fixed_routes,
            allow_values=settings.allow_values,
            request_monitor=_monitor(settings),
            path_budget=settings.path_budget,
            buckets=settings.buckets,
            metric_prefix=settings.metric_prefix,
            detail=settings.detail or FULL,
            exclude=settings.exclude,
        )
        if metrics_sockets:
            # The first context is entered before the application's own start-up and left after its clean-up.
            app.cleanup_ctx.insert(0, _metrics_site(settings.metrics_path, metrics_sockets))
        app.on_startup.insert(0, self._entering("while it started up"))
        app.on_startup.append(self._entering("listening"))
        self.app = app
        return app

    def _entering(self, phase: str) -> Callable[[Application], Awaitable[None]]:
        async def enter(_app: Application) -> None:
            self.phase = phase

        return enter

    def _announce(self, *_args: object) -> None:
        """Take the place of ``print`` in ``run_app``, which calls it when the application can be reached."""
        self.phase = "while it ran or stopped"
        self.announce(
            f"hr-prometheus: {self.settings.target} ({self.routes} route{'s' * (self.routes != 1)}) on "
            f"{', '.join(self.addresses)}, metrics on {self.metrics_address}"
        )

    def _run_app_arguments(self) -> dict[str, Any]:
        """Return the arguments for ``run_app``, the addresses among them as they were written."""
        settings = self.settings
        defaults: dict[str, Any] = {
            "backlog": DEFAULT_BACKLOG,
            "shutdown_timeout": DEFAULT_SHUTDOWN_TIMEOUT,
            "keepalive_timeout": DEFAULT_KEEPALIVE_TIMEOUT,
            "access_log": None,
        }
        flags = {
            "backlog": settings.backlog,
            "reuse_port": settings.reuse_port,
            "shutdown_timeout": settings.shutdown_timeout,
            "keepalive_timeout": settings.keepalive_timeout,
            "ssl_context": _tls(settings),
        }
        arguments = {} if self.is_script else defaults
        arguments |= self.arguments
        arguments |= {name: value for name, value in flags.items() if value is not None}
        if arguments.get("shutdown_timeout") == 0:
            arguments["shutdown_timeout"] = 0.001  # aiohttp takes 0 as: without end
        if settings.access_log is not None:
            arguments["access_log"] = access_logger if settings.access_log else None
        # The access log is where aiohttp shows the requests that its parser refuses. With access logs off it is
        # given a logger that nothing is logged to.
        base = arguments.get("access_log_class", AccessLogger) if arguments.get("access_log", access_logger) else None
        arguments["access_log_class"] = access_log_class(lambda: self.app, base)
        if base is None:
            arguments["access_log"] = logger
        arguments.pop("print", None)
        return arguments

    def _take_addresses(
        self, arguments: dict[str, Any], stack: ExitStack
    ) -> tuple[list[socket.socket], list[socket.socket]]:
        """Move the addresses out of *arguments* and bind them; return the sockets of application and metrics."""
        settings = self.settings
        is_tls = arguments.get("ssl_context") is not None
        host, port, paths, sockets = _where(settings, arguments, is_script=self.is_script)
        if port is None and (host is not None or not (paths or sockets)):
            port = 8443 if is_tls and self.is_script else DEFAULT_PORT  # as run_app has it
        if settings.metrics_port is not None and settings.metrics_port == port != 0:
            raise ConfigurationError(
                f"--metrics-port {port} is the application's port. Choose another one, or leave the option out to "
                f"serve the metrics on the application's port at {settings.metrics_path}."
            )
        if port is not None:
            reuse_address = arguments.pop("reuse_address", None) is not False
            bound = addresses.bind(
                host, port, reuse_address=reuse_address, reuse_port=bool(arguments.get("reuse_port"))
            )
            sockets = [*bound, *sockets]
        for path in paths:
            addresses.check_unix_path(path)
            stack.callback(addresses.remove_unix_path, path)
        metrics_sockets: list[socket.socket] = []
        if settings.metrics_port is not None:
            metrics_host = settings.metrics_host or (host if port is not None else DEFAULT_HOST)
            metrics_sockets = addresses.bind(metrics_host, settings.metrics_port)
        for each in (*sockets, *metrics_sockets):
            stack.callback(each.close)
        arguments["path"] = paths or None
        scheme = "https" if is_tls else "http"
        self.addresses = [addresses.url(each, scheme) for each in sockets] + [f"unix:{path}" for path in paths]
        where = addresses.url(metrics_sockets[0], "http") if metrics_sockets else self.addresses[0]
        self.metrics_address = where + ("" if not metrics_sockets and not sockets else settings.metrics_path)
        return sockets, metrics_sockets

    def _configure_logging(self) -> None:
        """Set up logging where the application has not; a script's logging is its own."""
        level = self.settings.log_level
        if level is not None or not self.is_script:
            logging.basicConfig(
                level=(level or DEFAULT_LOG_LEVEL).upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
            )
        if level is not None:
            logging.getLogger().setLevel(level.upper())
        if self.settings.access_log:
            access_logger.setLevel(logging.INFO)


def _where(
    settings: Settings, arguments: dict[str, Any], *, is_script: bool
) -> tuple[Any, int | None, list[str], list[socket.socket]]:
    """Move host, port, paths and sockets out of ``run_app``'s *arguments*; a flag replaces them."""
    host, port, path, sock = (arguments.pop(name, None) for name in ("host", "port", "path", "sock"))
    if settings.host is not None or settings.port is not None:
        path = sock = None
    elif settings.unix_path is not None:
        host = port = path = sock = None
    host = settings.host or host
    port = settings.port if settings.port is not None else port and int(port)  # asyncio takes a string as well
    path = settings.unix_path or path
    if not is_script and host is None and (port is not None or path is None):
        host = DEFAULT_HOST
    paths = [path] if isinstance(path, str | os.PathLike) else list(path or ())
    sockets = [sock] if isinstance(sock, socket.socket) else list(sock or ())
    return host, port, [os.fspath(each) for each in paths], sockets


def _metrics_site(path: str, sockets: list[socket.socket]) -> Callable[[Application], AsyncIterator[None]]:
    async def serve_metrics(_app: Application) -> AsyncIterator[None]:
        app = Application()
        app.router.add_get(path, make_view(REGISTRY))
        runner = AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        for each in sockets:
            try:
                await SockSite(runner, each).start()
            except OSError as error:
                raise addresses.refused(addresses.url(each, "http"), error) from error
        yield
        await runner.cleanup()

    return serve_metrics


def _monitor(settings: Settings) -> type[BaseRequestMonitor] | None:
    if settings.monitor is None:
        return None
    try:
        value = loading.load_attribute(loading.parse_target(settings.monitor), settings.app_dir)
    except TargetError as error:
        raise ConfigurationError(f"--monitor: {error}") from None
    if not (isinstance(value, type) and issubclass(value, BaseRequestMonitor)):
        raise ConfigurationError(
            f'--monitor "{settings.monitor}" is no monitor. Expected a class that inherits '
            "hr_prometheus.monitors.BaseRequestMonitor."
        )
    return value


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.certfile is None:
        return None
    import ssl  # noqa: PLC0415  # not everyone has or needs it

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An encrypted key would be asked for on the terminal; here it is refused.
        context.load_cert_chain(settings.certfile, settings.keyfile, password="")
    except OSError as error:  # ssl.SSLError is one
        files = f'--certfile "{settings.certfile}"' + (f' --keyfile "{settings.keyfile}"' if settings.keyfile else "")
        reason: str | None = error.strerror
        if isinstance(error, ssl.SSLError):
            reason = f"they are no certificate and its own, unencrypted key ({error.reason})"
        raise ServingError(
            f"{files}: {reason}. Expected a certificate chain and its private key in PEM format."
        ) from error
    return context
