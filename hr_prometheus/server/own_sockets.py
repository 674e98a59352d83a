"""Sockets of ours that an application has closed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hr_prometheus.errors import ApplicationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator


class OwnSockets:
    """The *sockets* that are open before the application of a *target* is imported. ``os.closerange`` closes them as well."""

    def __init__(self, target: str, sockets: Iterable[socket.socket]) -> None:
        self._target = target
        self._sockets = [(each, os.fstat(each.fileno())) for each in sockets]

    @contextmanager
    def watch(self, end: Callable[[], object]) -> Iterator[None]:
        """Call *end*, which ends the process, if any was closed in a block that runs in an event loop.

        What the loop needs was then closed as well, so that it can be neither run nor closed.
        """
        try:
            yield
        finally:
            if not all(is_of(each.fileno(), status) for each, status in self._sockets):
                end()

    def check(self) -> None:
        """Raise :exc:`~hr_prometheus.errors.ApplicationError` if any was closed. Its number may be that of another file by now."""
        closed = [each for each, status in self._sockets if not is_of(each.fileno(), status)]
        for each in closed:
            each.detach()
        if closed:
            raise closed_error(self._target)


def closed_error(target: str) -> ApplicationError:
    """Return the error for an application that has closed sockets of ours."""
    return ApplicationError(
        f'the application "{target}" has closed sockets that it has not opened, as os.closerange does. Expected an '
        "application that closes only its own sockets."
    )


def is_of(descriptor: int, status: os.stat_result) -> bool:
    """Return whether a descriptor is still of the file that has this *status*."""
    try:
        return os.path.samestat(os.fstat(descriptor), status)
    except OSError:
        return False
