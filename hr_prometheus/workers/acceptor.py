"""Accepts connections from sockets that several processes listen on, so that each process gets its share.

asyncio accepts all connections that wait whenever it wakes up, so the first process awake gets all. Here a process
accepts one at a time, and first rests if it has more than the emptiest one. The rest is long enough for that one to
accept the connection, and short enough for no client to notice if it is blocked. Where connections come and go with
every request they even out by themselves, and a rest would only cost time; so there one more is tolerated.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from hr_prometheus.workers.shared_file import create_shared_file
from hr_prometheus.workers.tasks import BackgroundTasks
from hr_prometheus.written_forms import MOST_WORKERS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

logger = logging.getLogger("hr_prometheus")

#: Seconds for which a process rests; event loops count in milliseconds.
REST = 0.001
#: Seconds after the end of a connection for which connections count as short-lived.
SHORT_LIVED = 1.0
#: Seconds after which a process tries again when the operating system has refused it a connection.
RETRY = 1.0
#: How many connections a stop accepts from a socket at most: more wait only in a flood.
_MOST_WAITING = 4096
_POLL_SECONDS = 0.02
#: A stop waits for TLS so many times, for a part of its time: while the loop is blocked no more than one part passes.
_DRAIN_SLICES = 10


class Counts:
    """The number of connections of each worker, in memory that they share through a file *descriptor*."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        # One more than there can be workers, because a worker's successor may start before the worker has ended.
        self._memory = mmap.mmap(descriptor, 4 * (MOST_WORKERS + 1))
        self._cells = memoryview(self._memory).cast("i")  # 0: this worker accepts no connections; n+1: it has n

    @staticmethod
    def create() -> int:
        """Return the descriptor of new memory for counts."""
        descriptor = create_shared_file("connections")
        os.truncate(descriptor, 4 * (MOST_WORKERS + 1))
        return descriptor

    def set(self, slot: int, number: int) -> None:
        """Set how many connections the worker in a slot has."""
        self._cells[slot] = number + 1

    def clear(self, slot: int) -> None:
        """Note that the worker in a slot accepts no connections."""
        self._cells[slot] = 0

    def smallest(self) -> int:
        """Return how many connections the emptiest worker has; 0 if none accepts any."""
        return min(filter(None, self._cells.tolist()), default=1) - 1

    def close(self) -> None:
        """Release the memory."""
        self._cells.release()
        self._memory.close()
        os.close(self.descriptor)


class _Connection(socket.socket):
    """A connection that calls *on_close* when it is closed: asyncio closes it, and uvloop detaches it to do so itself."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        self._call_on_close()

    def detach(self) -> int:
        descriptor = super().detach()
        self._call_on_close()
        return descriptor

    def _call_on_close(self) -> None:
        if self.on_close is not None:
            self.on_close()
            self.on_close = None


class Acceptor:
    """Accepts connections from listening sockets, and gives each a protocol of *server*, such as aiohttp's."""

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        sockets: Sequence[socket.socket],
        counts: Counts,
        slot: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._server, self._sockets, self._counts, self._slot, self._tls = server, sockets, counts, slot, tls
        self._loop = asyncio.get_running_loop()
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._handshakes = BackgroundTasks()
        self._is_refused = self._is_started = False
        #: How many are open, with those that are in their TLS handshake.
        self.connections = 0
        self._last_end = -SHORT_LIVED

    def start(self) -> None:
        """Begin to accept connections, or go on after a pause."""
        self._is_started = True
        self._count(0)
        for each in self._sockets:
            self._loop.add_reader(each, self._on_readable, each)

    async def drain(self, seconds: float) -> None:
        """Accept all connections that wait, and no more, and set them up; give TLS up after so many *seconds*.

        When the last process closes a socket, the operating system resets the connections that wait there. Time for which
        the event loop is blocked hardly counts: no client can help it.
        """
        for each in self._sockets:
            for _ in range(_MOST_WAITING):
                if not self._accept(each):
                    break
        self.stop()  # at once, so that hardly any come in between
        for _ in range(_DRAIN_SLICES):
            if self._handshakes:
                await asyncio.wait(self._handshakes, timeout=seconds / _DRAIN_SLICES if self._tls else None)
        for task in self._handshakes:
            task.cancel()

    async def until_empty(self, seconds: float) -> None:
        """Wait until there are no connections, or for so many *seconds*."""
        end = self._loop.time() + seconds
        while self.connections and self._loop.time() < end:  # noqa: ASYNC110  # seldom needed
            await asyncio.sleep(_POLL_SECONDS)

    def pause(self) -> None:
        """Accept no connections for a while. They wait, or another process accepts them."""
        for each in self._sockets:
            if each in self._resting:
                self._resting.pop(each).cancel()
            else:
                self._loop.remove_reader(each)
        self._is_started = False
        self._counts.clear(self._slot)

    def stop(self) -> None:
        """Accept no more connections. Clients are refused when all processes have closed the sockets."""
        self.pause()
        for each in self._sockets:
            each.close()

    def _count(self, change: int) -> None:
        self.connections += change
        if change < 0:
            self._last_end = self._loop.time()
        if self._is_started:
            self._counts.set(self._slot, self.connections)

    def _on_readable(self, sock: socket.socket) -> None:
        is_tolerant = self._loop.time() - self._last_end < SHORT_LIVED
        if self.connections > self._counts.smallest() + is_tolerant:
            self._rest(sock, REST)
        else:
            self._accept(sock)

    def _rest(self, sock: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(sock)
        self._resting[sock] = self._loop.call_later(seconds, self._end_rest, sock)

    def _end_rest(self, sock: socket.socket) -> None:
        del self._resting[sock]
        self._loop.add_reader(sock, self._on_readable, sock)
        self._accept(sock)

    def _accept(self, sock: socket.socket) -> bool:
        """Accept a connection. Return whether there was one."""
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another process has accepted it, or its client has left
        except OSError as error:
            # As a rule there are no more descriptors. The client waits, or another process accepts it.
            if not self._is_refused:
                logger.error("No connection can be accepted at present: %s.", error.strerror)  # noqa: TRY400
            self._is_refused = True
            if sock not in self._resting:
                self._rest(sock, RETRY)
            return False
        self._is_refused = False
        counted = _Connection(connection.family, connection.type, connection.proto, connection.detach())
        counted.setblocking(False)
        counted.on_close = partial(self._count, -1)
        self._count(1)
        self._handshakes.start(self._connect(counted))
        return True

    async def _connect(self, connection: _Connection) -> None:
        with suppress(OSError):  # the client has left, or fails at TLS
            await self._loop.connect_accepted_socket(self._server, connection, ssl=self._tls)
