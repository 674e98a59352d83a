"""Taking connections from sockets that several processes listen on, so that each process gets its share.

asyncio takes as many connections as there are whenever it wakes up, so the first process awake takes all. Here a
process takes one at a time, and first rests if it has more than the emptiest one: long enough for that one to take the
connection, and short enough for no client to notice if it cannot, because it is blocked. Where connections come and go
with every request they even out by themselves, and resting would only cost time; so there one more is tolerated.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import socket
import tempfile
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from hr_prometheus.settings import MOST_WORKERS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from aiohttp.web import Server

logger = logging.getLogger("hr_prometheus")

#: Seconds for which a process rests; event loops count in milliseconds.
REST = 0.001
#: Seconds for which the end of a connection shows that connections come and go.
SHORT_LIVED = 1.0
#: Seconds after which a process tries again when the operating system has let it take no connection.
RETRY = 1.0
#: More connections than these do not wait in front of a socket, unless somebody floods it.
_MOST_WAITING = 4096


class Counts:
    """The number of connections of each worker, in memory that they share through a file *descriptor*."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        # One more than there can be workers, because a worker's successor may start before the worker has ended.
        self._memory = mmap.mmap(descriptor, 4 * (MOST_WORKERS + 1))
        self._cells = memoryview(self._memory).cast("i")  # 0: this worker takes no connections; n+1: it has n

    @staticmethod
    def make() -> int:
        """Return the descriptor of new counts."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("hr-prometheus-connections")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.truncate(descriptor, 4 * (MOST_WORKERS + 1))
        return descriptor

    def set(self, slot: int, number: int) -> None:
        """Tell that the worker in a slot has so many connections."""
        self._cells[slot] = number + 1

    def clear(self, slot: int) -> None:
        """Tell that the worker in a slot takes no connections."""
        self._cells[slot] = 0

    def smallest(self) -> int:
        """Return how many connections the emptiest worker has."""
        return min(filter(None, self._cells.tolist()), default=1) - 1

    def close(self) -> None:
        """Give the memory back."""
        self._cells.release()
        self._memory.close()
        os.close(self.descriptor)


class _Connection(socket.socket):
    """A connection that tells when it is closed: asyncio closes it, and uvloop detaches it to close it itself."""

    ended: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        self._end()

    def detach(self) -> int:
        descriptor = super().detach()
        self._end()
        return descriptor

    def _end(self) -> None:
        if self.ended is not None:
            self.ended()
            self.ended = None


class Acceptor:
    """Takes connections from listening sockets and hands them to aiohttp's server."""

    def __init__(
        self, server: Server, sockets: Sequence[socket.socket], counts: Counts, slot: int, tls: ssl.SSLContext | None
    ) -> None:
        self._server, self._sockets, self._counts, self._slot, self._tls = server, sockets, counts, slot, tls
        self._loop = asyncio.get_running_loop()
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._entering: set[asyncio.Task[None]] = set()
        self._is_refused = self._is_started = False
        #: How many there are, those whose TLS handshake is going on among them.
        self.connections = 0
        self._last_end = -SHORT_LIVED

    def start(self) -> None:
        """Begin to take connections."""
        self._is_started = True
        self._count(0)
        for each in self._sockets:
            self._loop.add_reader(each, self._readable, each)

    async def drain(self, seconds: float) -> None:
        """Take all connections that wait, and no more; return when they are set up, or give them up after so many *seconds*.

        When the last process closes a socket, the operating system resets what waits there.
        """
        for each in self._sockets:
            for _ in range(_MOST_WAITING):
                if not self._accept(each):
                    break
        self.stop()  # at once, so that as few as can be come in between
        if self._entering:
            _, late = await asyncio.wait(self._entering, timeout=seconds)
            for task in late:
                task.cancel()

    def stop(self) -> None:
        """Take no more connections. Clients are refused when all processes have closed the sockets."""
        for each in self._sockets:
            if each in self._resting:
                self._resting.pop(each).cancel()
            else:
                self._loop.remove_reader(each)
            each.close()
        self._is_started = False
        self._counts.clear(self._slot)

    def _count(self, change: int) -> None:
        self.connections += change
        if change < 0:
            self._last_end = self._loop.time()
        if self._is_started:
            self._counts.set(self._slot, self.connections)

    def _readable(self, sock: socket.socket) -> None:
        is_tolerant = self._loop.time() - self._last_end < SHORT_LIVED
        if self.connections > self._counts.smallest() + is_tolerant:
            self._rest(sock, REST)
        else:
            self._accept(sock)

    def _rest(self, sock: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(sock)
        self._resting[sock] = self._loop.call_later(seconds, self._rested, sock)

    def _rested(self, sock: socket.socket) -> None:
        del self._resting[sock]
        self._loop.add_reader(sock, self._readable, sock)
        self._accept(sock)

    def _accept(self, sock: socket.socket) -> bool:
        """Take a connection, if there is one, and say so."""
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another process took it, or its client has left
        except OSError as error:
            # As a rule there are no more descriptors. The client waits, or another process takes it.
            if not self._is_refused:
                logger.error("No connection can be taken at present: %s.", error.strerror)  # noqa: TRY400
            self._is_refused = True
            if sock not in self._resting:
                self._rest(sock, RETRY)
            return False
        self._is_refused = False
        counted = _Connection(connection.family, connection.type, connection.proto, connection.detach())
        counted.setblocking(False)
        counted.ended = partial(self._count, -1)
        self._count(1)
        task = self._loop.create_task(self._enter(counted))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        return True

    async def _enter(self, connection: _Connection) -> None:
        with suppress(OSError):  # the client has left, or fails at TLS
            await self._loop.connect_accepted_socket(self._server, connection, ssl=self._tls)
