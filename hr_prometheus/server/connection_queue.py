"""Accepted connections that wait for their turn."""

from __future__ import annotations

import socket

#: Connections that wait, of all addresses.
MOST_WAITING = 128


class ConnectionQueue:
    """Connections that wait for their turn. The addresses that they come from take turns, each with its newest.

    For one too many, the oldest one is closed of the address that has the most: a flood displaces itself alone.
    """

    def __init__(self) -> None:
        # The oldest first, by their addresses. The address whose turn it is comes first.
        self._waiting: dict[str, list[socket.socket]] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def add(self, address: str, connection: socket.socket) -> None:
        """Add a connection from an address."""
        self._waiting.setdefault(address, []).append(connection)
        self._number += 1
        if self._number > MOST_WAITING:
            self._take(max(self._waiting, key=lambda each: len(self._waiting[each])), 0).close()

    def take(self) -> socket.socket | None:
        """Return the connection whose turn it is, which waits no longer. Those are closed whose clients have left without a word."""
        while self._waiting:
            address = next(iter(self._waiting))
            connection = self._take(address, -1)
            if address in self._waiting:
                self._waiting[address] = self._waiting.pop(address)
            if not _has_ended(connection):
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close all that wait."""
        for connections in self._waiting.values():
            for each in connections:
                each.close()
        self._waiting.clear()
        self._number = 0

    def _take(self, address: str, index: int) -> socket.socket:
        connections = self._waiting[address]
        connection = connections.pop(index)
        if not connections:
            del self._waiting[address]
        self._number -= 1
        return connection


def _has_ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
