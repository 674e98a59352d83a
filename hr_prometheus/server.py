"""From settings to one running process that serves an application and its metrics."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from aiohttp.web import Application, run_app
from prometheus_client import REGISTRY

from hr_prometheus import addresses, loading
from hr_prometheus.config import DEFAULT_BACKLOG, DEFAULT_KEEPALIVE_TIMEOUT, DEFAULT_SHUTDOWN_TIMEOUT
from hr_prometheus.errors import HrPrometheusError
from hr_prometheus.listening import Listening, serve_metrics, take_addresses, tls_context
from hr_prometheus.loops import AUTO, loop_factory
from hr_prometheus.preparing import LISTENING, RUNNING, Preparation
from hr_prometheus.view import check_metrics_path, make_view

if TYPE_CHECKING:
    import socket
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
                _serve(settings, announce, arguments, lambda: app)
            finally:
                loading.close(app)

        loading.run_script(target, settings.arguments, settings.app_dir, run_app_of_script)
    else:
        _serve(settings, announce, None, lambda: loading.load(target, settings.arguments, settings.app_dir))


def _serve(
    settings: Settings,
    announce: Callable[[str], None],
    script_arguments: dict[str, Any] | None,
    source: Callable[[], Application | Awaitable[object]],
) -> None:
    """Take the addresses, get the application from *source* and run it.

    *script_arguments* are those with which a script called ``run_app``; a flag wins over each. Without a script
    there are the launcher's own defaults.
    """
    preparation = Preparation(settings, is_script=script_arguments is not None)
    arguments = _run_app_arguments(preparation, script_arguments)
    has_own_loop = preparation.is_script and settings.loop is None
    new_event_loop = None if has_own_loop else loop_factory(settings.loop or AUTO)
    with ExitStack() as stack:
        listening = take_addresses(settings, arguments, stack, is_script=preparation.is_script)

        def running(*_args: object) -> None:
            """Take the place of ``print`` in ``run_app``, which calls it when the application can be reached."""
            preparation.phase = RUNNING
            announce(listening.announcement(preparation.what()))
            for notice in preparation.notices:
                logger.warning("%s", notice)

        value = source()
        application = _prepared(preparation, value, listening)
        if new_event_loop is not None:
            arguments["loop"] = new_event_loop()
        try:
            run_app(application, sock=listening.sockets, path=listening.paths or None, print=running, **arguments)
        except HrPrometheusError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and preparation.phase == LISTENING:
                raise addresses.refused(", ".join(listening.texts), error) from error
            raise preparation.failed(error) from error
        finally:
            loading.close(application)
            loading.close(value)


async def _prepared(
    preparation: Preparation, value: Application | Awaitable[object], listening: Listening
) -> Application:
    path = preparation.settings.metrics_path
    if not listening.metrics_sockets:
        return await preparation.prepare(value, metrics_path=path)
    return await preparation.prepare(value, metrics_path=None, context=_metrics_site(path, listening.metrics_sockets))


def _run_app_arguments(preparation: Preparation, script_arguments: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments for ``run_app``, the addresses among them as they were written."""
    settings = preparation.settings
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
        "ssl_context": tls_context(settings),
    }
    arguments = dict(defaults if script_arguments is None else script_arguments)
    arguments |= {name: value for name, value in flags.items() if value is not None}
    if arguments.get("shutdown_timeout") == 0:
        arguments["shutdown_timeout"] = 0.001  # aiohttp takes 0 as: without end
    arguments |= preparation.access_log(arguments)
    arguments.pop("print", None)
    return arguments


def _metrics_site(path: str, sockets: list[socket.socket]) -> Callable[[Application], AsyncIterator[None]]:
    async def context(_app: Application) -> AsyncIterator[None]:
        runner = await serve_metrics(path, make_view(REGISTRY), sockets)
        yield
        await runner.cleanup()

    return context
