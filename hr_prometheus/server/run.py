"""From settings to one running process that serves an application and its metrics."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY

from hr_prometheus.errors import HrPrometheusError
from hr_prometheus.exposition.view import check_metrics_path, make_view
from hr_prometheus.server import interrupts, messages
from hr_prometheus.server.addresses import Listening, serve_metrics, take_addresses, tls_context
from hr_prometheus.server.forks import ServingProcesses
from hr_prometheus.server.loops import AUTO, loop_factory
from hr_prometheus.server.script import run_script
from hr_prometheus.server.script_runners import PATIENCE, ScriptRunners, say_that_nothing_is_served
from hr_prometheus.server.service import Service
from hr_prometheus.server.setup import LISTENING, Preparation
from hr_prometheus.server.sockets import address_refused
from hr_prometheus.server.target import Target, close_unawaited, load_target, parse_target
from hr_prometheus.settings import DEFAULT_BACKLOG, DEFAULT_KEEPALIVE_TIMEOUT, DEFAULT_SHUTDOWN_TIMEOUT

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp.web import Application, AppRunner

    from hr_prometheus.settings import Settings


def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve the target and its metrics until SIGINT or SIGTERM; return when all requests have been drained.

    *announce* is called with a line which says what is served where, when both can be reached, and with one for a slow
    start, for a stop that has to wait, and for its end.

    Raises one of the exceptions in :mod:`hr_prometheus.errors`, and :exc:`KeyboardInterrupt` if it is interrupted before
    it serves. Addresses are taken before anything is imported, so a used one is an error before the application has done anything.
    """
    target = parse_target(settings.target)
    check_metrics_path(settings.metrics_path)
    if target.attribute is None:
        _run_script(target, settings, announce)
    else:
        _serve(settings, announce, None, lambda: load_target(target, settings.arguments, settings.app_dir))


def _run_script(target: Target, settings: Settings, announce: Callable[[str], None]) -> None:
    runners = ScriptRunners(settings, announce)
    processes = ServingProcesses(settings.target)

    def say() -> None:
        if not processes.others_serve:
            say_that_nothing_is_served(settings.target, has_runner=runners.are_set_up)

    with interrupts.Raised(), messages.alarm(PATIENCE, say) as serves:
        runners.on_serving = serves

        def run_app(app: Application | Awaitable[Application], **arguments: Any) -> None:
            serves()
            processes.note()
            try:
                _serve(settings, announce, arguments, lambda: app)
            finally:
                close_unawaited(app)

        async def set_up(runner: AppRunner, original: Callable[[AppRunner], Awaitable[None]]) -> None:
            processes.note()
            await runners.set_up(runner, original)

        run_script(target, settings.arguments, settings.app_dir, run_app, set_up)


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
    with (
        interrupts.Raised(),
        ExitStack() as stack,
        messages.alarm(messages.SLOW_START, lambda: announce(messages.starting(preparation.waits_for))) as served,
    ):
        listening = take_addresses(settings, arguments, stack, is_script=preparation.is_script)

        def say(line: str) -> None:
            served()
            announce(line)

        value = source()
        application = _prepared(preparation, value, listening)
        own_loop = arguments.pop("loop", None)
        loop = own_loop or asyncio.new_event_loop() if new_event_loop is None else new_event_loop()
        try:
            Service(preparation, listening, say, arguments).run(application, loop)
        except HrPrometheusError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and preparation.phase == LISTENING:
                raise address_refused(", ".join(listening.texts), error) from error
            raise preparation.failed(error) from error
        finally:
            close_unawaited(application)
            close_unawaited(value)


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
    arguments |= preparation.access_log(arguments)
    arguments.pop("print", None)
    return arguments


def _metrics_site(path: str, sockets: list[socket.socket]) -> Callable[[Application], AsyncIterator[None]]:
    async def context(_app: Application) -> AsyncIterator[None]:
        runner = await serve_metrics(path, make_view(REGISTRY), sockets)
        yield
        await runner.cleanup()

    return context
