"""Requests with aiohttp before 3.14.4, whose writer does not report what it writes."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from hr_prometheus.request.aiohttp_features import HEADS_ARE_BUFFERED
from hr_prometheus.request.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web import Request
    from multidict import CIMultiDict

    from hr_prometheus.request.connection import Connection
    from hr_prometheus.request.recorder import Record, Recorder


class EarlierExchange(Exchange):
    """One request and its response. Each write is reported here, once the writer's buffer has room again."""

    __slots__ = ("_write",)

    def __init__(
        self, recorder: Recorder, record: Record, request: Request, writer: Any, connection: Connection
    ) -> None:
        """Observe the *writer*, and each of its writes."""
        with suppress(AttributeError):  # it may take no attributes
            writer.on_body_write = getattr(writer, "on_body_write", None)
        super().__init__(recorder, record, request, writer, connection)
        if not self.is_blind:
            self._write: Callable[..., Awaitable[None]] = writer.write
            writer.write = self.write
            self.observe_end()

    def release(self) -> None:
        """Let go of the writer."""
        with suppress(AttributeError):  # it could not be observed
            if self.writer.write == self.write:
                del self.writer.write
                if getattr(self._write, "__self__", None) is not self.writer:
                    self.writer.write = self._write  # the application's own
        super().release()

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Note the status, and have the writer write the head: to its buffer, or before aiohttp 3.12 to the transport."""
        is_sent = not HEADS_ARE_BUFFERED and not self.writer.output_size
        await super().write_headers(status_line, headers)
        if is_sent:
            self.first_byte_at = perf_counter()

    async def write(self, chunk: Any, **options: Any) -> None:
        """Write a part as the writer does, and report it."""
        room = self.writer.length  # of the Content-Length, beyond which the writer cuts
        await self._write(chunk, **options)
        self(len(chunk) if room is None else min(len(chunk), room), self.writer.output_size)

    async def write_eof(self, chunk: bytes = b"") -> None:
        """Write the last part as the writer does, and report it when it was handed over: then the writer drains."""
        if chunk:
            self.writer.drain = lambda: self._drain(len(chunk))
        try:
            await super().write_eof(chunk)
        finally:
            self.writer.__dict__.pop("drain", None)

    def _drain(self, size: int) -> Awaitable[None]:
        self(size, self.writer.output_size)
        return type(self.writer).drain(self.writer)  # type: ignore[no-any-return]
