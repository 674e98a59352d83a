"""One worker as the supervisor sees it: its process, its control channel, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from math import inf
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY

from hr_prometheus import errors
from hr_prometheus.errors import ApplicationError, ServingError
from hr_prometheus.server.in_progress import Blockers, RequestInProgress
from hr_prometheus.server.own_sockets import closed_error
from hr_prometheus.server.runner import CLEANUP_SECONDS
from hr_prometheus.store.store import make_native
from hr_prometheus.workers.channel import Channel
from hr_prometheus.workers.config import DISCONNECTED
from hr_prometheus.workers.handover import Handover
from hr_prometheus.workers.stacks import StackFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hr_prometheus.workers.config import WorkerConfig
    from hr_prometheus.workers.handover import ScriptSockets

logger = logging.getLogger("hr_prometheus")

#: Seconds that a worker has to end when it has nothing more to do.
_LAST_SECONDS = 0.5
#: Seconds that a message of a worker that has ended may be on its way.
_LAST_MESSAGE_SECONDS = 0.2

#: Why the supervisor ends a worker.
STOP, TIMEOUT, REMOVE, RELOAD, MAX_REQUESTS = "stop", "timeout", "remove", "reload", "max-requests"
#: Why a worker ends by itself.
EXIT, SIGNAL = "exit", "signal"
#: The reasons for which another worker is started.
RESTART_REASONS = (TIMEOUT, RELOAD, MAX_REQUESTS, EXIT, SIGNAL)


class WorkerProcess:
    """A worker from its start to its end.

    *on_question* answers its questions. *on_request_limit* is called when it has served as many requests as it may, and
    *on_sockets* with the sockets that it has bound for a script, when it serves.
    """

    def __init__(
        self,
        slot: int,
        on_question: Callable[[str, Any], Awaitable[bytes]],
        on_request_limit: Callable[[WorkerProcess], None],
        on_sockets: Callable[[ScriptSockets], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.slot = slot
        self.pid = 0
        self.routes = 0
        self.notices: list[str] = []
        #: The name of its event loop.
        self.loop = ""
        #: Done when it serves, with ``True``, or when it has ended before, with ``False``; ``failure`` says why.
        self.boot: asyncio.Future[bool] = self._loop.create_future()
        self.failure: BaseException | None = None
        #: Done when it has ended, with its exit code, or the negative number of the signal that has killed it.
        self.end: asyncio.Future[int] = self._loop.create_future()
        #: Why it ends, if the supervisor wants it to.
        self.reason = ""
        #: The requests in progress when its stop began; ``None`` until it has sent them.
        self.draining: list[RequestInProgress] | None = None
        #: When its application's clean-up began, or a stop without requests, by the loop's clock.
        self.cleanup_began = inf
        #: Seconds that the present step of its stop may take.
        self.stop_seconds = 0.0
        #: What its clean-up waits for; ``None`` until it has sent it, because the clean-up is slow.
        self.blockers: Blockers | None = None
        #: The number of the latest of its exemplars that has arrived.
        self.latest_exemplar = 0
        #: Pings that it has not answered.
        self.unanswered = 0
        self._code: int | None = None
        self._is_disconnected = False
        self._kill_timer: asyncio.TimerHandle | None = None
        self._on_request_limit, self._on_sockets = on_request_limit, on_sockets
        self._channel = Channel(self._on_message, on_question, self._on_close)
        self._process: subprocess.Popen[bytes] | None = None
        self._target = ""
        self._stacks: StackFile | None = None
        self._handover: Handover | None = None

    async def start(self, target: str, config: WorkerConfig) -> None:
        """Start the process and send its *config*; if the system refuses, that is its failure."""
        self._target = target
        try:
            self._stacks = StackFile()
            self._handover = None if self._on_sockets is None else Handover()
            connection, worker_connection = socket.socketpair()
        except OSError as error:
            self.fail(ServingError(f"cannot start a worker: {error.strerror}."))
            return
        config = replace(config, stacks=self._stacks.descriptor)
        inherited = [*config.sockets, *config.idle, config.counts, config.labels, config.stacks]
        if self._handover is not None:
            config = replace(config, handover=self._handover.descriptor)
            inherited.append(config.handover)
        descriptor = worker_connection.fileno()
        with worker_connection:
            try:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603  # it returns at once; the command is ours
                    _command(descriptor, self.slot, target),
                    pass_fds=[descriptor, *inherited],
                    stdin=None if config.settings["reload"] else subprocess.DEVNULL,  # for breakpoint()
                    start_new_session=True,
                )
            except OSError as error:
                connection.close()
                self.fail(ServingError(f"cannot start a worker: {error.strerror}."))
                return
        if self._handover is not None:
            self._handover.close_other()
        self.pid = self._process.pid
        await self._channel.connect(connection)
        self._channel.send("config", asdict(config))

    def fail(self, failure: Exception | None) -> None:
        """End it before there is a process."""
        self.failure, self._code = failure, 1
        self.boot.set_result(False)
        self._set_end()

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, which has not been waited for."""
        return bool(self.pid) and self._code is None

    @property
    def has_served(self) -> bool:
        """Whether it has ever served."""
        return self.boot.done() and self.boot.result()

    @property
    def is_running(self) -> bool:
        """Whether it has begun to serve and has not ended."""
        return self.has_served and self.is_alive

    @property
    def is_serving(self) -> bool:
        """Whether it accepts connections, as far as the supervisor knows."""
        return self.is_running and not self.reason

    @property
    def will_restart(self) -> bool:
        """Whether its slot gets another worker when it has ended. One that has not served has no successor for a reload."""
        return self.reason in {"", TIMEOUT} or (self.reason == RELOAD and not self.has_served)

    def ping(self) -> None:
        """Ask whether it still answers."""
        self.unanswered += 1
        self._channel.send("ping")

    async def ask(self, kind: str, value: object = None) -> bytes:
        """Return its answer to a question; raise :exc:`ConnectionError` if there will be none."""
        return await self._channel.ask(kind, value)

    def pause(self) -> None:
        """Have it accept no connections, and put those that are idle where they wait for the next worker."""
        self._channel.send("pause")

    def resume(self) -> None:
        """Have it accept connections again."""
        self._channel.send("resume")

    def stop(self, reason: str, drain_seconds: float) -> None:
        """Have it serve the requests in progress and end. It is killed if it takes longer than it may.

        Unless all workers stop, it closes its connections only when they are idle.
        """
        if self.reason:
            return
        self.reason = reason
        if self.has_served:
            self._channel.send("stop" if reason == STOP else "replace")
        elif self.is_alive:
            os.kill(self.pid, signal.SIGTERM)  # it may be importing, when it reads no messages
        self._kill_after(CLEANUP_SECONDS + (drain_seconds if self.has_served else 0.0))

    async def give_up(self) -> str:
        """Count it as timed out, and return its stacks; empty if it does not write them within a second."""
        self.reason = TIMEOUT
        if self._stacks is not None and self.is_alive:
            with suppress(OSError):  # it has ended meanwhile
                return await self._stacks.ask(self.pid)
        return ""

    def kill(self) -> None:
        """Kill it, with the processes that it has started, if it has not ended."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self, status: int) -> None:
        """Note its end, with the *status* of ``waitpid``."""
        assert self._process is not None  # noqa: S101  # it had a pid
        self._process.returncode = self._code = os.waitstatus_to_exitcode(status)
        # Its last message may be on its way, and a process that it has forked may hold the other end.
        self._loop.call_later(_LAST_MESSAGE_SECONDS, self._channel.close)
        if self._is_disconnected:
            self._finish()

    def _on_close(self) -> None:
        self._is_disconnected = True
        if self._code is not None:
            self._finish()

    def _finish(self) -> None:
        assert self._code is not None  # noqa: S101  # it has ended
        if not self.boot.done():
            if self.failure is None and not self.reason:  # it has sent no failure
                self.failure = SystemExit(self._code)
                if self._code == DISCONNECTED:
                    self.failure = closed_error(self._target)
                elif self._code < 0:
                    cause = describe_exit_code(self._code)
                    self.failure = ApplicationError(f"the application was ended by {cause} while it started.")
            self.boot.set_result(False)
        self._set_end()

    def _set_end(self) -> None:
        assert self._code is not None  # noqa: S101  # it has ended
        if self._stacks is not None:
            self._stacks.close()
        if self._handover is not None:
            self._handover.close()
        self.end.set_result(self._code)

    def _kill_after(self, seconds: float) -> None:
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self.stop_seconds = seconds
        self._kill_timer = self._loop.call_later(seconds, self._kill_late, seconds)

    def _kill_late(self, seconds: float) -> None:
        if self._code is None:
            logger.warning("Worker %d (pid %d) has not ended within %g s and is killed.", self.slot, self.pid, seconds)
            self.kill()

    def _on_message(self, kind: str, value: Any) -> None:
        if kind == "pong":
            self.unanswered = 0
        elif kind == "ready" and not self.reason:  # a start-up that blocks it hears later that it shall end
            self.routes, self.notices, self.loop, native = value
            make_native(REGISTRY, native)  # the scrapes', which this process measures
            sockets = None if self._handover is None else self._handover.take()
            if sockets is not None and self._on_sockets is not None:
                self._on_sockets(sockets)
            self.boot.set_result(True)
        elif kind == "failed":
            name, *arguments = value
            self.failure = self.failure or getattr(errors, name)(*arguments)  # what follows may be caused by it
            self._loop.call_later(_LAST_SECONDS, self.kill)  # a thread of the application's may go on
        elif kind == "draining":
            self.draining = [RequestInProgress(*each) for each in value]
            if not self.draining:
                self.cleanup_began = self._loop.time()
        elif kind == "cleaning up":
            self.cleanup_began = self._loop.time()
            self._kill_after(CLEANUP_SECONDS)
        elif kind == "blocked":
            requests, reasons = value
            self.blockers = Blockers([RequestInProgress(*each) for each in requests], reasons)
        elif kind == "request limit reached":
            self._on_request_limit(self)


def _command(descriptor: int, slot: int, target: str) -> list[str]:
    # With "-m" the current directory comes first on the path, without "-P". It shall only where it is on ours.
    safe = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
    return [sys.executable, *safe, "-m", "hr_prometheus.workers", str(descriptor), str(slot), target]


def describe_exit_code(code: int) -> str:
    """Return words for an exit code or, if it is negative, a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
