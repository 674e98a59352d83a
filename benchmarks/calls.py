"""Client sessions in the ways that are compared, and a server for them: no more than a protocol that answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiohttp import ClientSession, TraceConfig

if TYPE_CHECKING:
    from collections.abc import Callable

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class _Answer(asyncio.Protocol):
    """Answers each head of a request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(_ANSWER)


def _ours() -> TraceConfig:
    from hr_prometheus import client_trace_config

    return client_trace_config()


def _opentelemetry() -> TraceConfig:
    """Make OpenTelemetry's configuration, with metrics and no traces."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.instrumentation.aiohttp_client import create_trace_config
    from opentelemetry.sdk.metrics import MeterProvider

    provider = MeterProvider(metric_readers=[PrometheusMetricReader()])
    return cast("TraceConfig", create_trace_config(meter_provider=provider))


_CONFIGS: dict[str, Callable[[], TraceConfig]] = {
    "empty-client": TraceConfig,
    "client": _ours,
    "opentelemetry-client": _opentelemetry,
}


class Calls:
    """A session, and a server that it calls."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self._session, self._url = session, url

    @classmethod
    async def prepare(cls, variant: str) -> Calls:
        """Make the session of a variant; that of ``bare`` has no trace configuration."""
        server = await asyncio.get_running_loop().create_server(_Answer, "127.0.0.1", 0)
        configs = [_CONFIGS[variant]()] if variant in _CONFIGS else []
        return cls(ClientSession(trace_configs=configs), f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    async def send(self, number: int) -> None:
        """Send so many requests, one after the other, and read their responses."""
        for _ in range(number):
            async with self._session.get(self._url) as response:
                await response.read()
