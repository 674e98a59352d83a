"""The log of the metrics port: only the kind of what it refuses, once a minute. A request may have credentials in it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger

logger = logging.getLogger("hr_prometheus")

#: Seconds between two lines of one kind.
_INTERVAL = 60.0


class PortLogger(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's logger for a server, which names only the kind of a malformed request. aiohttp quotes its text."""

    def __init__(self) -> None:
        super().__init__(server_logger, {})
        # The times of the latest lines, by kinds.
        self._lines: dict[str, float] = {}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log anything else as aiohttp does, and at most one line a minute about malformed requests of a kind."""
        error = kwargs.get("exc_info")
        if not isinstance(error, HttpProcessingError):
            super().log(level, msg, *args, **kwargs)
            return
        kind = type(error).__name__
        if self._is_due(kind):
            logger.warning("The metrics port has refused a malformed request: %s.", kind)

    def log_handshake(self, error: BaseException) -> None:
        """Log why a client has failed at TLS, unless it has only left. It does not see why: asyncio sends no alert."""
        import ssl  # noqa: PLC0415  # a Python may be built without it

        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
            if self._is_due(reason):
                logger.warning("A client of the metrics port has failed at the TLS handshake: %s.", reason)

    def _is_due(self, kind: str) -> bool:
        """Whether it is time for a line of a kind, which then counts as logged."""
        now = monotonic()
        if now - self._lines.get(kind, -_INTERVAL) < _INTERVAL:
            return False
        self._lines[kind] = now
        return True
