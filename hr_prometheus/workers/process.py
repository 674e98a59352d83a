"""One worker as the supervisor sees it: its process, its control channel, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from hr_prometheus import errors
from hr_prometheus.errors import ApplicationError, ServingError
from hr_prometheus.server.runner import CLEANUP_SECONDS, InProgress
from hr_prometheus.workers.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

logger = logging.getLogger("hr_prometheus")

#: Seconds that a worker is given to end when it has nothing more to do.
_LAST_SECONDS = 0.5
_LAST_WORDS_SECONDS = 0.2
#: The reason for which all workers end.
STOP = "stop"


class WorkerProcess:
    """A worker from its start to its end.

    *asked* answers its questions and *worn* is called when it has served as many requests as it may. ``booted`` says,
    when it is done, whether the application could be served; if not, ``failure`` says why not and the process has
    ended. ``ended`` is its exit code, or the negative number of the signal which killed it.
    """

    def __init__(
        self, slot: int, asked: Callable[[str, Any], Awaitable[bytes]], worn: Callable[[WorkerProcess], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.slot = slot
        self.pid = 0
        self.routes = 0
        self.notices: list[str] = []
        self.booted: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.failure: BaseException | None = None
        self.served_since = 0.0
        #: Why it ends, if the supervisor wants it to: a reason for a restart, or "stop".
        self.reason = ""
        #: The requests in progress when its stop began, once it has said so.
        self.draining: list[InProgress] | None = None
        #: When its application's clean-up began, by the loop's clock.
        self.cleaning_since = inf
        #: Pings that it has not answered.
        self.unanswered = 0
        self._code: int | None = None
        self._is_hung_up = False
        self._deadline: asyncio.TimerHandle | None = None
        self._loop = loop
        self._worn = worn
        self._channel = Channel(self._notified, asked, self._hung_up)
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, target: str, orders: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Start the process and tell it its *orders*; a failure to do so is as if the process had failed."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self.refuse(ServingError(f"cannot start a worker: {error.strerror}."))
            return
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603  # it returns at once; the command is ours
                    _command(theirs.fileno(), self.slot, target),
                    pass_fds=[theirs.fileno(), *descriptors],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                self.refuse(ServingError(f"cannot start a worker: {error.strerror}."))
                return
        self.pid = self._process.pid
        await self._channel.connect(ours)
        self._channel.send("orders", orders)

    def refuse(self, failure: Exception | None) -> None:
        """Have it end before it has begun."""
        self.failure, self._code = failure, 1
        self.booted.set_result(False)
        self.ended.set_result(1)

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, which has not been waited for."""
        return bool(self.pid) and self._code is None

    @property
    def is_running(self) -> bool:
        """Whether it has begun to serve and has not ended."""
        return bool(self.served_since) and self.is_alive

    @property
    def is_serving(self) -> bool:
        """Whether it takes connections, as far as the supervisor knows."""
        return self.is_running and not self.reason

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.unanswered += 1
        self._channel.send("ping")

    async def ask(self, kind: str) -> bytes:
        """Return its answer to a question; raise :exc:`ConnectionError` if there will be none."""
        return await self._channel.ask(kind)

    def end(self, reason: str, seconds: float) -> None:
        """Have it serve the requests in progress and end; it is killed if that takes longer than *seconds*.

        A *reason* other than ``stop`` means that others go on, so that it can close its connections gently.
        """
        if self.reason:
            return
        self.reason = reason
        if self.served_since:
            self._channel.send("stop" if reason == STOP else "replace")
        elif self.is_alive:
            os.kill(self.pid, signal.SIGTERM)  # it may be importing, when it reads no messages
        self._end_within(seconds)

    def kill(self, reason: str = "") -> None:
        """Kill it, with what it has started, if it has not ended."""
        self.reason = self.reason or reason
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reaped(self, status: int) -> None:
        """Note its end; *status* is what ``waitpid`` said."""
        assert self._process is not None  # noqa: S101  # it had a pid
        self._process.returncode = self._code = os.waitstatus_to_exitcode(status)
        # What it has said last may still be on its way, and a process that it has forked may hold the other end.
        self._loop.call_later(_LAST_WORDS_SECONDS, self._channel.close)
        if self._is_hung_up:
            self._finish()

    def _hung_up(self) -> None:
        self._is_hung_up = True
        if self._code is not None:
            self._finish()

    def _finish(self) -> None:
        assert self._code is not None  # noqa: S101  # it has ended
        if not self.booted.done():
            if self.failure is None and not self.reason:  # it has said nothing
                self.failure = SystemExit(self._code)
                if self._code < 0:
                    how = describe_end(self._code)
                    self.failure = ApplicationError(f"the application was ended by {how} while it started.")
            self.booted.set_result(False)
        self.ended.set_result(self._code)

    def _end_within(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self._end_late, seconds)

    def _end_late(self, seconds: float) -> None:
        if self._code is None:
            logger.warning("Worker %d (pid %d) has not ended within %g s and is killed.", self.slot, self.pid, seconds)
            self.kill()

    def _notified(self, kind: str, value: Any) -> None:
        if kind == "pong":
            self.unanswered = 0
        elif kind == "ready":
            self.routes, self.notices = value
            self.served_since = self._loop.time()
            self.booted.set_result(True)
        elif kind == "failed":
            name, *arguments = value
            self.failure = getattr(errors, name)(*arguments)
            self._loop.call_later(_LAST_SECONDS, self.kill)  # a thread of the application's may go on
        elif kind == "draining":
            self.draining = [InProgress(*each) for each in value]
        elif kind == "cleaning":
            self.cleaning_since = self._loop.time()
            self._end_within(CLEANUP_SECONDS)
        elif kind == "worn":
            self._worn(self)


def _command(descriptor: int, slot: int, target: str) -> list[str]:
    # With "-m" the current directory comes first on the path, unless "-P" says otherwise. It shall where it is on ours.
    safe = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
    return [sys.executable, *safe, "-m", "hr_prometheus.workers", str(descriptor), str(slot), target]


def describe_end(code: int) -> str:
    """Return words for an exit code or, if it is negative, a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
