"""The configuration of one worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: The exit code of a worker that cannot say why it fails, because the application has closed its control channel.
DISCONNECTED = 113


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker serves, where, and where it keeps its numbers: the first message of the supervisor.

    ``settings`` is the JSON of :class:`~hr_prometheus.settings.Settings`. ``sockets``, ``idle``, ``counts``, ``labels``, ``stacks`` and
    ``handover`` are descriptors that the worker inherits; ``idle`` are the ends of :class:`IdleConnections`, if there are any. ``script_request`` is what a script has asked for when ``sockets`` were bound. ``metrics_path`` is ``None`` if the supervisor serves the metrics on a port of their own.
    ``least_descriptors`` is how many files the worker has to be able to open when it begins to serve.
    """

    slot: int
    directory: str
    settings: dict[str, Any]
    sockets: list[int]
    idle: list[int]
    counts: int
    labels: int
    stacks: int = -1
    handover: int = -1
    script_request: dict[str, Any] | None = None
    urls: list[str]
    metrics_url: str
    metrics_path: str | None = None
    max_requests: int | None = None
    least_descriptors: int
