"""The connections that requests come on, and what is recorded when they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hr_prometheus.request.exchange import Exchange


class Connection:
    """One connection of a client. *exchange* is the request on it that is not over."""

    exchange: Exchange | None = None

    def end(self, task: asyncio.Task[Any]) -> None:
        """Record the end of a request whose response was not complete when the connection ended."""
        del connections[task]
        if self.exchange is not None:
            self.exchange.give_up()


#: The open connections, by aiohttp's tasks for them.
connections: dict[asyncio.Task[Any] | None, Connection] = {}


def open_connection(task: object) -> Connection | None:
    """Return the connection that is new with *task*; ``None`` if that is not aiohttp's, as in a unit test."""
    if not isinstance(task, asyncio.Task):
        return None
    connection = connections[task] = Connection()
    task.add_done_callback(connection.end)
    return connection
