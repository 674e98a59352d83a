"""What a worker says of its stop, for the person who waits for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from hr_prometheus.server.announcer import SLOW_CLEANUP, start_timer
from hr_prometheus.server.in_progress import blockers_of
from hr_prometheus.workers.channel import encode

if TYPE_CHECKING:
    import socket

    from hr_prometheus.server.in_progress import RequestInProgress
    from hr_prometheus.workers.channel import Channel


class StopReports:
    """Sends them to the supervisor, by the *channel* or, when that is closed, by its *connection*."""

    def __init__(self, channel: Channel, connection: socket.socket) -> None:
        self._channel, self._connection = channel, connection

    def on_drain(self, requests: list[RequestInProgress]) -> None:
        """Send which requests the stop waits for; without any, only the application's own functions are left."""
        self._channel.send("draining", requests)
        if not requests:
            self._send_blockers_if_slow()

    def on_cleanup(self) -> None:
        """Send that the application's clean-up begins, and what it waits for if it is slow."""
        self._channel.send("cleaning up")
        self._send_blockers_if_slow()

    def _send_blockers_if_slow(self) -> None:
        start_timer(SLOW_CLEANUP, partial(self._send_blockers, asyncio.get_running_loop()))

    def _send_blockers(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send what the stop waits for. Called in another thread, perhaps after the channel was closed."""
        message = "blocked", blockers_of(loop)
        with suppress(OSError, RuntimeError):
            if self._channel.is_open:
                loop.call_soon_threadsafe(self._channel.send, *message)
            else:
                self._connection.sendall(encode(*message))
