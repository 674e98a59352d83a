"""One application in one process, from its start to its stop: what ``web.run_app`` does, with words for both."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack, suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from aiohttp.web import GracefulExit, SockSite, UnixSite

from hr_prometheus.server import interrupts, messages
from hr_prometheus.server.deadline import Deadline
from hr_prometheus.server.loops import loop_name
from hr_prometheus.server.runner import CLEANUP_SECONDS, Runner, described, hanging
from hr_prometheus.server.setup import RUNNING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiohttp.web import Application

    from hr_prometheus.server.addresses import Listening
    from hr_prometheus.server.runner import InProgress
    from hr_prometheus.server.setup import Preparation

#: Seconds for the tasks of an application whose start was interrupted.
_LAST_SECONDS = 5.0
#: Seconds for tasks that go on when they have been cancelled, after a second signal.
_LAST_MOMENT = 0.5
#: aiohttp's time for requests in progress where a script does not say.
_PATIENCE = 60.0


class Service:
    """Serves an application until it is stopped. *arguments* are those of ``run_app``, without addresses."""

    def __init__(
        self,
        preparation: Preparation,
        listening: Listening,
        announce: Callable[[str], None],
        arguments: dict[str, Any],
    ) -> None:
        self._preparation, self._listening, self._announce = preparation, listening, announce
        self._arguments = arguments
        patience = arguments.pop("shutdown_timeout", _PATIENCE)
        self._patience: float = inf if patience is None else patience
        self._takes_signals: bool = arguments.pop("handle_signals", True)
        self._site = {name: arguments.pop(name) for name in ("ssl_context", "backlog") if name in arguments}
        for name in ("reuse_port", "reuse_address"):  # the sockets are bound
            arguments.pop(name, None)
        self._runner: Runner | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._stopping_since = 0.0
        self._is_serving = self._is_hurried = False
        self._deadline = Deadline(lambda: self._announce(messages.stopped(self._stopping_since, self._hanging())))
        #: Says what a stop waits for that is slow.
        self._slow = ExitStack()

    def run(self, application: Coroutine[Any, Any, Application], loop: asyncio.AbstractEventLoop) -> None:
        """Serve in *loop*, and close it. Raises :exc:`KeyboardInterrupt` for an interruption before it served."""
        asyncio.set_event_loop(loop)
        main = self._main = loop.create_task(self._serve(application))
        is_interrupted = False
        try:
            self._take(signal.SIGTERM, signal.SIGHUP)
            loop.run_until_complete(main)
        except (GracefulExit, KeyboardInterrupt) as error:
            is_interrupted = isinstance(error, KeyboardInterrupt) and not self._is_serving
            if is_interrupted:
                loop.set_exception_handler(lambda _loop, _context: None)  # which would show where it was interrupted
                raise
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        finally:
            try:
                if not (main.done() or is_interrupted):
                    main.cancel()
                    with suppress(asyncio.CancelledError):
                        loop.run_until_complete(main)
            finally:
                if self._is_hurried:
                    self._deadline.set(_LAST_MOMENT)
                try:
                    _end(asyncio.all_tasks(loop), loop, _LAST_SECONDS if is_interrupted else None)
                    loop.run_until_complete(loop.shutdown_asyncgens())
                    loop.close()
                finally:
                    self._slow.close()
                    if self._preparation.is_script:  # which may go on; else only threads are left
                        self._deadline.lift()
        if self._is_serving:
            self._announce(messages.stopped(self._stopping_since))

    async def _serve(self, application: Coroutine[Any, Any, Application]) -> None:
        before = signal.getsignal(signal.SIGINT)
        app = await application
        runner = Runner(
            app,
            patience=self._patience,
            on_stop=self._stop_begins,
            on_cleanup=self._cleanup_begins,
            **self._arguments,
        )
        await runner.setup()
        try:
            for sock in self._listening.sockets:
                await SockSite(runner, sock, **self._site).start()
            for path in self._listening.paths:
                await UnixSite(runner, path, **self._site).start()
            self._runner = runner
            self._is_serving = True
            interrupts.served()
            if signal.getsignal(signal.SIGINT) == before:  # else the application has a handler of its own
                self._take(signal.SIGINT)
            self._preparation.phase = RUNNING
            loop = loop_name(asyncio.get_running_loop())
            self._announce(messages.serving(self._listening.announcement(self._preparation.what()), loop))
            self._preparation.say_notices()
            await self._stopping.wait()
        finally:
            self._stopping_since = self._stopping_since or monotonic()
            await runner.cleanup()

    def _take(self, *numbers: int) -> None:
        """Stop at these signals. SIGHUP is left alone if the application handles it, or is to ignore it, as with nohup."""
        assert self._main is not None  # noqa: S101  # it runs
        loop = self._main.get_loop()
        for number in numbers if self._takes_signals else ():
            if number != signal.SIGHUP or signal.getsignal(number) == signal.SIG_DFL:
                with suppress(NotImplementedError, ValueError, RuntimeError):  # not in this thread or by this loop
                    loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: int) -> None:
        assert self._main is not None  # noqa: S101  # it runs
        if not self._stopping.is_set():
            self._stopping.set()
            self._stopping_since = monotonic()
            self._deadline.set(self._patience + CLEANUP_SECONDS)
            if not self._is_serving:
                self._main.cancel()
        elif number == signal.SIGHUP:
            pass  # the shell and the system send one each when a terminal is closed
        elif self._runner is not None and self._runner.is_waiting:
            self._is_hurried = True
            self._runner.hurry()
        else:
            self._is_hurried = True
            self._deadline.set(_LAST_MOMENT)
            self._main.cancel()

    def _stop_begins(self, requests: list[InProgress]) -> None:
        if requests and self._patience:
            self._announce(messages.stopping(described(requests), self._patience))
        else:
            self._say_if_slow(self._patience + CLEANUP_SECONDS)

    def _cleanup_begins(self) -> None:
        self._deadline.set(CLEANUP_SECONDS)
        self._say_if_slow(CLEANUP_SECONDS)

    def _say_if_slow(self, seconds: float) -> None:
        def say() -> None:
            self._announce(messages.stopping(self._hanging(), seconds))

        self._slow.close()
        self._slow.enter_context(messages.alarm(messages.SLOW_CLEANUP, say))

    def _hanging(self) -> str:
        assert self._main is not None  # noqa: S101  # it runs
        return hanging(self._main.get_loop())


def _end(tasks: set[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop, seconds: float | None = None) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=seconds))
