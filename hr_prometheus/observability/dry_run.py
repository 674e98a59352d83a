"""The application of a target, made as ``run`` makes it but not served."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from hr_prometheus.errors import HrPrometheusError, TargetError
from hr_prometheus.server import interrupts
from hr_prometheus.server.importer import application_error
from hr_prometheus.server.loops import run_in_new_loop
from hr_prometheus.server.runner import Runner
from hr_prometheus.server.script import run_script
from hr_prometheus.server.target import close_unawaited, load_target, make_application, parse_target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aiohttp.web import Application, AppRunner

    from hr_prometheus.server.target import Target
    from hr_prometheus.settings import Settings


def load_application(settings: Settings, *, start: bool = False) -> tuple[Application, bool]:
    """Return the target's application: before its start-up, or after its start-up and clean-up.

    A script ends with the first application that it would serve. With it comes whether the script has runners of its own,
    so that more may follow.

    Raises the exceptions of :mod:`hr_prometheus.errors` that :func:`hr_prometheus.server.run.run` raises for a target.
    """
    target = parse_target(settings.target)
    results: list[tuple[Application | HrPrometheusError, bool]] = []

    async def make(value: object, *, has_runner: bool = False) -> bool:
        """Make an application, or fail; return whether it is the first one."""
        try:
            results.append((await _make(settings.target, value, start=start), has_runner))
        except HrPrometheusError as error:
            results.append((error, has_runner))
        return len(results) == 1

    try:
        with interrupts.DefaultHandler():
            if target.attribute is None:
                _run_script(target, settings, make)
            else:
                value = load_target(target, settings.arguments, settings.app_dir)
                try:
                    run_in_new_loop(lambda: make(value))
                finally:
                    close_unawaited(value)
    except SystemExit:
        pass  # a script may end itself after it has made its application
    except KeyboardInterrupt:  # perhaps ours
        if not results:
            raise
    if not results:
        raise TargetError(f'"{settings.target}" exited before it returned an application, so it has no routes.')
    result, has_runner = results[0]
    if isinstance(result, HrPrometheusError):
        raise result
    return result, has_runner


def _run_script(target: Target, settings: Settings, make: Callable[..., Coroutine[Any, Any, bool]]) -> None:
    """Run a script until it would serve its application, which *make* is called with instead."""

    def run_app(app: Application | Awaitable[object], **arguments: Any) -> None:
        loop = arguments.get("loop")
        try:
            if loop is None:
                run_in_new_loop(lambda: make(app))
            else:
                loop.run_until_complete(make(app))
        finally:
            close_unawaited(app)
        _end_script()

    async def set_up(runner: AppRunner, _original: object) -> None:
        is_first = await make(runner.app, has_runner=True)
        loop = asyncio.get_running_loop()
        if is_first:
            # A task must not raise it, because asyncio logs an exception that nothing retrieves.
            loop.call_soon(_end_script)
        await loop.create_future()

    run_script(target, settings.arguments, settings.app_dir, run_app, set_up)


def _end_script() -> NoReturn:
    """End a script where it would serve its application, and its main thread if it serves in another one."""
    if threading.current_thread() is not threading.main_thread():
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    raise SystemExit


async def _make(target: str, value: object, *, start: bool) -> Application:
    app = await make_application(target, value)
    if start:
        runner = Runner(app)
        try:
            await runner.setup()
            await runner.cleanup()
        except Exception as error:
            raise application_error(f'the application "{target}" failed while it started up', error) from error
    return app
